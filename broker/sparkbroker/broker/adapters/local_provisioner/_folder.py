"""A driver's folder: what is recorded of it, by whom, and what that means after a crash.

``intent.json``   the provisioner, before anything is started
``arguments``     the same: the JVM's arguments (in a file, since ``ps`` shows argv); removed once it is READY
``process.json``  the shim, before it starts the driver, and again with the driver's pid
``ready.json``    the provisioner: the port and when it opened; again when a call has succeeded
``stop.json``     the provisioner, before it asks the driver to end
``exit.json``     the shim, after everything has ended
``driver.log``    the driver

Each file is replaced as a whole or not at all. A folder without ``intent.json`` was being made or removed.
"""

import os
import shutil
from pathlib import Path
from typing import Final, TypeVar

import msgspec

from sparkbroker.broker.domain.capacity.resources import Resources
from sparkbroker.broker.domain.units import DriverId, WallTime


class Intent(msgspec.Struct, frozen=True, kw_only=True):
    """What was asked for. ``scratch`` is the driver's folder for what Spark writes."""

    driver_id: DriverId
    attempt: int
    profile: str
    fingerprint: str
    target: Resources
    scratch: str


class Process(msgspec.Struct, frozen=True, kw_only=True):
    """The shim and the driver; a driver_pid of 0: not started yet. Start times are in clock ticks since the boot."""

    boot_id: str
    pid: int
    start: int
    started: WallTime
    driver_pid: int = 0
    driver_start: int = 0


class Readiness(msgspec.Struct, frozen=True, kw_only=True):
    """The driver's Connect port. It belongs to the process named, not to a later one."""

    driver_pid: int
    driver_start: int
    port: int
    port_open: WallTime
    ready: WallTime | None = None
    ui_url: str = ""


class Stop(msgspec.Struct, frozen=True, kw_only=True):
    """It was asked to end."""

    asked: WallTime
    forced: bool = False


class Ending(msgspec.Struct, frozen=True, kw_only=True):
    """The driver's wait status, and how many processes the kernel killed for want of memory shortly before."""

    status: int
    oom_kills: int = 0
    ended: WallTime


_Record = TypeVar("_Record", Intent, Process, Readiness, Stop, Ending)
_NAMES: Final[dict[type, str]] = {
    Intent: "intent.json",
    Process: "process.json",
    Readiness: "ready.json",
    Stop: "stop.json",
    Ending: "exit.json",
}


class Folder:
    """One driver's folder, which may not exist."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __repr__(self) -> str:
        return f"<Folder {self.path.name}>"

    @property
    def log(self) -> Path:
        return self.path / "driver.log"

    @property
    def arguments(self) -> Path:
        return self.path / "arguments"

    def read(self, kind: type[_Record]) -> _Record | None:
        """None: not written. A record that can't be decoded was not written by us: ValueError."""
        try:
            data = (self.path / _NAMES[kind]).read_bytes()
        except (FileNotFoundError, NotADirectoryError):
            return None
        return msgspec.json.decode(data, type=kind)

    def write(self, record: Intent | Readiness | Stop) -> None:
        """Durable when it returns."""
        self.write_bytes(_NAMES[type(record)], msgspec.json.encode(record))

    def write_bytes(self, name: str, data: bytes) -> None:
        """Replace the file, private to this user."""
        new = self.path / f"{name}.new"
        descriptor = os.open(new, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        with os.fdopen(descriptor, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        new.replace(self.path / name)

    def remove(self) -> None:
        """The intent last, so that a removal that was cut short is found and repeated."""
        if not self.path.exists():
            return
        for entry in self.path.iterdir():
            if entry.name != _NAMES[Intent]:
                shutil.rmtree(entry) if entry.is_dir() and not entry.is_symlink() else entry.unlink()
        shutil.rmtree(self.path)
