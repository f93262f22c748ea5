"""What is in the store and can't be shown, and what could have got there."""

import sqlite3
from contextlib import closing

import grpc
import pytest

from sparkbroker.v1 import broker_pb2 as pb

pytestmark = pytest.mark.timeout(120)


def listed(broker):
    leases = broker.stub.ListLeases(pb.ListLeasesRequest(order_by="create_time"), timeout=10).leases
    return {lease.name: lease for lease in leases}


def test_what_can_not_be_shown_is_refused_and_a_row_that_can_not_be_costs_a_page_that_row_only(make_broker, tools):
    broker = make_broker(profile='allowed_pod = ["annotations"]').start()
    for value in (1e300, 2.0**63, [[{"x": -1e300}]]):
        spec = pb.LeaseSpec()
        spec.pod.update({"annotations": {"x": value}})
        refusal = tools.refused(lambda: broker.stub.AcquireLease(pb.AcquireLeaseRequest(spec=spec)))  # noqa: B023
        assert refusal.code is grpc.StatusCode.INVALID_ARGUMENT
        assert refusal.metadata["field"].startswith("spec.pod['annotations']['x']")
    assert not listed(broker)
    assert not broker.used()
    fine, poisoned = (broker.acquire(mode=pb.LEASE_MODE_LOCAL, labels={"n": n}).name for n in "01")
    assert broker.stop() == 0
    with closing(sqlite3.connect(broker.state / "broker.db")) as database, database:
        statement = "UPDATE rows SET body = json_set(body, '$.pod', json(?)) WHERE kind = 'spec' AND body LIKE ?"
        changed = database.execute(statement, ('{"annotations":{"x":1%s}}' % ("0" * 300), '%"n":"1"%'))
        assert changed.rowcount == 1
    broker.start()
    for _ in range(2):
        found = listed(broker)
        assert found[fine].message == broker.get(fine).message
        assert found[poisoned].state == pb.LEASE_STATE_READY
        assert "can't be shown whole" in found[poisoned].message
    watch = broker.stub.WatchLease(pb.WatchLeaseRequest(name=poisoned), timeout=30)
    assert next(watch).snapshot.name == poisoned
    everything = broker.stub.WatchLeases(pb.WatchLeasesRequest(), timeout=30)
    next(everything)
    for name in (poisoned, fine):
        assert broker.release(name).state == pb.LEASE_STATE_RELEASED
        assert next(everything).event.lease == name
    assert [update.event.state for update in watch] == [pb.LEASE_STATE_RELEASED]
    assert broker.said().count("rpc.unshowable") == 1
    assert not broker.used()
