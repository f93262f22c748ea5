"""Which lease is a task instance's: its key, its labels, and the id under which the broker is asked for it. Pure."""

import hashlib
import uuid
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final
from urllib.parse import quote

from sparkbroker.airflow_provider.request import Options

_LONGEST_KEY: Final = 256
_LONGEST_LABEL: Final = 256
_DIGEST: Final = 32
_OWN_LABELS: Final = "airflow_"
_NAMESPACE: Final = uuid.UUID("1e69a861-2b05-549b-a14a-69277592e4f0")


@dataclass(frozen=True, slots=True, kw_only=True)
class TaskIdentity:
    """One try of one task instance. ``map_index`` is -1 where it isn't mapped. empty ``id``: unknown. It is
    new for each try, unless the executor itself has failed the try before: then no lease was attached to."""

    dag_id: str
    run_id: str
    task_id: str
    map_index: int = -1
    try_number: int = 1
    id: str = ""

    @classmethod
    def of(cls, ti: Any) -> "TaskIdentity":
        """Of a task instance, in whichever shape this version of Airflow has it."""
        map_index = getattr(ti, "map_index", -1)
        return cls(
            dag_id=ti.dag_id,
            run_id=ti.run_id,
            task_id=ti.task_id,
            map_index=-1 if map_index is None else map_index,
            try_number=ti.try_number or 1,
            id=str(getattr(ti, "id", None) or ""),
        )

    def lease_key(self) -> str:
        """The same for all tries, and no other task instance's. At most 256 printable characters.

        Each part is quoted, so that a slash within one isn't taken for the one between two.
        """
        parts = (self.dag_id, self.run_id, self.task_id, str(self.map_index))
        key = "/".join(quote(part, safe="+:@~") for part in parts)
        if len(key) <= _LONGEST_KEY:
            return key
        digest = hashlib.sha256(key.encode()).hexdigest()[:_DIGEST]
        return f"{key[: _LONGEST_KEY - _DIGEST - 1]}~{digest}"

    def labels(self) -> dict[str, str]:
        """For the broker's filters and lists. The same for all tries: a retry may reattach to a lease of the same spec."""
        found = {"airflow_dag_id": self.dag_id, "airflow_run_id": self.run_id, "airflow_task_id": self.task_id}
        if self.map_index >= 0:
            found["airflow_map_index"] = str(self.map_index)
        return {key: _printable(value)[:_LONGEST_LABEL] for key, value in found.items()}

    def holder(self) -> str:
        """For people: who is attached."""
        mapped = f"[{self.map_index}]" if self.map_index >= 0 else ""
        return _printable(f"airflow {self.dag_id}.{self.task_id}{mapped} {self.run_id} try {self.try_number}")[:256]

    def request_id(self) -> str:
        """The same however often this try asks, so that the broker answers with the same lease; a UUID.

        Where a try has no id of its own, a random one: what a process asks twice it then has to remember.
        """
        return str(uuid.uuid5(_NAMESPACE, f"{self.lease_key()}/{self.id}")) if self.id else new_request_id()


def new_request_id() -> str:
    """For a request whose id is remembered, in a trigger's arguments or by the process that asks."""
    return str(uuid.uuid4())


def next_request_id(request_id: str, ended: str) -> str:
    """The id to ask under when the lease that the first one stands for has ended before anybody could use it."""
    return str(uuid.uuid5(uuid.UUID(request_id), ended))


def live_of_key(key: str) -> str:
    """The filter that lists the live leases of a key."""
    quoted = key.replace("\\", "\\\\").replace('"', '\\"')
    return f'key="{quoted}" AND live=true'


def complete_ask(
    ask: Mapping[str, Any],
    who: TaskIdentity,
    *,
    options: Options,
    request_id: str,
    sharing: str | None = None,
    retry_window: float = 0.0,
) -> dict[str, Any]:
    """``ask`` as this try of this task sends it: with its key and labels (the user's own win), and with what becomes of an
    earlier lease of that key.

    A key of the user's own may have a lease of another run or of somebody else, which isn't touched: see
    ``after_conflict``. A lease to which a retry reattaches outlives a lost holder for ``retry_window`` seconds, what Airflow waits between two tries and more;
    0: there is no other try.
    """
    reattach = options.on_retry == "reattach"
    on_own = "REATTACH" if reattach else "REPLACE"
    found = {
        **ask,
        "key": options.lease_key or who.lease_key(),
        "labels": who.labels() | dict(ask.get("labels", {})),
        "on_existing": "FAIL" if options.lease_key else on_own,
        "request_id": request_id,
    }
    if options.lease_key:
        found["on_own"] = on_own
    if sharing is not None:
        found["sharing"] = sharing
    if reattach and retry_window:
        found["unattended_ttl"] = max(float(ask.get("unattended_ttl", 0.0)), retry_window)
        found["keep_when_holder_lost"] = True
    return found


def after_conflict(ask: Mapping[str, Any], existing: Mapping[str, str]) -> dict[str, Any] | None:
    """What to ask instead when the key has a live lease that ``ask`` doesn't allow for; None if that one is another's.

    ``existing`` are that lease's labels. One of this task instance is replaced, or reattached to; if it is of another spec
    than this try's it is replaced.
    """
    own = {key: value for key, value in ask["labels"].items() if key.startswith(_OWN_LABELS)}
    if ask["on_existing"] == "REATTACH":
        on_existing = "REPLACE"
    elif "on_own" in ask and own.items() <= existing.items():
        on_existing = ask["on_own"]
    else:
        return None
    return {**ask, "on_existing": on_existing, "request_id": next_request_id(ask["request_id"], on_existing)}


def longest_retry_delay(*, delay: float, retries: int, exponential: bool | float, most: float | None) -> float:
    """The longest that Airflow may wait between two tries, in seconds, as far as it can be known before."""
    if not exponential:
        return delay
    factor = 2.0 if exponential is True else float(exponential)
    longest = delay * factor ** min(max(retries, 0), 64)
    return min(longest, most) if most is not None else min(longest, 24 * 3600.0)


def _printable(text: str) -> str:
    return "".join(character if character.isprintable() else "?" for character in text)
