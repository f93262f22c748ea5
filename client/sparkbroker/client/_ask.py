"""What a program asks for, as arguments, checked as far as the client can and made into a request."""

import math
from collections.abc import Mapping, Sequence
from datetime import timedelta
from typing import Any, Final, Literal, TypedDict

from google.protobuf.duration_pb2 import Duration
from google.protobuf.struct_pb2 import Struct

from sparkbroker.client._errors import InvalidRequest
from sparkbroker.client.own_pod import own_pod
from sparkbroker.v1 import broker_pb2 as pb

Seconds = float | timedelta
_INT32: Final = 2**31 - 1


class Ask(TypedDict, total=False):
    """The arguments of ``acquire``, ``lease`` and ``session``. What is left out takes the profile's default.

    ``cores`` and ``memory`` are the driver's ("2g": Spark's notation); ``executors`` is how many, or the pair of
    fewest and most: 0 is none, and unset the profile's number, of the size that is asked for. Durations are seconds or
    timedelta. ``key`` is the caller's own name for the lease, and ``on_existing`` what happens when it has a live one.
    ``holder_pod`` (``namespace``, ``name`` and ``uid``) is for mode CLIENT; unset: this program's own pod, as the downward
    API tells it in SPARKBROKER_POD_NAMESPACE, _NAME and _UID. In ``conf``, numbers and booleans are
    written as Spark writes them, and None goes without a key that the profile sets by default. ``pod`` are settings of its pods.
    ``request_id`` (a UUID; unset: a new one) makes the same request of a program that was started anew the same lease.
    The rest is documented at LeaseSpec in broker.proto.
    """

    profile: str
    queue: str
    mode: Literal["CONNECT", "LOCAL", "CLIENT"]
    holder_pod: Mapping[str, str]
    sharing: Literal["EXCLUSIVE", "SHARED"]
    cores: int
    memory: str
    memory_overhead: str
    executors: int | tuple[int, int]
    executor_cores: int
    executor_memory: str
    executor_memory_overhead: str
    conf: Mapping[str, str | int | float | bool | None]
    pod: Mapping[str, Any]
    packages: Sequence[str]
    jars: Sequence[str]
    priority: int
    labels: Mapping[str, str]
    wait_ttl: Seconds
    unattended_ttl: Seconds
    ttl: Seconds
    acquire_timeout: Seconds
    max_duration: Seconds
    keep_when_holder_lost: bool
    key: str
    on_existing: Literal["FAIL", "REATTACH", "REPLACE"]
    request_id: str


def acquire_request(ask: Ask, request_id: str) -> pb.AcquireLeaseRequest:
    """The request for an Ask, under its own request id or this one; raise InvalidRequest, which names the argument."""
    given: dict[str, Any] = {name: value for name, value in ask.items() if value is not None}
    for name in given:
        if name not in Ask.__annotations__:
            raise InvalidRequest(f"{name}: there is no such argument", field=name)
    conf, unset = _conf(given)
    spec = pb.LeaseSpec(
        profile=_text(given, "profile"),
        queue=_text(given, "queue"),
        mode=_choice(given, "mode", pb.LeaseMode, "LEASE_MODE_"),
        sharing=_choice(given, "sharing", pb.LeaseSharing, "LEASE_SHARING_"),
        conf=conf,
        unset_conf=unset,
        pod=_pod(given),
        packages=_list(given, "packages"),
        jars=_list(given, "jars"),
        labels=_texts(given, "labels"),
        keep_when_holder_lost=_flag(given, "keep_when_holder_lost"),
    )
    if given.get("priority") is not None:
        spec.priority = _whole(given, "priority", lowest=-_INT32)
    driver = _size(given, "cores", "memory", "memory_overhead")
    if driver is not None:
        spec.driver.CopyFrom(driver)
    if spec.mode == pb.LEASE_MODE_CLIENT or "holder_pod" in given:
        spec.holder_pod.CopyFrom(pb.HolderPod(**own_pod(given.get("holder_pod"))))
    executors = _executors(given)
    if executors is not None:
        spec.executors.CopyFrom(executors)
    for name in ("wait_ttl", "unattended_ttl", "ttl", "acquire_timeout", "max_duration"):
        if name in given:
            getattr(spec, name).CopyFrom(_duration(given[name], name))
    return pb.AcquireLeaseRequest(
        request_id=_text(given, "request_id") or request_id,
        lease_key=_text(given, "key"),
        on_existing=_choice(given, "on_existing", pb.OnExisting, "ON_EXISTING_"),
        spec=spec,
    )


def _size(given: Mapping[str, Any], cores: str, memory: str, overhead: str) -> pb.ContainerSize | None:
    if not {cores, memory, overhead} & given.keys():
        return None
    for name in (memory, overhead):
        if given.get(name) == "":
            raise InvalidRequest(
                f"{name}: '' is not a memory size; write one such as \"2g\", or leave it out", field=name
            )
    return pb.ContainerSize(
        cores=_whole(given, cores, lowest=1), memory=_text(given, memory), memory_overhead=_text(given, overhead)
    )


def _executors(given: Mapping[str, Any]) -> pb.ExecutorSpec | None:
    size = _size(given, "executor_cores", "executor_memory", "executor_memory_overhead")
    if "executors" not in given:
        return None if size is None else pb.ExecutorSpec(size=size)  # how many is the profile's to say
    value = given["executors"]
    pair = value if isinstance(value, tuple) else (value, value)
    if len(pair) != 2:
        raise InvalidRequest(f"executors: {value!r} is neither a number nor a pair (fewest, most)", field="executors")
    fewest, most = (_whole({"executors": number}, "executors", lowest=0) for number in pair)
    if fewest > most:
        raise InvalidRequest(f"executors: fewest is {fewest} and most is {most}; fewest first", field="executors")
    if not most:
        return pb.ExecutorSpec()  # with a size it would mean: the profile's number of them
    return pb.ExecutorSpec(size=size, min_count=fewest, max_count=most)


def _whole(given: Mapping[str, Any], name: str, *, lowest: int) -> int:
    value = given.get(name)
    if value is None:
        return 0
    if isinstance(value, bool) or not isinstance(value, int):
        raise InvalidRequest(f"{name}: {value!r} is not a whole number; give one from {lowest} to {_INT32}", field=name)
    if not lowest <= value <= _INT32:
        raise InvalidRequest(f"{name}: {value} is out of range; give {lowest} to {_INT32}", field=name)
    return value


def _text(given: Mapping[str, Any], name: str) -> str:
    value = given.get(name, "")
    if not isinstance(value, str):
        raise InvalidRequest(f"{name}: {value!r} is not text; give a str", field=name)
    return value


def _flag(given: Mapping[str, Any], name: str) -> bool:
    value = given.get(name, False)
    if not isinstance(value, bool):
        raise InvalidRequest(f"{name}: {value!r} is neither True nor False", field=name)
    return value


def _texts(given: Mapping[str, Any], name: str) -> dict[str, str]:
    value = given.get(name, {})
    if not isinstance(value, Mapping):
        raise InvalidRequest(f"{name}: give a mapping of text to text", field=name)
    for key, item in value.items():
        if not isinstance(key, str) or not isinstance(item, str):
            raise InvalidRequest(f"{name}: {key!r} must be text with a value that is text", field=name)
    return dict(value)


def _conf(given: Mapping[str, Any]) -> tuple[dict[str, str], list[str]]:
    """What is set, and the keys that are unset."""
    value = given.get("conf", {})
    if not isinstance(value, Mapping):
        raise InvalidRequest("conf: give a mapping of text to values", field="conf")
    for key in value:
        if not isinstance(key, str):
            raise InvalidRequest(f"conf: the key {key!r} must be text", field="conf")
    conf = {key: _conf_value(key, item) for key, item in value.items() if item is not None}
    return conf, [key for key, item in value.items() if item is None]


def _conf_value(key: str, value: object) -> str:
    """As Spark writes it: true, 8, 0.5."""
    match value:
        case str():
            return str(value)
        case bool():
            return "true" if value else "false"
        case int():
            return int.__str__(value)
        case float() if math.isfinite(value):
            return float.__repr__(value)
        case _:
            raise InvalidRequest(
                f"conf: {key} is {value!r}; give text, a bool or a finite number, or None to go without it",
                field="conf",
            )


def _pod(given: Mapping[str, Any]) -> Struct | None:
    value = given.get("pod")
    if not value:
        return None
    if not isinstance(value, Mapping):
        raise InvalidRequest(f"pod: {value!r} is not a mapping of settings", field="pod")
    struct = Struct()
    try:
        struct.update(value)
    except (ValueError, TypeError, AttributeError) as error:
        raise InvalidRequest(f"pod: holds what JSON can't ({error}); give plain dictionaries", field="pod") from error
    return struct


def _list(given: Mapping[str, Any], name: str) -> list[str]:
    value = given.get(name, ())
    if isinstance(value, str) or not isinstance(value, Sequence) or not all(isinstance(item, str) for item in value):
        raise InvalidRequest(f"{name}: give a list of texts", field=name)
    return list(value)


def _choice(given: Mapping[str, Any], name: str, enum: Any, prefix: str) -> Any:
    value = given.get(name)
    if value is None:
        return 0
    known = [key.removeprefix(prefix) for key in enum.keys() if not key.endswith("UNSPECIFIED")]  # noqa: SIM118
    if value not in known:
        raise InvalidRequest(f"{name}: {value!r} is unknown; give one of {', '.join(known)}", field=name)
    return enum.Value(prefix + value)


def seconds(value: object, name: str) -> float:
    """A duration as seconds; raise InvalidRequest unless it is finite and not negative."""
    if isinstance(value, timedelta):
        return seconds(value.total_seconds(), name)
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value <= 10**9:
        raise InvalidRequest(f"{name}: {value!r} is not a duration; give seconds (0 to 1e9) or a timedelta", field=name)
    return float(value)


def _duration(value: object, name: str) -> Duration:
    whole, nanos = divmod(round(seconds(value, name) * 1e9), 10**9)
    return Duration(seconds=whole, nanos=nanos)
