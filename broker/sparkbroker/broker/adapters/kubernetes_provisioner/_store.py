"""The pods of one namespace as last told. Pure: what came in decides, whatever the order of answers and events.

A driver's own pod is the one whose uid is on record, and while none is, the one of the driver's name or a holder's. Others that
say they are it have copied its labels: they count for nothing, and are told as strays.
"""

from collections.abc import Callable, Iterable, Mapping
from typing import Final, TypeVar

from sparkbroker.broker.adapters.kubernetes_provisioner._names import DRIVER, is_driver_id, object_name
from sparkbroker.broker.adapters.kubernetes_provisioner._pods import Metadata, Pod
from sparkbroker.broker.adapters.kubernetes_provisioner._reasons import executor_failure
from sparkbroker.broker.domain.units import DriverId

Key = TypeVar("Key")
Value = TypeVar("Value")

REMEMBERED: Final = 10_000
"""Drivers whose last pod, and pods whose uids, are remembered after they are gone."""


Stray = Callable[[str, Metadata, str], None]
"""Tells of one: its kind, which it is, and why."""


class PodStore:
    """By driver. ``<PodStore [3 drivers, 9 pods]>``. ``recorded``: the uids of drivers' own pods, and it may change."""

    def __init__(self, recorded: Mapping[DriverId, str] | None = None, stray: Stray | None = None) -> None:
        self._recorded = recorded if recorded is not None else {}
        self._stray = stray
        self._pods: dict[DriverId, dict[str, Pod]] = {}
        self._gone: dict[str, None] = {}
        self._last: dict[DriverId, Pod] = {}
        self._failures: dict[DriverId, str] = {}

    def __repr__(self) -> str:
        return f"<PodStore [{len(self._pods)} drivers, {sum(map(len, self._pods.values()))} pods]>"

    def drivers(self) -> tuple[DriverId, ...]:
        """Those that have pods."""
        return tuple(self._pods)

    def of(self, driver_id: DriverId) -> tuple[Pod, ...]:
        """The pods of one driver, its own first."""
        found = filter(self._is_what_it_says, self._pods.get(driver_id, {}).values())
        return tuple(sorted(found, key=lambda pod: (not pod.is_driver, pod.is_holder, pod.metadata.name)))

    def driver_pod(self, driver_id: DriverId) -> Pod | None:
        return next((pod for pod in self.of(driver_id) if pod.is_driver), None)

    def last(self, driver_id: DriverId) -> Pod | None:
        """The driver's own pod as it was last seen, also when it is gone."""
        pod = self._last.get(driver_id)
        return pod if pod is not None and self._is_what_it_says(pod) else None

    def last_failure(self, driver_id: DriverId) -> str:
        """How an executor of it failed last, for people; empty: none has."""
        return self._failures.get(driver_id, "")

    def put(self, pod: Pod) -> bool:
        """A pod exists, as its event or an answer tells. Whether that is news."""
        if wrong := _misnamed(pod):
            self._tell(pod, wrong)
            return self._drop(pod.driver_id, pod.metadata.uid)  # it may have been another's before
        if not self._is_what_it_says(pod):
            self._tell(pod, f"driver {pod.driver_id} has another pod")
        if _identity(pod.driver_id, pod.metadata.uid) in self._gone:
            return False
        pods = self._pods.setdefault(pod.driver_id, {})
        known = pods.get(pod.metadata.uid)
        if known is not None and not _newer(pod.metadata.resource_version, known.metadata.resource_version):
            return False
        pods[pod.metadata.uid] = pod
        self._note(pod)
        return True

    def remove(self, pod: Pod) -> bool:
        """A pod is gone, in its last state. Whether that is news."""
        if not _misnamed(pod):
            _remember(self._gone, _identity(pod.driver_id, pod.metadata.uid), None)
            self._note(pod)
        return self._drop(pod.driver_id, pod.metadata.uid)

    def replace(self, pods: Iterable[Pod], version: str, *, of: DriverId | None = None) -> set[DriverId]:
        """What a list of everything (or of one driver) told: what it doesn't hold is gone, unless that is newer than the
        list. Return who changed."""
        listed = list(pods)
        present = {_identity(pod.driver_id, pod.metadata.uid) for pod in listed}
        changed = {pod.driver_id for pod in listed if self.put(pod)}
        for driver_id in (of,) if of is not None else self.drivers():
            known = self._pods.get(driver_id, {})
            for uid in [
                uid
                for uid, pod in known.items()
                if _identity(driver_id, uid) not in present and not _newer(pod.metadata.resource_version, version)
            ]:
                _remember(self._gone, _identity(driver_id, uid), None)
                self._drop(driver_id, uid)
                changed.add(driver_id)
        return changed

    def forget(self, driver_id: DriverId) -> None:
        """Nobody asks for it any more."""
        self._last.pop(driver_id, None)
        self._failures.pop(driver_id, None)

    def _drop(self, driver_id: DriverId, uid: str) -> bool:
        pods = self._pods.get(driver_id, {})
        known = pods.pop(uid, None)
        if not pods:
            self._pods.pop(driver_id, None)
        return known is not None

    def _note(self, pod: Pod) -> None:
        if pod.is_driver:
            if self._is_what_it_says(pod):
                _remember(self._last, pod.driver_id, pod)
        elif not pod.leaving and (why := executor_failure(pod)):
            _remember(self._failures, pod.driver_id, why)

    def _is_what_it_says(self, pod: Pod) -> bool:
        recorded = self._recorded.get(pod.driver_id)
        return not pod.is_driver or recorded is None or pod.metadata.uid == recorded

    def _tell(self, pod: Pod, why: str) -> None:
        if self._stray is not None:
            self._stray("pod", pod.metadata, why)


def _misnamed(pod: Pod) -> str:
    """What of its labels can't be true; empty: all of them can."""
    if not is_driver_id(pod.driver_id):
        return f"its label {DRIVER} is no driver's id"
    if pod.is_driver and not pod.is_holder and pod.metadata.name != object_name(pod.driver_id):
        return f"the pod of driver {pod.driver_id} has another name"
    return ""


def _identity(driver_id: DriverId, uid: str) -> str:
    """A holder's own pod may be the driver of one lease after the other."""
    return f"{driver_id}/{uid}"


def _newer(new: str, old: str) -> bool:
    """Resource versions of one resource can be compared as numbers since Kubernetes 1.35, and could in fact before."""
    return int(new) > int(old) if new.isdecimal() and old.isdecimal() else new != old


def _remember(memory: dict[Key, Value], key: Key, value: Value) -> None:
    memory.pop(key, None)
    memory[key] = value
    if len(memory) > REMEMBERED:
        del memory[next(iter(memory))]
