"""What a holder asked for, and how it becomes a complete spec: the profile's defaults, then every check.

Promises: ``resolve`` returns a spec in which nothing is left to a default and every value is inside its bounds, or
raises InvalidField with the field's path in the API. Not promised: that it fits (``ensure_can_ever_fit`` says whether
it ever could) or that the caller may use the queue: pass only the queues that they may use.
"""

import re
from collections.abc import Collection
from typing import Any, Final

import msgspec

from sparkbroker.broker.domain.asking.client_mode import check_holder_pod
from sparkbroker.broker.domain.asking.conf import check_conf, check_jars, check_packages, check_unset_conf, coordinates
from sparkbroker.broker.domain.asking.durations import DURATIONS
from sparkbroker.broker.domain.asking.local_session import check_local
from sparkbroker.broker.domain.asking.pod import check_pod
from sparkbroker.broker.domain.asking.profile import Profile
from sparkbroker.broker.domain.capacity.queue import MAX_PRIORITY, Queue
from sparkbroker.broker.domain.capacity.resources import (
    CPU,
    MEMORY,
    MIB,
    Resources,
    check_cores,
    describe_quantity,
    format_memory,
    parse_memory,
)
from sparkbroker.broker.domain.errors import InvalidField, NeverFits
from sparkbroker.broker.domain.lease.lease import (
    ContainerSize,
    ExecutorSpec,
    HolderPod,
    LeaseMode,
    LeaseSharing,
    LeaseSpec,
)
from sparkbroker.broker.domain.text import shown
from sparkbroker.broker.domain.units import Seconds

MAX_EXECUTORS: Final = 10_000
MAX_LABELS: Final = 64
MAX_LABEL_KEY: Final = 63
MAX_LABEL_VALUE: Final = 256
MAX_KEY: Final = 256

_LABEL_KEY: Final = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9._/-]*[A-Za-z0-9])?")
_UUID: Final = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}", re.IGNORECASE)
_NIL: Final = "00000000-0000-0000-0000-000000000000"


class SizeRequest(msgspec.Struct, frozen=True, kw_only=True):
    """A size as asked; 0 and empty are unset. Memory in Spark's notation."""

    cores: int = 0
    memory: str = ""
    memory_overhead: str = ""


class ExecutorRequest(msgspec.Struct, frozen=True, kw_only=True):
    """Executors as asked. Counts that are both 0 are unset if a size is given; without a size they ask for none."""

    size: SizeRequest = SizeRequest()
    min_count: int = 0
    max_count: int = 0


class SpecRequest(msgspec.Struct, frozen=True, kw_only=True):
    """A LeaseSpec as asked, before defaults. Empty and None are unset; durations in seconds."""

    profile: str = ""
    queue: str = ""
    mode: LeaseMode | None = None
    sharing: LeaseSharing | None = None
    driver: SizeRequest | None = None
    executors: ExecutorRequest | None = None
    conf: dict[str, str] = {}
    unset_conf: tuple[str, ...] = ()
    pod: dict[str, Any] = {}
    holder_pod: HolderPod | None = None
    packages: tuple[str, ...] = ()
    jars: tuple[str, ...] = ()
    priority: int | None = None
    labels: dict[str, str] = {}
    wait_ttl: float | None = None
    unattended_ttl: float | None = None
    ttl: float | None = None
    acquire_timeout: float | None = None
    max_duration: float | None = None
    keep_when_holder_lost: bool = False


def resolve(request: SpecRequest, profile: Profile, *, queues: Collection[str], default_queue: str) -> LeaseSpec:
    """The complete spec; raise InvalidField for the first thing that is wrong.

    Maps (conf, labels, pod) are the profile's with the holder's over them, less ``unset_conf``; lists (packages, jars) are the profile's, then
    the holder's. ``max_duration`` that nobody names is the profile's limit. An executor's size that neither names is
    the size of the profile's driver. ``keep_when_holder_lost`` holds if the holder or the profile asks for it.
    """
    defaults = profile.defaults
    mode = _mode(request, profile)
    check_local(request.pod, mode, profile)
    spec = LeaseSpec(
        profile=profile.name,
        queue=_queue(request, profile, queues, default_queue),
        mode=mode,
        sharing=_sharing(request, profile, mode),
        driver=_size(request.driver, defaults.driver, "spec.driver"),
        executors=_executors(request.executors, profile),
        conf=_conf(request, profile),
        pod={**defaults.pod, **check_pod(request.pod, profile)},
        holder_pod=check_holder_pod(request.holder_pod, request.pod, mode, profile),
        packages=_joined(coordinates(defaults.packages), check_packages(request.packages, profile)),
        jars=_joined(defaults.jars, check_jars(request.jars, profile)),
        priority=_priority(defaults.priority if request.priority is None else request.priority),
        labels=_labels({**defaults.labels, **request.labels}),
        wait_ttl=_duration("wait_ttl", request.wait_ttl, defaults.wait_ttl),
        unattended_ttl=_duration("unattended_ttl", request.unattended_ttl, defaults.unattended_ttl),
        ttl=_duration("ttl", request.ttl, defaults.ttl),
        acquire_timeout=_optional_duration("acquire_timeout", request.acquire_timeout, defaults.acquire_timeout),
        max_duration=_max_duration(request, profile),
        keep_when_holder_lost=request.keep_when_holder_lost or defaults.keep_when_holder_lost,
    )
    _check_limits(spec, profile)
    return spec


def ensure_can_ever_fit(
    spec: LeaseSpec, charge: Resources, queue: Queue, pool_capacity: Resources, *, pool: str = ""
) -> None:
    """Raise NeverFits, with the numbers, if it would not fit even if nothing else ran.

    A name that the queue doesn't list is not limited by the queue; one that the pool doesn't list, it doesn't have.
    """
    for name in sorted(charge.quantities):
        asked = charge[name]
        if name in queue.nominal.quantities and asked > queue.nominal[name]:
            limit = queue.nominal[name]
            whose, hint = f"queue `{queue.name}` may use", "use another queue, or have its quota raised"
        elif asked > pool_capacity[name]:
            limit = pool_capacity[name]
            whose = f"the pool `{pool}` has" if pool else "its pool has"
            hint = "use a profile with another pool, or have its capacity raised"
        else:
            continue
        raise NeverFits(
            f"asks {describe_quantity(name, asked)}; {whose} {describe_quantity(name, limit)}: "
            f"{_how_to_ask_less(spec, name)}, {hint}",
            resource=name,
            asked=str(asked),
            limit=str(limit),
            queue=queue.name,
        )


def check_key(key: str) -> str:
    """A lease key; empty is none. Raise InvalidField unless it is at most 256 printable characters."""
    return check_text("lease_key", key, MAX_KEY)


def check_request_id(text: str) -> str:
    """A request id, in lower case. Raise InvalidField unless it is a UUID (and not all zeros)."""
    if _UUID.fullmatch(text) is None or text == _NIL:
        problem = f"{shown(text)} is not a UUID" if text else "is empty"
        raise InvalidField("request_id", problem, f'make a new UUID for each request, as "{_NIL[:-1]}1"')
    return text.lower()


def check_text(field: str, text: str, limit: int) -> str:
    """Words for people. Raise InvalidField unless it is at most ``limit`` printable characters."""
    if len(text) > limit:
        raise InvalidField(field, f"has {len(text)} characters", f"it may have {limit}")
    if not text.isprintable():
        raise InvalidField(field, "holds an unprintable character", "write one line of printable characters")
    return text


def _how_to_ask_less(spec: LeaseSpec, name: str) -> str:
    field = {CPU: "cores", MEMORY: "memory"}.get(name)
    if field is None:
        return "ask for another profile"
    if spec.executors is None:
        return f"ask for less (driver.{field})"
    return f"ask for less (driver.{field}, executors.size.{field}, executors.max_count)"


def _conf(request: SpecRequest, profile: Profile) -> dict[str, str]:
    unset = check_unset_conf(request.unset_conf, request.conf, profile)
    kept = {key: value for key, value in profile.defaults.conf.items() if key not in unset}
    return {**kept, **check_conf(request.conf, profile)}


def _mode(request: SpecRequest, profile: Profile) -> LeaseMode:
    mode = profile.defaults.mode if request.mode is None else request.mode
    if mode not in profile.modes:
        allowed = " or ".join(profile.modes) or "no mode at all"
        raise InvalidField("spec.mode", f"{mode} is not offered by profile `{profile.name}`", f"it offers {allowed}")
    return mode


def _sharing(request: SpecRequest, profile: Profile, mode: LeaseMode) -> LeaseSharing:
    sharing = profile.defaults.sharing if request.sharing is None else request.sharing
    if mode is not LeaseMode.CONNECT and sharing is LeaseSharing.SHARED:
        raise InvalidField(
            "spec.sharing",
            f"a {mode} lease is the capacity of one process and can't be SHARED",
            "use EXCLUSIVE, or the mode CONNECT",
        )
    return sharing


def _queue(request: SpecRequest, profile: Profile, queues: Collection[str], default_queue: str) -> str:
    queue = request.queue or profile.defaults.queue or default_queue
    usable = sorted(name for name in queues if not profile.queues or name in profile.queues)
    if queue not in usable:
        problem = f"can't be used with profile `{profile.name}`" if queue in queues else "is unknown"
        raise InvalidField("spec.queue", f"{shown(queue)} {problem}", f"use one of: {_listed(usable)}")
    return queue


def _size(asked: SizeRequest | None, default: ContainerSize, field: str) -> ContainerSize:
    if asked is None:
        return default
    return ContainerSize(
        cores=check_cores(asked.cores, f"{field}.cores") if asked.cores else default.cores,
        memory=parse_memory(asked.memory, f"{field}.memory") if asked.memory else default.memory,
        overhead=_overhead(asked, default, f"{field}.memory_overhead"),
    )


def _overhead(asked: SizeRequest, default: ContainerSize, field: str) -> int | None:
    """The default's named overhead was made for the default's heap: another heap takes Spark's formula."""
    if asked.memory_overhead:
        return parse_memory(asked.memory_overhead, field)
    return None if asked.memory else default.overhead


def _executors(asked: ExecutorRequest | None, profile: Profile) -> ExecutorSpec | None:
    default = profile.defaults.executors
    if asked is None:
        return default
    field = "spec.executors"
    low, high = asked.min_count, asked.max_count
    if not low and not high:
        if asked.size == SizeRequest():
            return None
        if default is None:
            raise InvalidField(f"{field}.max_count", "is not set", f"say how many executors, from 1 to {MAX_EXECUTORS}")
        low, high = default.min_count, default.max_count
    for name, count in (("min_count", low), ("max_count", high)):
        if not 0 <= count <= MAX_EXECUTORS:
            raise InvalidField(f"{field}.{name}", f"{count} is out of range", f"it must be from 0 to {MAX_EXECUTORS}")
    if high < low:
        raise InvalidField(
            f"{field}.max_count", f"{high} is less than min_count {low}", "it must be at least min_count"
        )
    size = profile.defaults.driver if default is None else default.size
    return ExecutorSpec(size=_size(asked.size, size, f"{field}.size"), min_count=low, max_count=high)


def _priority(priority: int) -> int:
    if not -MAX_PRIORITY <= priority <= MAX_PRIORITY:
        expected = f"it must be from -{MAX_PRIORITY} to {MAX_PRIORITY}"
        raise InvalidField("spec.priority", f"{priority} is out of range", expected)
    return priority


def _labels(labels: dict[str, str]) -> dict[str, str]:
    if len(labels) > MAX_LABELS:
        problem = f"{len(labels)} labels, with the profile's"
        raise InvalidField("spec.labels", problem, f"a lease may have {MAX_LABELS}")
    for key, value in labels.items():
        if len(key) > MAX_LABEL_KEY or _LABEL_KEY.fullmatch(key) is None:
            expected = f"at most {MAX_LABEL_KEY} of A-Z a-z 0-9 . _ / -, a letter or digit first and last"
            raise InvalidField("spec.labels", f"{shown(key)} is not a label's key", expected)
        check_text(f"spec.labels.{key}", value, MAX_LABEL_VALUE)
    return labels


def _duration(name: str, asked: float | None, default: float) -> Seconds:
    value = default if asked is None else asked
    bounds = DURATIONS[name]
    if not bounds.include(value):
        raise InvalidField(f"spec.{name}", f"{value:g}s is out of range", f"it must be from {bounds.words}")
    return Seconds(float(value))


def _optional_duration(name: str, asked: float | None, default: float | None) -> Seconds | None:
    value = default if asked is None else asked
    return None if value is None else _duration(name, value, value)


def _max_duration(request: SpecRequest, profile: Profile) -> Seconds | None:
    limit = profile.limits.max_duration
    asked = _optional_duration("max_duration", request.max_duration, profile.defaults.max_duration)
    if limit is None:
        return asked
    if asked is not None and asked > limit:
        problem = f"{asked:g}s is more than profile `{profile.name}` allows"
        raise InvalidField("spec.max_duration", problem, f"it may be at most {limit:g}s")
    return Seconds(limit) if asked is None else asked


def _check_limits(spec: LeaseSpec, profile: Profile) -> None:
    limits = profile.limits
    _check_size(spec.driver, limits.driver_cores, limits.driver_memory, "spec.driver", profile)
    if spec.executors is not None:
        size = spec.executors.size
        _check_size(size, limits.executor_cores, limits.executor_memory, "spec.executors.size", profile)
        _check_limit("spec.executors.max_count", spec.executors.max_count, limits.executor_count, profile)
    defaults = profile.defaults
    if profile.provisioner == "static" and (spec.driver, spec.executors) != (defaults.driver, defaults.executors):
        field = "spec.driver" if spec.driver != defaults.driver else "spec.executors"
        problem = f"profile `{profile.name}` has endpoints that run already, whose size can't be asked for"
        raise InvalidField(field, problem, "leave it unset")


def _check_size(size: ContainerSize, cores: int | None, memory: int | None, field: str, profile: Profile) -> None:
    _check_limit(f"{field}.cores", size.cores, cores, profile)
    if memory is not None and size.memory > memory:
        problem = f"{format_memory(size.memory)} is more than profile `{profile.name}` allows"
        raise InvalidField(f"{field}.memory", problem, f"it may be at most {format_memory(memory)}")
    if size.memory % MIB or (size.overhead or 0) % MIB:
        # The JVM and Spark's formula count whole MiB: anything else would be truncated somewhere.
        part = "memory" if size.memory % MIB else "memory_overhead"
        raise InvalidField(f"{field}.{part}", "is not a whole number of MiB", "use m, g or t")


def _check_limit(field: str, value: int, limit: int | None, profile: Profile) -> None:
    if limit is not None and value > limit:
        problem = f"{value} is more than profile `{profile.name}` allows"
        raise InvalidField(field, problem, f"it may be at most {limit}")


def _joined(first: tuple[str, ...], second: tuple[str, ...]) -> tuple[str, ...]:
    return tuple(dict.fromkeys((*first, *second)))


def _listed(names: list[str]) -> str:
    shown = ", ".join(f"`{name}`" for name in names[:20])
    return (shown or "none is open to you") + (f" and {len(names) - 20} more" if len(names) > 20 else "")
