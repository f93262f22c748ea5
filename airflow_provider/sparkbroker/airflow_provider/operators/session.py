"""A Python function with a Spark session."""

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar, Final

from sparkbroker.airflow_provider import checks, injection
from sparkbroker.airflow_provider._compat import context_merge, determine_kwargs
from sparkbroker.airflow_provider.operators.base import SparkLeaseOperator

if TYPE_CHECKING:
    from sparkbroker.client import Lease

_IN_EVERY_CONTEXT: Final = frozenset({
    "conn", "dag", "dag_run", "inlet_events", "inlets", "macros", "outlet_events", "outlets", "params", "run_id", "task",
    "task_instance", "task_instance_key_str", "templates_dict", "ti", "triggering_asset_events", "var",
})  # fmt: skip
"""What a function may ask of a task's context in every run; a run without a logical date has no ``ds``."""


class SparkSessionOperator(SparkLeaseOperator):
    """Calls ``python_callable`` with ``spark``, a session on the task's lease, and with ``lease`` if it asks for it by name.

    Both are given where the function declares them. Beside ``op_args`` and ``op_kwargs`` it gets of the task's context what
    it names, as with PythonOperator, and ``templates_dict`` rendered. What it returns is the task's XCom. Other arguments:
    SparkLeaseOperator.
    """

    file_fields = ("templates_dict", "op_args", "op_kwargs")
    template_fields: Sequence[str] = (*file_fields, *SparkLeaseOperator.template_fields)
    template_fields_renderers = {
        **SparkLeaseOperator.template_fields_renderers,
        "templates_dict": "json",
        "op_args": "py",
        "op_kwargs": "py",
    }
    shallow_copy_attrs: Sequence[str] = ("python_callable", "op_kwargs")
    argument_readers: ClassVar[checks.Readers] = {
        **SparkLeaseOperator.argument_readers,
        "op_args": checks.items,
        "op_kwargs": checks.names,
        "templates_dict": checks.names,
        "templates_exts": checks.texts,
    }

    def __init__(
        self,
        *,
        python_callable: Callable[..., Any],
        op_args: Sequence[Any] | None = None,
        op_kwargs: Mapping[str, Any] | None = None,
        templates_dict: dict[str, Any] | None = None,
        templates_exts: list[str] | None = None,
        **kwargs: Any,
    ) -> None:
        _check_call(python_callable, op_args, op_kwargs)
        self.python_callable = python_callable
        self.op_args: Sequence[Any] = () if op_args is None else op_args
        self.op_kwargs = {} if op_kwargs is None else op_kwargs
        self.templates_dict = templates_dict
        self.templates_exts = templates_exts
        super().__init__(**kwargs)  # last: it checks them
        if templates_exts:
            self.template_ext = templates_exts

    @classmethod
    def partial(cls, **kwargs: Any) -> Any:
        """See BaseOperator. What is mapped isn't constructed at parse: the function is looked at here."""
        function = kwargs.get("python_callable")
        if callable(function):
            _check_call(function, kwargs.get("op_args"), kwargs.get("op_kwargs"))
        return super().partial(**kwargs)

    def run_with_lease(self, context: Any, lease: "Lease") -> Any:
        """Call the function, with a session if it wants one."""
        arguments = self._arguments(context)
        if "spark" not in injection.wanted(self.python_callable):
            return injection.call(self.python_callable, self.op_args, arguments, lease=lease)
        with self.session(context, lease) as spark:
            return injection.call(self.python_callable, self.op_args, arguments, spark=spark, lease=lease)

    def check_rendered(self, context: Any) -> None:
        """See AskingOperator; also that the function takes the arguments that it will be given."""
        super().check_rendered(context)
        injection.check_names(self.python_callable, self.op_kwargs)
        injection.place(self.python_callable, self.op_args, self._arguments(context), dict.fromkeys(injection.INJECTED))

    def _begins_in_a_worker(self) -> bool:
        return super()._begins_in_a_worker() or not self._may_be_called()

    def _may_be_called(self) -> bool:
        """Whether the function has all its arguments, whatever the run is."""
        args, given = self.op_args, self.op_kwargs
        if not isinstance(args, list | tuple) or not isinstance(given, Mapping):
            return False
        return injection.left_open(self.python_callable, args, given) <= _IN_EVERY_CONTEXT

    def _arguments(self, context: Any) -> Mapping[str, Any]:
        """Those by name: the task's own, and what the function names of the context."""
        function = injection.without_injected(self.python_callable)
        context_merge(context, self.op_kwargs, templates_dict=self.templates_dict)
        found: Mapping[str, Any] = determine_kwargs(function, self.op_args, context)
        return found


def _check_call(function: Callable[..., Any], args: Any, given: Any) -> None:
    """Raise InvalidFunction for arguments that the function can't be given, as far as they are known."""
    names = given if isinstance(given, Mapping) else {}
    injection.check_names(function, names)
    if isinstance(args, list | tuple):
        injection.left_open(function, args, names)
