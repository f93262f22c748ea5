"""The specs of leases: each is kept once, in memory and in the store, for as long as a lease has it.

Leases change often and their specs never; a spec can be a hundred times as large as the rest of its lease.
"""

import msgspec

from sparkbroker.broker.app import records
from sparkbroker.broker.app.commits import GroupCommit
from sparkbroker.broker.domain.lease.lease import Lease, LeaseSpec
from sparkbroker.broker.domain.units import Principal, Revision, SpecId
from sparkbroker.broker.ports.store import RowKind, StoredRow


class _Held(msgspec.Struct, gc=False):
    spec: LeaseSpec
    size: int
    revision: Revision
    leases: int = 0


class Specs:
    """``<Specs [12 of 2048 leases]>``."""

    def __init__(self, commits: GroupCommit) -> None:
        self._commits = commits
        self._unread: dict[SpecId, StoredRow] = {}
        self._held: dict[SpecId, _Held] = {}
        self._live: dict[Principal, dict[SpecId, int]] = {}
        self._live_bytes: dict[Principal, int] = {}

    def __repr__(self) -> str:
        leases = sum(held.leases for held in self._held.values())
        return f"<Specs [{len(self._held)} of {leases} leases]>"

    def __len__(self) -> int:
        return len(self._held)

    # -- recovery

    def load(self, rows: list[StoredRow]) -> None:
        """What is stored; it is read when a lease needs it."""
        self._unread = {SpecId(row.id): row for row in rows}

    def of(self, spec_id: SpecId) -> LeaseSpec | None:
        """A spec; None: there is none. Raise StoreUnusable."""
        held = self._held.get(spec_id)
        if held is None and (row := self._unread.pop(spec_id, None)) is not None:
            spec = records.decode_spec(row)
            held = self._held[spec_id] = _Held(spec, records.spec_size(spec, len(row.body)), row.revision)
        return None if held is None else held.spec

    def adopt(self, lease: Lease) -> Lease:
        """A lease of an earlier version, which holds its spec itself."""
        if lease.spec_id:
            return lease
        spec_id, size = records.prove_spec(lease.spec)
        spec = self.of(spec_id)
        if spec is None:
            self._put(spec_id, lease.spec, size)
        return msgspec.structs.replace(lease, spec=spec or lease.spec, spec_id=spec_id)

    def drop_unused(self) -> None:
        """All leases are known: forget what none has."""
        for spec_id, row in self._unread.items():
            self._commits.stage(RowKind.SPEC, spec_id, self._commits.next_revision(), row.revision, None)
        self._unread = {}

    # -- use

    def share(self, spec_id: SpecId, spec: LeaseSpec, size: int) -> LeaseSpec:
        """The spec to put into a lease: one that is held already, if one is equal."""
        held = self._held.get(spec_id) or self._put(spec_id, spec, size)
        return held.spec

    def _put(self, spec_id: SpecId, spec: LeaseSpec, size: int) -> _Held:
        revision = self._commits.next_revision()
        self._commits.stage(RowKind.SPEC, spec_id, revision, Revision(0), spec)
        held = self._held[spec_id] = _Held(spec, size, revision)
        return held

    def changed(self, before: Lease | None, after: Lease) -> None:
        """A lease is there, or has ended."""
        if before is None:
            self._held[after.spec_id].leases += 1
        was = before is not None and before.live
        if was != after.live:
            self._count_live(after, 1 if after.live else -1)

    def dropped(self, lease: Lease) -> None:
        """A lease is forgotten, and its spec with it if no other has it."""
        held = self._held[lease.spec_id]
        held.leases -= 1
        if not held.leases:
            del self._held[lease.spec_id]
            self._commits.stage(RowKind.SPEC, lease.spec_id, self._commits.next_revision(), held.revision, None)

    def _count_live(self, lease: Lease, change: int) -> None:
        own = self._live.setdefault(lease.principal, {})
        count = own.get(lease.spec_id, 0)
        size = self._held[lease.spec_id].size
        if not count:
            self._live_bytes[lease.principal] = self._live_bytes.get(lease.principal, 0) + size
        if count + change:
            own[lease.spec_id] = count + change
            return
        del own[lease.spec_id]
        self._live_bytes[lease.principal] -= size
        if not own:
            del self._live[lease.principal], self._live_bytes[lease.principal]

    def live_bytes(self, principal: Principal, spec_id: SpecId, size: int) -> int:
        """Of the specs of a principal's live leases, each counted once, and this one's."""
        known = spec_id in self._live.get(principal, ())
        return self._live_bytes.get(principal, 0) + (0 if known else size)

    def size(self, spec_id: SpecId) -> int:
        """See ``records.spec_size``."""
        return self._held[spec_id].size
