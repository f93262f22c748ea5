"""The folder in which one broker keeps all its state: taken exclusively, and only its owner can look into it."""

import errno
import fcntl
import os
import secrets
import time
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Final, Self

from sparkbroker.broker.adapters.sql_store._ballast import DEFAULT_BALLAST, Ballast
from sparkbroker.broker.ports.store import StoreUnusable

KEY_SIZE: Final = 32
_FULL: Final = frozenset({errno.ENOSPC, errno.EDQUOT})
_READ_ONLY: Final = frozenset({errno.EROFS, errno.EACCES, errno.EPERM})
# One block at most, and always the same size: rewriting it needs no room on a full disk.
_HOLDER_SIZE: Final = 32


class StateFolder:
    """``database``, ``drivers``, ``cache`` and ``ballast`` are paths and things in it, ``key`` the broker's secret.

    Taken from ``open`` to ``close``, or to the process's end; a child that is forked without exec would keep it. The
    lock is the operating system's: a broker that was killed leaves nothing to clean up.
    """

    def __init__(self, path: Path, *, ballast_size: int = DEFAULT_BALLAST, create_parents: bool = False) -> None:
        self.path = path.absolute()
        self.database = self.path / "broker.db"
        self.drivers = self.path / "drivers"
        self.cache = self.path / "cache"
        self.ballast = Ballast(self.path / "ballast", ballast_size)
        self._create_parents = create_parents
        self._lock: int | None = None
        self._key = b""

    def __repr__(self) -> str:
        return f"<StateFolder {self.path} [{'taken' if self._lock is not None else 'not taken'}]>"

    @property
    def key(self) -> bytes:
        """32 random bytes, made once per folder: what drivers' tokens are derived from. Only while it is taken."""
        if self._lock is None:
            raise RuntimeError(f"{self.path} is not taken: call open() first")
        return self._key

    def open(self) -> None:
        """Create it if need be (mode 0700, in a folder that exists), check it, and take it. Raise StoreUnusable."""
        if self._lock is not None:
            raise RuntimeError(f"{self.path} is already taken")
        try:
            self._create()
            self._check()
            self._lock = self._take()
            try:
                self._furnish(self._lock)
            except BaseException:
                self.close()
                raise
        except OSError as error:
            raise unusable(self.path, error) from error

    def close(self) -> None:
        """Let go of it. Idempotent."""
        lock, self._lock, self._key = self._lock, None, b""
        if lock is not None:
            os.close(lock)

    def __enter__(self) -> Self:
        self.open()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _create(self) -> None:
        if self._create_parents:
            self.path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        try:
            with suppress(FileExistsError):
                self.path.mkdir(mode=0o700)
        except FileNotFoundError as error:
            raise StoreUnusable(
                f"the state folder {self.path} can't be created: {self.path.parent} doesn't exist; create that, or "
                "give another state folder"
            ) from error

    def _check(self) -> None:
        status = self.path.stat()
        if not self.path.is_dir():
            raise StoreUnusable(f"the state folder {self.path} is not a folder; remove it, or give another one")
        if status.st_uid != os.geteuid():
            raise StoreUnusable(
                f"the state folder {self.path} belongs to user {status.st_uid}, and this is user {os.geteuid()}; run the "
                "broker as its owner, or give another state folder"
            )
        if status.st_mode & 0o077:
            raise StoreUnusable(
                f"the state folder {self.path} has mode {status.st_mode & 0o7777:04o}: others may look into it, and it holds "
                f"the broker's key; run `chmod 700 {self.path}`"
            )

    def _take(self) -> int:
        descriptor = os.open(self.path / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            holder = _describe_holder(descriptor)
            os.close(descriptor)
            raise StoreUnusable(
                f"another broker ({holder}) uses {self.path}; stop it or give this one another state folder"
            ) from error
        except BaseException:
            os.close(descriptor)
            raise
        return descriptor

    def _furnish(self, lock: int) -> None:
        """What is in it. On a full disk the ballast is what gives the few blocks that this needs."""
        try:
            self._fill_in(lock)
        except OSError as error:
            if error.errno not in _FULL or not self.ballast.free():
                raise
            self._fill_in(lock)
        else:
            self.ballast.fill()

    def _fill_in(self, lock: int) -> None:
        os.pwrite(lock, str(os.getpid()).ljust(_HOLDER_SIZE).encode(), 0)
        for folder in (self.drivers, self.cache):
            folder.mkdir(mode=0o700, exist_ok=True)
        self._key = _read_or_make_key(self.path / "key")


def unusable(path: Path, error: OSError) -> StoreUnusable:
    """The sentence for what the operating system refused."""
    if error.errno in _FULL:
        return StoreUnusable(f"the disk that holds {path} is full; free some space, then start the broker again")
    if error.errno in _READ_ONLY:
        return StoreUnusable(
            f"{path} is read-only for user {os.geteuid()} ({error}); make it writable, or give another state folder"
        )
    return StoreUnusable(f"{path} can't be used: {error}; check the disk, or give another state folder")


def _describe_holder(lock: int) -> str:
    pid = os.pread(lock, _HOLDER_SIZE, 0).decode(errors="replace").strip()
    if not pid.isdecimal():
        return "just starting: it hasn't written its pid yet"
    since = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(os.fstat(lock).st_mtime))
    return f"pid {pid}, since {since}"


def _read_or_make_key(path: Path) -> bytes:
    try:
        key = path.read_bytes()
    except FileNotFoundError:
        return _make_key(path)
    if len(key) != KEY_SIZE:
        raise StoreUnusable(
            f"{path} has {len(key)} bytes, and a key has {KEY_SIZE}; restore it, or remove it: sessions that run now are "
            "then lost, since their tokens were made with it"
        )
    mode = path.stat().st_mode & 0o7777
    if mode & 0o077:
        raise StoreUnusable(f"{path} has mode {mode:04o}: others may read the key; run `chmod 600 {path}`")
    return key


def _make_key(path: Path) -> bytes:
    """Whole or not at all, also through a power cut: written aside, synced, then renamed."""
    key = secrets.token_bytes(KEY_SIZE)
    aside = path.with_name(path.name + ".new")
    aside.unlink(missing_ok=True)
    descriptor = os.open(aside, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    try:
        os.write(descriptor, key)
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
    aside.rename(path)
    folder = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)
    return key
