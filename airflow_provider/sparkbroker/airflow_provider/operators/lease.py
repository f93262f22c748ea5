"""One lease for several tasks: acquired by a setup task, released by a teardown task."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, ClassVar, Unpack

from sparkbroker.airflow_provider import checks, failures, request
from sparkbroker.airflow_provider._compat import AirflowNotFoundException, XComArg
from sparkbroker.airflow_provider.hooks.broker import DEFAULT_CONN_ID, SparkBrokerHook
from sparkbroker.airflow_provider.operators.base import SparkLeaseOperator
from sparkbroker.airflow_provider.operators.finding import lease_name, named_lease
from sparkbroker.airflow_provider.operators.rendering import TemplatedOperator
from sparkbroker.airflow_provider.progress import Teller
from sparkbroker.airflow_provider.request import LeaseArguments
from sparkbroker.client import LeaseEnded, LeaseNotFound, SparkbrokerError

if TYPE_CHECKING:
    from sparkbroker.client import Lease


class AcquireLeaseOperator(SparkLeaseOperator):
    """Acquires a lease that other tasks attach to, each with a Spark session of its own; its XCom is the lease's name.

    The lease isn't given back when the task ends: ReleaseLeaseOperator does that, as its teardown. Until the first task
    attaches, and between tasks, it is kept for ``unattended_ttl``. Arguments: SparkLeaseOperator's, without ``lease``.
    """

    sharing = "SHARED"
    no_client = "other tasks are to share this lease, from pods of their own"

    def __init__(self, **kwargs: Any) -> None:
        if "lease" in kwargs:
            problem = "this task acquires a lease; it can't attach to one"
            raise request.InvalidArgument("lease", problem, "leave it out, or use another operator")
        super().__init__(**kwargs)

    def _use(self, context: Any, lease: "Lease") -> str:
        try:
            lease.wait_ready(Teller(self.log).tell)
            self._push_lease_link(context, lease)
        except BaseException:
            lease.release("the task that acquired it has failed", everyone=True)
            raise
        self._killable = False
        self.log.info("%s is READY for the tasks that share it", lease.name)
        lease.detach()
        return lease.name


class ReleaseLeaseOperator(TemplatedOperator):
    """Gives a shared lease back, whoever is still attached to it. One that has ended already is no error.

    ``lease`` is its name: the XCom of an AcquireLeaseOperator.
    """

    template_fields: Sequence[str] = ("conn_id", "lease")
    ui_color = SparkLeaseOperator.ui_color
    argument_readers: ClassVar[checks.Readers] = {"conn_id": checks.text, "lease": named_lease}

    def __init__(self, *, lease: str, conn_id: str = DEFAULT_CONN_ID, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.conn_id = conn_id
        self.lease: str | None = lease  # an XCom of a task that was skipped or has failed is None
        checks.check_known(self.argument_readers, {"conn_id": conn_id, "lease": lease})

    def execute(self, context: Any) -> None:
        """Release it."""
        if self.lease is None:
            self.log.info("No lease was acquired: there is nothing to give back")
            return
        try:
            name = lease_name(self.lease)
            with SparkBrokerHook(self.conn_id).client() as broker:
                broker.release(name, "its tasks are done")
        except (LeaseEnded, LeaseNotFound) as error:
            self.log.info("%s has ended already: %s", name, error)
        except (AirflowNotFoundException, SparkbrokerError, request.InvalidArgument) as error:
            raise failures.as_airflow(error, self.conn_id) from error
        else:
            self.log.info("%s is given back", name)


@contextmanager
def spark_lease(
    name: str = "spark_lease",
    *,
    conn_id: str | None = None,
    deferrable: bool | None = None,
    **arguments: Unpack[LeaseArguments],
) -> Iterator[XComArg]:
    """A lease for the tasks of the body, as ``lease=lease``: each has a Spark session of its own on it.

    with spark_lease(cores=2, memory="2g") as lease:
        load(…) >> SparkSqlOperator(task_id="report", sql="report.sql", lease=lease)

    Adds the tasks ``acquire_<name>`` (a setup) and ``release_<name>`` (its teardown, which runs however they end). What is
    None is as ``default_args`` say.
    """
    connection: dict[str, Any] = {} if conn_id is None else {"conn_id": conn_id}
    waiting: dict[str, Any] = {} if deferrable is None else {"deferrable": deferrable}
    acquire = AcquireLeaseOperator(task_id=f"acquire_{name}", **connection, **waiting, **arguments)
    release = ReleaseLeaseOperator(task_id=f"release_{name}", lease=acquire.output, **connection)
    dag = acquire.get_dag()
    before = set(dag.task_dict) if dag else set()
    with release.as_teardown(setups=acquire):
        yield acquire.output
    if dag:
        _take_in([task for task in dag.tasks if task.task_id not in before], acquire, release)


def _take_in(body: Sequence[Any], acquire: Any, release: Any) -> None:
    """Let all tasks of the body come between setup and teardown: Airflow leaves mapped ones out, and would give the
    lease back while they use it."""
    ids = {task.task_id for task in body}
    for task in body:
        if task.is_setup or task.is_teardown:
            continue
        if not task.downstream_task_ids & {*ids, release.task_id}:
            task.set_downstream(release)
        if not task.upstream_task_ids & {*ids, acquire.task_id}:
            task.set_upstream(acquire)
