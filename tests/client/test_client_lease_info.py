"""What is told of a lease, as values: the classes have the protocol's fields, and their words no prefix."""

import dataclasses
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta

import pytest
from google.protobuf.message import Message

from sparkbroker.client import _lease_info as values
from sparkbroker.v1 import broker_pb2 as pb

MESSAGES: Mapping[type, type[Message]] = {
    values.LeaseInfo: pb.Lease,
    values.LeaseSpec: pb.LeaseSpec,
    values.ContainerSize: pb.ContainerSize,
    values.ExecutorSpec: pb.ExecutorSpec,
    values.HolderPod: pb.HolderPod,
    values.Attachment: pb.Attachment,
    values.Timings: pb.Timings,
    values.Waiting: pb.Progress,
    values.Executors: pb.Executors,
    values.DriverExit: pb.DriverExit,
}


@pytest.mark.parametrize("kind", MESSAGES, ids=lambda kind: kind.__name__)
def test_a_value_has_the_fields_of_its_message(kind):
    assert {field.name for field in dataclasses.fields(kind)} == set(MESSAGES[kind].DESCRIPTOR.fields_by_name)


def test_a_lease_is_told_in_words_and_times():
    lease = pb.Lease(
        name="leases/1",
        state=pb.LEASE_STATE_RELEASING,
        reason=pb.LEASE_REASON_DRIVER_LOST,
        outcome=pb.LEASE_STATE_FAILED,
        charge={"cpu": 1000},
        attachments=[pb.Attachment(id="a", generation=2)],
        exit=pb.DriverExit(exit_code=0, log_tail=["the end"]),
        spec=pb.LeaseSpec(mode=pb.LEASE_MODE_LOCAL, sharing=pb.LEASE_SHARING_SHARED, priority=0, packages=["a:b:1"]),
    )
    lease.timings.queued_time.FromSeconds(60)
    lease.spec.ttl.FromSeconds(30)
    lease.spec.pod.update({"tolerations": [{"key": "x"}]})
    info = values.LeaseInfo.of(lease)
    assert (info.state, info.reason, info.outcome) == ("RELEASING", "DRIVER_LOST", "FAILED")
    assert (info.spec.mode, info.spec.sharing, info.spec.priority) == ("LOCAL", "SHARED", 0)
    assert info.timings == values.Timings(queued_time=datetime(1970, 1, 1, 0, 1, tzinfo=UTC))
    assert info.spec.ttl == timedelta(seconds=30)
    assert info.spec.pod == {"tolerations": [{"key": "x"}]}
    assert info.attachments == (values.Attachment(id="a", generation=2),)
    assert info.exit == values.DriverExit(exit_code=0, log_tail=("the end",))
    assert dict(info.charge) == {"cpu": 1000}


def test_what_is_unset_is_none_where_that_means_something_and_else_empty():
    info = values.LeaseInfo.of(pb.Lease(name="leases/1"))
    assert info == values.LeaseInfo(name="leases/1")
    assert info.progress is None
    assert info.exit is None
    assert info.spec.priority is None
    assert info.spec.executors.max_count == 0


def test_what_is_newer_than_the_client_is_its_number():
    lease = pb.Lease.FromString(bytes([5 << 3, 99]))  # state: 99
    assert values.LeaseInfo.of(lease).state == "99"
