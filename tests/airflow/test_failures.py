"""The broker's errors in the words of a task: which argument or connection, what was wrong, and whether to try again."""

import pytest
from airflow.exceptions import AirflowException

from sparkbroker.airflow_provider import failures
from sparkbroker.airflow_provider._compat import AirflowFailException
from sparkbroker.airflow_provider.request import InvalidArgument
from sparkbroker.client import (
    AcquireFailed,
    BadAddress,
    BrokerFault,
    BrokerUnreachable,
    InvalidRequest,
    LeaseLost,
    NotAllowed,
    NotAuthenticated,
    QueueNotFound,
    SparkMissing,
)


@pytest.mark.parametrize(
    ("said", "expected"),
    [
        ("spec.queue: there is none", "lease_queue: there is none"),
        ("spec.driver.cores: 99 is too many", "cores: 99 is too many"),
        ("spec.driver.memory_overhead: x", "memory_overhead: x"),
        ("spec.executors.size.memory: x", "executor_memory: x"),
        ("spec.executors.max_count: 0 is less: why", "executors: 0 is less: why"),
        ("spec.executors: x", "executors: x"),
        ("spec.conf['spark.master']: can't be set", "conf['spark.master']: can't be set"),
        ("spec.unset_conf['spark.a']: x", "conf['spark.a']: x"),
        ("spec.pod['image']: is not allowed", "pod['image']: is not allowed"),
        ("spec.pod.namespace: x", "pod.namespace: x"),
        ("lease_key: is in use", "lease_key: is in use"),
        ("no field at all", "no field at all"),
        (
            "asks 9 cores and 2 GiB: ask for less (driver.cores, driver.memory, executors.size.cores, executors.max_count)",
            "asks 9 cores and 2 GiB: ask for less (cores, memory, executor_cores, executors)",
        ),
        ("spec.conf['spark.driver.memory']: use driver.memory", "conf['spark.driver.memory']: use memory"),
    ],
)
def test_a_field_of_the_brokers_is_told_as_the_argument(said, expected):
    assert failures.diagnosis(InvalidRequest(said)) == expected


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (BadAddress("connection 'c': x"), "Wrong settings: connection 'c': x"),
        (BrokerUnreachable("no answer"), "connection 'c': Unreachable: no answer. Check host, port, TLS, and that"),
        (NotAuthenticated("who?"), "connection 'c': Unauthenticated: who?. Check the token"),
        (
            BrokerFault("failed in X (UNIMPLEMENTED: y)"),
            "connection 'c': Version: this is no broker, or one of another",
        ),
        (BrokerFault("failed in X (INTERNAL: y)"), "connection 'c': failed in X (INTERNAL: y)"),
        (NotAllowed("not yours"), "Not allowed: not yours"),
        (InvalidArgument("cores", "is 0", "give 1"), "cores: is 0; give 1"),
        (QueueNotFound("spec.queue: x"), "lease_queue: x"),
        (SparkMissing(""), "SparkMissing"),
    ],
)
def test_what_is_wrong_and_with_which_connection(error, said):
    assert failures.payload(error, conn_id="c")["error"].startswith(said)


def test_what_no_retry_mends_is_refused_and_the_rest_has_failed():
    refused = failures.as_airflow(InvalidRequest("x", reason="INVALID_FIELD"), "c")
    failed = failures.as_airflow(LeaseLost("x", reason="DRIVER_LOST"), "c")
    assert isinstance(refused, failures.LeaseRefused | AirflowFailException)
    assert (type(failed), failed.reason) == (failures.LeaseFailed, "DRIVER_LOST")
    assert not isinstance(failed, AirflowFailException)
    assert isinstance(failed, AirflowException)
    assert failures.is_permanent(refused)
    assert not failures.is_permanent(failed)
    assert not failures.is_permanent(BrokerUnreachable("x"))
    assert failures.is_permanent(AcquireFailed("jars: there is no file", reason="MISCONFIGURED"))
    assert not failures.is_permanent(AcquireFailed("x", reason="START_FAILED"))


def test_an_event_survives_its_journey():
    event = failures.payload(LeaseLost("gone", reason="EXPIRED"), conn_id="c", lease="leases/a")
    assert event == {"error": "gone", "reason": "EXPIRED", "permanent": False, "lease": "leases/a"}
    assert str(failures.from_payload(event)) == "gone"


def test_no_code_of_a_task_catches_its_kill():
    assert not issubclass(failures.TaskKilled, Exception)
