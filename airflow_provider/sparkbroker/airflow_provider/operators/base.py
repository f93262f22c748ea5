"""What every task with a lease does: ask, wait, attach, compute, give back."""

import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING, Any, ClassVar, Final

from sparkbroker.airflow_provider import (
    artifacts,
    client_mode,
    driver_log,
    failures,
    identity,
    injection,
    openlineage,
    own_code,
    request,
)
from sparkbroker.airflow_provider._compat import (
    KILL_BY_RAISING,
    START_FROM_TRIGGER,
    AirflowException,
    AirflowNotFoundException,
    AirflowSkipException,
    AirflowTaskTimeout,
)
from sparkbroker.airflow_provider.failures import TaskKilled
from sparkbroker.airflow_provider.hooks.broker import SparkBrokerHook
from sparkbroker.airflow_provider.hooks.connection import Settings
from sparkbroker.airflow_provider.links import LeaseLink, SparkUiLink, lease_url, spark_ui_url
from sparkbroker.airflow_provider.operators.asking import AskingOperator
from sparkbroker.airflow_provider.operators.finding import (
    LeaseSpent,
    acquire,
    is_here,
    lease_name,
    mode_of,
    open_shared,
    unspent,
)
from sparkbroker.airflow_provider.progress import Teller
from sparkbroker.airflow_provider.triggers.lease import LeaseTrigger
from sparkbroker.client import Broker, SparkbrokerError

if TYPE_CHECKING:
    from sparkbroker.client import Lease

INTERRUPT_TIMEOUT: Final = 2.0
"""Seconds for the cancelling of jobs when the task is killed: Airflow kills harder after five."""
_LAST_LINES: Final = 1.0
"""Seconds for what the driver's live log has still to tell when the task is done."""


class SparkLeaseOperator(AskingOperator):
    """The base of operators that compute on a lease; a subclass says what it computes, in ``run_with_lease``.

    Arguments: ``request.LeaseArguments``; ``conn_id``; ``lease``, the name of an acquired shared lease to attach to
    instead of acquiring one; ``deferrable`` (None: Airflow's ``default_deferrable``): wait in the triggerer, from the very
    start where Airflow can; ``api``, for LOCAL leases: ``classic`` (with ``sparkContext``) or ``connect``.

    In mode CLIENT the worker's own pod is the driver. Such a task waits in its worker; its ``executor_config`` is given a
    ``pod_override`` of the driver's size, in which what the DAG itself says there wins.

    The lease is given back however ``run_with_lease`` ends. An error of the broker's is raised as ``LeaseFailed``, or as
    ``LeaseRefused`` (no retry) if another try would meet it too; the task's own errors are left as they are.
    """

    operator_extra_links = (LeaseLink(), SparkUiLink())
    ui_color = "#fdebd8"
    runs_python: ClassVar[bool] = True
    """Whether the task's own Python functions run in the driver, which then needs the same Python."""

    pushed_links: dict[str, str] | None = None
    _settings: Settings | None = None
    _killable: bool = False
    _spark: Any = None

    def run_with_lease(self, context: Any, lease: "Lease") -> Any:
        """Compute, blocking; the lease is READY and attached. The result is the task's."""
        raise NotImplementedError(f"{type(self).__name__} has no run_with_lease")

    # The task.

    def execute(self, context: Any) -> Any:
        """Acquire (deferred, or blocking) or attach; then compute."""
        try:
            self.check_rendered(context)
        except (request.InvalidArgument, injection.InvalidFunction) as error:
            raise failures.as_airflow(error, self.conn_id) from error
        if self.lease_given:
            self._warn_of_idle_arguments()
            return self._hold_named(context, self.lease)
        try:
            self.check_files(artifacts.dag_folder(context.get("dag")))
            ask = self.lease_ask(context)
        except request.InvalidArgument as error:
            raise failures.as_airflow(error, self.conn_id) from error
        if client_mode.is_client(self.mode):
            self.log.info("Mode CLIENT: the pod of this worker is to be the driver, so that the task waits here")
        elif self.deferrable:
            self.defer(trigger=LeaseTrigger(conn_id=self.conn_id, ask=ask), method_name="execute_with_lease")
        return self._hold(context, lambda broker: acquire(broker, ask))

    def execute_with_lease(self, context: Any, event: dict[str, Any]) -> Any:
        """Compute on the lease that the trigger has waited for."""
        if "error" in event:
            raise failures.from_payload(event)
        try:
            return self._hold(context, lambda broker: unspent(broker, event["lease"]))
        except LeaseSpent as spent:
            self.log.info("%s; a new one is asked for", spent)
        return self.execute(context)

    def _hold_named(self, context: Any, lease: Any) -> Any:
        try:
            name = lease_name(lease)
        except request.InvalidArgument as error:
            raise failures.as_airflow(error, self.conn_id) from error
        return self._hold(context, lambda broker: open_shared(broker, name))

    def _hold(self, context: Any, get: "Callable[[Broker], Lease]") -> Any:
        """Attach to the lease that ``get`` finds, compute, and give it back."""
        self._killable = True
        try:
            self._settings = settings = SparkBrokerHook(self.conn_id).settings()
            with (
                Broker(settings.address, patience=settings.patience) as broker,
                ExitStack() as afterwards,
                get(broker) as lease,
            ):
                afterwards.callback(self._tell_of_release, lease)
                return self._use(context, lease)
        except (
            AirflowNotFoundException,
            SparkbrokerError,
            request.InvalidArgument,
            injection.InvalidFunction,
        ) as error:
            # A refusal is said in its one sentence: where in the client it came from helps nobody.
            raise failures.as_airflow(error, self.conn_id) from (None if failures.is_permanent(error) else error)
        finally:
            self._killable = False
            self._spark = None

    def _use(self, context: Any, lease: "Lease") -> Any:
        try:
            if lease.state != "READY":
                lease.wait_ready(Teller(self.log).tell)
            lease.attach(identity.TaskIdentity.of(context["ti"]).holder())
            self.log.info("Attached to %s as generation %d", lease.name, lease.generation)
            self._push_lease_link(context, lease)
            with self._live_log(lease):
                return self.run_with_lease(context, lease)
        except AirflowSkipException:
            raise
        except (Exception, AirflowTaskTimeout) as error:
            # 2.11 raises an Exception after on_kill: then somebody wants this to end, soon and without another try.
            if self._killable:
                self._killable = False  # a signal from here on finds us giving back
                self._after_failure(context, lease, error)
            raise
        finally:
            self._killable = False

    def _tell_of_release(self, lease: "Lease") -> None:
        if lease.state in ("RELEASING", "RELEASED"):
            self.log.info("%s is given back", lease.name)

    def _after_failure(self, context: Any, lease: "Lease", error: BaseException) -> None:
        if not is_here(lease):
            driver_log.show_tail(self.log, lease.name, lambda: lease.logs(tail_lines=driver_log.TAIL_LINES))
        ti = context["ti"]
        tries_left = bool(self.retries) and ti.try_number <= ti.max_tries
        if not tries_left or failures.is_permanent(error) or not isinstance(error, Exception):
            return
        if not self.lease_given and lease.attached and self.lease_options().on_retry == "reattach":
            self.log.info("%s is kept for the next try", lease.name)
            lease.detach()

    def _warn_of_idle_arguments(self) -> None:
        idle = [name for name in self.lease_arguments() if name in request.BROKER_ARGUMENTS or name == "lease_key"]
        if idle:
            self.log.warning("Without effect, as the lease is there already (`lease`): %s", ", ".join(idle))

    # The session.

    @contextmanager
    def session(self, context: Any, lease: "Lease") -> Iterator[Any]:
        """A Spark session on the lease, for the body, with the task's files, its DAG's own modules, and OpenLineage's parent."""
        options = self.lease_options()
        brought = artifacts.find(options, artifacts.dag_folder(context.get("dag")))
        name = options.app_name or identity.TaskIdentity.of(context["ti"]).lease_key()
        connection = None if mode_of(lease) == "LOCAL" else lease.connection()
        if connection is not None and self.runs_python:
            of = "executors run" if is_here(lease) else "driver runs"
            artifacts.check_python(connection.python_version, artifacts.version_of(sys.version_info), of)
        with lease.session(api=self.api, app_name=name) as spark:
            self._spark = spark
            try:
                artifacts.add(spark, brought)
                for key, value in openlineage.parent_conf(context).items():
                    spark.conf.set(key, value)
                self._push_ui_link(context, lease, artifacts.ui_of(spark, None if is_here(lease) else connection))
                dag = context.get("dag") if self.runs_python else None
                with own_code.brought(spark, dag, context["ti"]):
                    yield spark
            finally:
                self._spark = None

    @contextmanager
    def _live_log(self, lease: "Lease") -> Iterator[None]:
        level = self.lease_options().driver_log_level
        if not level or is_here(lease):
            yield
            return
        # Of a shared lease others have had their part of the log.
        tail = 1 if self.lease_given else 0
        live = driver_log.LiveLog(lambda: lease.logs(follow=True, tail_lines=tail), level, self.log)
        try:
            yield
        finally:
            live.wait(_LAST_LINES)

    # The links.

    def _push_link(self, context: Any, link: Any, url: str) -> None:
        """Show ``url`` on the task from now on."""
        if not url or (self.pushed_links or {}).get(link.xcom_key) == url:
            return
        self.pushed_links = {**(self.pushed_links or {}), link.xcom_key: url}
        context["ti"].xcom_push(key=link.xcom_key, value=url)

    def _push_lease_link(self, context: Any, lease: "Lease") -> None:
        template = self._settings.lease_url if self._settings else ""
        self._push_link(context, LeaseLink(), lease_url(template, lease.name))

    def _push_ui_link(self, context: Any, lease: "Lease", ui: str) -> None:
        template = self._settings.spark_ui_url if self._settings else ""
        self._push_link(context, SparkUiLink(), spark_ui_url(template, lease.name, ui))

    # The ends.

    def on_kill(self) -> None:
        """Airflow ends the task: cancel its jobs, and unwind its code, so that the lease is given back.

        After an ``execution_timeout`` the code is unwound already, and nothing is left to do.
        """
        if not self._killable:
            return
        self._killable = False
        self.log.warning("The task is being ended: its Spark jobs are cancelled")
        cancel = threading.Thread(target=self._cancel_jobs, name="sparkbroker-cancel", daemon=True)
        cancel.start()
        cancel.join(INTERRUPT_TIMEOUT)
        if KILL_BY_RAISING:
            raise TaskKilled("the task was ended from outside")

    def _cancel_jobs(self) -> None:
        spark = self._spark
        if spark is None:
            return
        try:
            artifacts.cancel(spark)
        except Exception as error:  # noqa: BLE001  the lease is given back next, and that ends them too
            self.log.warning("The Spark jobs could not be cancelled: %s", error)

    def resume_execution(self, next_method: str, next_kwargs: dict[str, Any] | None, context: Any) -> Any:
        """See BaseOperator. A trigger that was ended by a timeout or failed leaves its lease: it is given back here."""
        if next_method == "__fail__" and not self.lease_given:
            self._give_back_waiting(context)
        return super().resume_execution(next_method, next_kwargs, context)

    def render_template_fields(self, context: Any, jinja_env: Any = None) -> None:
        """See BaseOperator. A task that began in the triggerer has its lease already when a template turns out broken, or a
        template's file isn't on this worker."""
        try:
            super().render_template_fields(context, jinja_env)
        except Exception:
            if START_FROM_TRIGGER and self.deferrable and not self.lease_given:
                self._give_back_waiting(context)
            raise

    def _give_back_waiting(self, context: Any) -> None:
        """The lease that this task instance waited for, and no other of the same key."""
        who = identity.TaskIdentity.of(context["ti"])
        key = self.lease_key or who.lease_key()
        try:
            with SparkBrokerHook(self.conn_id).client() as broker:
                for lease in broker.list(identity.live_of_key(key)):
                    if dict(lease.spec.labels).items() >= who.labels().items():
                        broker.release(lease.name, "its task has stopped waiting")
                        self.log.info("%s is released: nobody waits for it any more", lease.name)
        except (SparkbrokerError, AirflowException) as error:
            self.log.warning("The lease may wait on, until its wait_ttl: %s", error)
