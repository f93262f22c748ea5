"""What ``doctor`` looks at of the machine: Spark, Java, Python, class archives, size, disks, clock."""

import ctypes
import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Final, TypeVar

from sparkbroker.broker.adapters.local_provisioner import (
    ArchiveState,
    Toolchain,
    class_archive,
    find_java,
    find_python,
    find_spark,
    machine_capacity,
    scratch_base,
    trial,
)
from sparkbroker.broker.cli.doctor_finding import Finding, Status
from sparkbroker.broker.config import Config, to_profiles
from sparkbroker.broker.domain.asking.profile import Profile
from sparkbroker.broker.domain.asking.sizing import charge
from sparkbroker.broker.domain.capacity.resources import CPU, MEMORY, Resources, describe_quantity
from sparkbroker.broker.domain.errors import ProvisionerFailed
from sparkbroker.client.nameless_user import user_name

LOCAL_EXTRA: Final = "pip install 'sparkbroker[local]'"
LEAST_STATE: Final = 512 << 20
"""Bytes: the database with its journal, logs of drivers, and a class archive."""
LEAST_SCRATCH: Final = 2 << 30
_CLOCK_STATUS: Final = slice(40, 44)
"""Of ``struct timex``: where ``status`` stands on 64-bit Linux."""
_UNSYNCHRONISED: Final = 0x40
"""STA_UNSYNC of adjtimex(2)."""

T = TypeVar("T")


def of_profiles(config: Config, shared_cache: Path | None, *, served: bool) -> Iterator[Finding]:
    """Spark, Java, Python and class archive of every local profile; profiles that share them are looked at once.

    ``shared_cache`` is that of the brokers which ``run`` starts, if they have one; ``serve`` has one of its own.
    ``served``: ``serve`` can use the configuration, too.
    """
    own = (config.store.cache_folder or config.store.state_folder / "cache") if served else None
    caches = {"serve": own, "run": shared_cache}
    used = {command: cache for command, cache in caches.items() if cache is not None and config.store.class_archives}
    seen: set[tuple[str | None, ...]] = set()
    for profile in to_profiles(config).values():
        tools = (profile.spark_home, profile.java_home, profile.python)
        if profile.provisioner != "local" or tools in seen:
            continue
        seen.add(tools)
        yield from _toolchain(profile, used)


def of_machine(config: Config, *, served: bool, chosen: bool) -> Iterator[Finding]:
    """The user, the machine's size, the disks that the broker and its drivers write to, its clock.

    ``served``: ``serve`` can use the configuration, too. ``chosen``: it names the state folder.
    """
    yield _user()
    yield from _size(config)
    if served:
        yield _state_folder(config.store.state_folder, chosen=chosen)
    yield _disk("scratch folder", scratch_base(), LEAST_SCRATCH, "Spark spills and shuffles there: set TMPDIR")
    yield _clock()


def _toolchain(profile: Profile, caches: dict[str, Path]) -> Iterator[Finding]:
    suffix = "" if profile.name == "default" else f" (profile {profile.name})"
    spark, java, python = (
        _looked_for(lambda: find_spark(profile.spark_home)),
        _looked_for(lambda: find_java(profile.java_home)),
        _looked_for(lambda: find_python(profile.python)),
    )
    yield _said_of(f"Spark{suffix}", spark, lambda found: f"{found.version} ({found.home})")
    yield _said_of(f"Java{suffix}", java, lambda found: f"{found.version} ({found.home})")
    yield _said_of(f"Python of the workers{suffix}", python, lambda found: f"{found.version} ({found.executable})")
    if isinstance(spark, ProvisionerFailed) or isinstance(java, ProvisionerFailed):
        return
    if isinstance(python, ProvisionerFailed):
        return
    tools = Toolchain(spark=spark, java=java, python=python)
    yield _trial(f"Java's start{suffix}", tools)
    for command, cache in caches.items():
        yield _archive(f"class archive of {command}{suffix}", cache, tools)


def _trial(what: str, tools: Toolchain) -> Finding:
    trouble = trial(tools, scratch_base())
    if trouble:
        return Finding(what, Status.MISSING, trouble, "no driver can start: mend what it says")
    return Finding(what, Status.OK, "Java runs with Spark's jars, and the login of a driver succeeds")


def _user() -> Finding:
    """Drivers do without a name; other Spark programs of this user, and class archives, don't."""
    uid = os.getuid()
    name = user_name(uid)
    if name is not None:
        return Finding("user", Status.OK, f"{name} (uid {uid})")
    found = f"uid {uid} has no name in the system's user database: drivers start slower, without class archives"
    return Finding("user", Status.WARN, found, "add it to /etc/passwd, or preload libnss_wrapper.so")


def _looked_for(look: Callable[[], T]) -> T | ProvisionerFailed:
    try:
        return look()
    except ProvisionerFailed as error:
        return error


def _said_of(what: str, found: T | ProvisionerFailed, describe: Callable[[T], str]) -> Finding:
    if not isinstance(found, ProvisionerFailed):
        return Finding(what, Status.OK, describe(found))
    text, _, fix = found.message.rpartition(": ")
    return Finding(what, Status.MISSING, text or found.message, fix or LOCAL_EXTRA)


def _archive(what: str, cache: Path, tools: Toolchain) -> Finding:
    """It only makes drivers start faster, so none is no fault; one that can't be made is worth a look."""
    try:
        archive = class_archive(cache, tools)
    except OSError as error:
        return Finding(what, Status.WARN, f"{cache}: {error.strerror or error}", "drivers start slower without it")
    log = f"; log: {archive.log}" if archive.log is not None else ""
    match archive.state:
        case ArchiveState.THERE:
            made = f"{archive.size >> 20} MiB, made by Java {tools.java.version} for Spark {tools.spark.version}"
            return Finding(what, Status.OK, f"{made} ({archive.path})")
        case ArchiveState.BUILDING:
            return Finding(what, Status.OK, f"being made{log}")
        case ArchiveState.FAILED:
            fix = f"see the log; it is tried again a day later, or once {archive.path.stem}.failed beside it is removed"
            return Finding(what, Status.WARN, f"it couldn't be made: {archive.why}{log}", fix)
        case ArchiveState.MISSING:
            return Finding(what, Status.OK, "none yet: made in the background once a driver is ready")


def _size(config: Config) -> Iterator[Finding]:
    capacity = machine_capacity()
    smallest = _smallest(config)
    for what, quantity in (("cores", CPU), ("memory", MEMORY)):
        found = capacity.describe(quantity)
        if smallest[quantity] > capacity[quantity]:
            fix = f"the smallest profile asks {smallest.describe(quantity)}: give it less, or the machine more"
            yield Finding(what, Status.WARN, found, fix)
        else:
            yield Finding(what, Status.OK, found)


def _smallest(config: Config) -> Resources:
    charges = [charge(p.defaults, p) for p in to_profiles(config).values() if p.provisioner == "local"]
    return min(charges, key=lambda asked: asked[MEMORY], default=Resources())


def _state_folder(folder: Path, *, chosen: bool) -> Finding:
    """One that nobody has chosen is below a home, which a container's user can't write in; ``run`` does without."""
    what = "state folder"
    unusable = Status.MISSING if chosen else Status.WARN
    without = "" if chosen else "; sparkbroker run does without"
    existing = next(path for path in (folder, *folder.parents) if path.exists())
    if not existing.is_dir() or not os.access(existing, os.W_OK | os.X_OK):
        return Finding(what, unusable, f"{existing} can't be written", f"set store.state_folder, or chown it{without}")
    if existing == folder:
        status = folder.stat()
        if status.st_uid != os.getuid():
            return Finding(what, unusable, f"{folder} is another user's", f"set store.state_folder{without}")
        if status.st_mode & 0o077:
            return Finding(what, Status.WARN, f"{folder} is open to others", f"chmod 700 {folder}")
    state = "" if existing == folder else " (made at the first start)"
    return _disk(what, existing, LEAST_STATE, "free some: leases can't be stored without", f"{folder}{state}")


def _disk(what: str, folder: Path, least: int, fix: str, shown: str = "") -> Finding:
    try:
        free = shutil.disk_usage(folder).free
    except OSError as error:
        return Finding(what, Status.WARN, f"{folder}: {error.strerror or error}", fix)
    found = f"{shown or folder}: {describe_quantity(MEMORY, free >> 20 << 20)} free".replace(" of memory", "")
    return Finding(what, Status.OK, found) if free >= least else Finding(what, Status.WARN, found, fix)


def _clock() -> Finding:
    """What the kernel says of its clock. Leases run on one that nobody sets; times in listings and TLS don't."""
    what = "clock"
    buffer = ctypes.create_string_buffer(512)  # more than a struct timex; its modes of 0 change nothing
    try:
        told = ctypes.CDLL(None, use_errno=True).adjtimex(buffer)
    except (OSError, AttributeError):
        told = -1
    if told < 0:
        return Finding(what, Status.OK, "the system doesn't say whether it is synchronised")
    if int.from_bytes(buffer.raw[_CLOCK_STATUS], "little") & _UNSYNCHRONISED:
        fix = "times in listings and TLS need the right time: timedatectl set-ntp true (a guest's host may see to it)"
        return Finding(what, Status.WARN, "not synchronised, as far as the kernel knows", fix)
    return Finding(what, Status.OK, "synchronised")
