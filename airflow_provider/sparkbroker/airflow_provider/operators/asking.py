"""The arguments of a task with a lease, and what they ask the broker for."""

import functools
from collections import ChainMap
from collections.abc import Callable, Mapping, Sequence
from datetime import timedelta
from typing import Any, ClassVar, Final, Literal

from jinja2 import StrictUndefined

from sparkbroker.airflow_provider import (
    artifacts,
    checks,
    client_mode,
    identity,
    late,
    pod_override,
    renderable,
    request,
)
from sparkbroker.airflow_provider._compat import (
    START_FROM_TRIGGER,
    BaseOperator,
    StartTriggerArgs,
    default_deferrable,
)
from sparkbroker.airflow_provider.hooks.broker import DEFAULT_CONN_ID
from sparkbroker.airflow_provider.operators.finding import named_lease
from sparkbroker.airflow_provider.operators.rendering import TemplatedOperator
from sparkbroker.airflow_provider.triggers.lease import CLASSPATH

_RETRY_MARGIN: Final = 120.0
"""Seconds for which a lease is kept for the next try beyond Airflow's own delay: it has to be scheduled and started."""


class _Computed:
    """An attribute of a task that follows its others, which a policy or a DAG may set after the task was made.

    ``of_class`` is what the class itself says of it, and so a mapped task.
    """

    def __init__(self, compute: Callable[[Any], Any], of_class: Any) -> None:
        self._compute = compute
        self._of_class = of_class

    def __get__(self, task: Any, owner: type) -> Any:
        return self._of_class if task is None else self._compute(task)


class AskingOperator(TemplatedOperator):
    """What a task says of its lease. It holds none: that is SparkLeaseOperator, where the arguments are described."""

    template_fields: Sequence[str] = ("conn_id", "lease", *request.LEASE_ARGUMENTS)
    template_fields_renderers: ClassVar[dict[str, str]] = {"conf": "json", "labels": "json", "pod": "json"}
    sharing: ClassVar[str | None] = None
    """SHARED for a lease that several tasks are to attach to; None: the profile's."""
    start_trigger_args = _Computed(lambda task: task.trigger_args(), None)
    start_from_trigger = _Computed(lambda task: task.trigger_args() is not None, False)
    executor_config: Any
    _made: bool = False
    argument_readers: ClassVar[checks.Readers] = {
        "conn_id": checks.text,
        "lease": named_lease,
        "deferrable": checks.flag,
        "api": checks.api,
        **request.READERS,
    }
    """How each argument is checked. A subclass adds its own, and sets them before it calls ``super().__init__``."""
    late_arguments: ClassVar[Sequence[str]] = request.FILE_ARGUMENTS
    """Those that the triggerer can't check, so that a task that has a template in them, or an XCom, begins in a worker."""
    no_client: ClassVar[str] = ""
    """Why the worker's own pod can't be the driver (mode CLIENT); empty: it can."""

    def __init__(
        self,
        *,
        conn_id: str = DEFAULT_CONN_ID,
        lease: str | None = None,
        deferrable: bool | None = None,
        api: Literal["classic", "connect"] = "classic",
        profile: str | None = None,
        lease_queue: str | None = None,
        mode: str | None = None,
        cores: int | str | None = None,
        memory: str | None = None,
        memory_overhead: str | None = None,
        executors: int | str | Sequence[int] | None = None,
        executor_cores: int | str | None = None,
        executor_memory: str | None = None,
        executor_memory_overhead: str | None = None,
        conf: Mapping[str, Any] | str | None = None,
        packages: Sequence[str] | str | None = None,
        jars: Sequence[str] | str | None = None,
        py_files: Sequence[str] | str | None = None,
        files: Sequence[str] | str | None = None,
        archives: Sequence[str] | str | None = None,
        pod: Mapping[str, Any] | str | None = None,
        priority: int | str | None = None,
        labels: Mapping[str, Any] | str | None = None,
        lease_key: str | None = None,
        acquire_timeout: request.Seconds | None = None,
        max_duration: request.Seconds | None = None,
        unattended_ttl: request.Seconds | None = None,
        app_name: str | None = None,
        driver_log_level: str | None = None,
        on_retry: str = "replace",
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.conn_id = conn_id
        self.lease = lease
        self.lease_given = lease is not None  # rendered, it may be None, and that is no wish for a lease of its own
        self.deferrable = default_deferrable() if deferrable is None else deferrable
        self.api: Literal["classic", "connect"] = api
        self.profile = profile
        self.lease_queue = lease_queue
        self.mode = mode
        self.cores = cores
        self.memory = memory
        self.memory_overhead = memory_overhead
        self.executors = executors
        self.executor_cores = executor_cores
        self.executor_memory = executor_memory
        self.executor_memory_overhead = executor_memory_overhead
        self.conf = conf
        self.packages = packages
        self.jars = jars
        self.py_files = py_files
        self.files = files
        self.archives = archives
        self.pod = pod
        self.priority = priority
        self.labels = labels
        self.lease_key = lease_key
        self.acquire_timeout = acquire_timeout
        self.max_duration = max_duration
        self.unattended_ttl = unattended_ttl
        self.app_name = app_name
        self.driver_log_level = driver_log_level
        self.on_retry = on_retry
        checks.check_known(self.argument_readers, self.given_arguments())
        asked = {**self.lease_arguments(), "lease": lease}
        client_mode.check(asked, api=self.api, refusal=self.no_client)
        self.executor_config = _with_worker(asked, self.executor_config)
        self._made = True

    @classmethod
    def partial(cls, **kwargs: Any) -> Any:
        """See BaseOperator. What is mapped isn't constructed at parse: it is checked here, and its worker's pod is said."""
        checks.check_known(cls.argument_readers, kwargs)
        made = super().partial(**kwargs)
        cls.shape_worker(made.kwargs, made.kwargs.get("dag"), made.kwargs.get("task_group"))
        made.__class__ = _checking(type(made))  # type: ignore[arg-type]
        return made

    @classmethod
    def shape_worker(cls, arguments: dict[str, Any], dag: Any, group: Any) -> None:
        """Give the arguments of a task that isn't constructed yet the ``executor_config`` that it will have, also by the
        ``default_args`` of its DAG and its group."""
        by_default = [getattr(place, "default_args", None) or {} for place in (dag, group)]
        config = cls.worker_config(dict(ChainMap(arguments, *reversed(by_default))))
        if config:
            arguments["executor_config"] = config

    @classmethod
    def worker_config(cls, arguments: Mapping[str, Any]) -> Any:
        """The ``executor_config`` of a task with these arguments."""
        return _with_worker(arguments, arguments.get("executor_config"))

    def given_arguments(self) -> dict[str, Any]:
        """All that ``argument_readers`` checks, as far as it is set."""
        return {name: getattr(self, name) for name in self.argument_readers if hasattr(self, name)}

    def check_rendered(self, context: Any) -> None:
        """Raise InvalidArgument for an argument that can't be used, now that all are rendered."""
        checks.check_all(self.argument_readers, self.given_arguments())

    def lease_arguments(self) -> dict[str, Any]:
        """Those of ``request.LeaseArguments`` that are given."""
        given = {name: getattr(self, name) for name in request.LEASE_ARGUMENTS}
        return {name: value for name, value in given.items() if value is not None}

    def lease_options(self) -> request.Options:
        """What of them is the task's own affair. Raise InvalidArgument."""
        return request.options(self.lease_arguments())

    def lease_ask(self, context: Any) -> dict[str, Any]:
        """What the broker is asked for by this try, as ``LeaseTrigger`` takes it. Raise InvalidArgument."""
        arguments = self.lease_arguments()
        ask = request.ask(arguments)
        if client_mode.is_client(self.mode):
            client_mode.check(arguments, api=self.api, refusal=self.no_client)
            client_mode.check_worker()
            ask = client_mode.with_overhead(ask)
        return identity.complete_ask(
            ask,
            identity.TaskIdentity.of(context["ti"]),
            options=request.options(arguments),
            sharing=self.sharing,
            retry_window=self._retry_window(),
            request_id=identity.new_request_id(),
        )

    def _retry_window(self) -> float:
        if not self.retries:
            return 0.0
        most: timedelta | None = self.max_retry_delay
        return _RETRY_MARGIN + identity.longest_retry_delay(
            delay=self.retry_delay.total_seconds(),
            retries=self.retries,
            exponential=self.retry_exponential_backoff,
            most=None if most is None else most.total_seconds(),
        )

    def trigger_args(self) -> StartTriggerArgs | None:
        """What Airflow starts in the triggerer, for tasks that aren't mapped, outside of ``dag.test``; ``execute`` does it for
        the rest. None: the task starts in a worker."""
        if not self._made:
            return None  # asked by BaseOperator, whose part is made first
        arguments = self.lease_arguments()
        if not (START_FROM_TRIGGER and self.deferrable) or self.lease_given or self._begins_in_a_worker():
            return None
        if not (isinstance(self.conn_id, str) and late.is_plain(arguments)):
            return None  # an XCom's value is known in the worker only
        if client_mode.is_client(self.mode) or late.has_template(self.mode):
            return None  # the pod that asks is the driver
        if not self._renderable([self.conn_id, arguments]):
            return None
        kwargs: dict[str, Any] = {"conn_id": self.conn_id, **arguments}
        if self.sharing is not None:
            kwargs["sharing"] = self.sharing
        if self.on_retry != "replace":
            kwargs["retry_window"] = self._retry_window()
        return StartTriggerArgs(trigger_cls=CLASSPATH, trigger_kwargs=kwargs, next_method="execute_with_lease")

    def _begins_in_a_worker(self) -> bool:
        """Whether something of the task is to come before its wait that only a worker does."""
        if self.execution_timeout is not None:
            return True  # which for Airflow would include the time in the queue
        if self.inlets:
            return True  # Airflow looks up aliases of assets before the trigger is run, which the triggerer can't
        if not self._params_are_the_dags():
            return True
        if self._pre_execute_hook is not None or type(self).pre_execute is not BaseOperator.pre_execute:
            return True  # it may skip the task (``@task.skip_if``)
        late_ones = {name: value for name, value in self.given_arguments().items() if name in self.late_arguments}
        if checks.waits_for_worker(late_ones) or (self._is_native() and late.has_template(late_ones)):
            return True  # which tells what is wrong before a driver is started
        return not self.files_are_here()  # a worker may have them, or tells what is missing, as above

    def _is_native(self) -> bool:
        """Whether its templates become any value, and not text."""
        own = getattr(self, "render_template_as_native_obj", None)
        return bool(own if own is not None else getattr(self.get_dag(), "render_template_as_native_obj", False))

    def _params_are_the_dags(self) -> bool:
        """Whether the task adds no params of its own: an invalid one, which the start of a run doesn't check, would end the
        triggerer."""
        dag = self.get_dag()
        known = {} if dag is None else {name: (param.value, param.schema) for name, param in dag.params.items()}
        return all(known.get(name) == (param.value, param.schema) for name, param in self.params.items())

    def _renderable(self, templates: object) -> bool:
        """Whether the triggerer, which has no code and no files of DAGs, can render them as a worker would."""
        if not late.has_template(templates):
            return True
        dag = self.get_dag()
        of_dag = dag is not None and (
            dag.user_defined_macros
            or dag.user_defined_filters
            or dag.jinja_environment_kwargs
            or dag.template_undefined is not StrictUndefined
        )
        if of_dag or self._is_native():
            return False
        return renderable.is_renderable(templates, self.get_template_env())

    def files_are_here(self) -> bool:
        """Whether this machine, where the DAG is parsed, has the files that a worker will need, as far as they are known.

        Airflow asks as soon as this class is constructed: what a subclass looks at has to be there before.
        """
        try:
            self.check_files(artifacts.dag_folder(self.get_dag()))
        except request.InvalidArgument:
            return False
        return True

    def check_files(self, folder: str) -> None:
        """Raise InvalidArgument for what is missing on this machine. Relative names are looked for in ``folder`` first; of
        those that are templates or XComs still nothing is known."""
        given = self.lease_arguments()
        named: dict[str, Any] = {name: given[name] for name in request.FILE_ARGUMENTS if name in given}
        artifacts.find(request.options(named), folder)


@functools.cache
def _checking(kind: type[Any]) -> type[Any]:
    """Airflow's object between ``partial`` and ``expand``, which checks what is mapped over."""

    class Checking(kind):
        __slots__ = ()

        def _expand(self, expand_input: Any, *, strict: bool, **kwargs: Any) -> Any:
            checks.check_mapped(self.operator_class.argument_readers, expand_input.value)
            return super()._expand(expand_input, strict=strict, **kwargs)

    return Checking


def _with_worker(arguments: Mapping[str, Any], executor_config: Any) -> Any:
    """In mode CLIENT, with the worker's pod as the driver's."""
    if not client_mode.is_workers(arguments):
        return executor_config
    return pod_override.with_pod(executor_config, client_mode.worker_pod(arguments))
