"""The answers that request ids had, in memory: hundreds of thousands of them, some 250 bytes each (promise 8).

They are bounded by principal. Nothing that was promised is forgotten for another's sake, or for a newer one's: see
``app.access.Answers``, which refuses instead.
"""

from collections.abc import Iterator
from hashlib import blake2b
from typing import Final, Literal

import msgspec

from sparkbroker.broker.app.records import RequestResult
from sparkbroker.broker.domain.units import Generation, LeaseId, Principal, ServingTime, WallTime

MAX_FINGERPRINT: Final = 64


class _Packed(msgspec.Struct, frozen=True, array_like=True, gc=False):
    kind: Literal["acquire", "attach"]
    fingerprint: str
    lease_id: LeaseId
    generation: Generation
    created: WallTime
    existing: bool
    served: ServingTime


_encode: Final = msgspec.msgpack.Encoder().encode
_decode: Final = msgspec.msgpack.Decoder(_Packed).decode


def fingerprint(asked: str) -> str:
    """What was asked, in few characters: a lease key may have many."""
    return asked if len(asked) <= MAX_FINGERPRINT else blake2b(asked.encode(), digest_size=16).hexdigest()


class Answered:
    """``<Answered [1200 requests of 3 principals]>``. Each principal's are in the order in which they were put."""

    def __init__(self) -> None:
        self._of: dict[Principal, dict[bytes, bytes]] = {}
        self._count = 0

    def __repr__(self) -> str:
        return f"<Answered [{self._count} requests of {len(self._of)} principals]>"

    def __len__(self) -> int:
        return self._count

    def count(self, principal: Principal) -> int:
        """How many of this principal's are remembered."""
        return len(self._of.get(principal, ()))

    def most(self) -> int:
        """How many are remembered of the principal that has most."""
        return max(map(len, self._of.values()), default=0)

    def find(self, principal: Principal, request_id: str) -> RequestResult | None:
        """The answer of a UUID."""
        packed = self._of.get(principal, {}).get(_key(request_id))
        return None if packed is None else _unpacked(packed)

    def put(self, principal: Principal, request_id: str, result: RequestResult, served: ServingTime) -> None:
        """``served``: when, for a result of an earlier version, which doesn't say."""
        own = self._of.setdefault(principal, {})
        before = len(own)
        own[_key(request_id)] = _encode(
            _Packed(
                kind=result.kind,
                fingerprint=fingerprint(result.fingerprint),
                lease_id=result.lease_id,
                generation=result.generation,
                created=result.created,
                existing=result.existing,
                served=served if result.served is None else result.served,
            )
        )
        self._count += len(own) - before

    def oldest(self, principal: Principal) -> ServingTime | None:
        """When this principal's oldest answer was given."""
        for packed in self._of.get(principal, {}).values():
            return _decode(packed).served
        return None

    def due(self, before: ServingTime, at_once: int) -> Iterator[tuple[Principal, str, WallTime]]:
        """Take out what was answered before a time: whose, which, and when by the wall clock."""
        for principal, own in list(self._of.items()):
            due: list[bytes] = []
            for key, packed in own.items():
                if len(due) >= at_once or _decode(packed).served > before:
                    break
                due.append(key)
            at_once -= len(due)
            for key in due:
                self._count -= 1
                yield principal, _text(key), _decode(own.pop(key)).created
            if not own:
                del self._of[principal]


def _key(request_id: str) -> bytes:
    """Of a well-formed UUID: three times as fast as ``uuid.UUID``, on the path of every request."""
    return bytes.fromhex(request_id.replace("-", ""))


def _text(key: bytes) -> str:
    digits = key.hex()
    return f"{digits[:8]}-{digits[8:12]}-{digits[12:16]}-{digits[16:20]}-{digits[20:]}"


def _unpacked(packed: bytes) -> RequestResult:
    value = _decode(packed)
    return RequestResult(
        kind=value.kind,
        fingerprint=value.fingerprint,
        lease_id=value.lease_id,
        generation=value.generation,
        created=value.created,
        existing=value.existing,
        served=value.served,
    )
