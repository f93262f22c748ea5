"""A Python function with a Spark session."""

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from sparkbroker.airflow_provider import injection
from sparkbroker.airflow_provider._compat import context_merge, determine_kwargs
from sparkbroker.airflow_provider.operators.base import SparkLeaseOperator

if TYPE_CHECKING:
    from sparkbroker.client import Lease


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
        super().__init__(**kwargs)
        injection.check_given(python_callable, op_kwargs if isinstance(op_kwargs, Mapping) else ())
        self.python_callable = python_callable
        self.op_args: Sequence[Any] = op_args or ()
        self.op_kwargs = op_kwargs or {}
        self.templates_dict = templates_dict
        if templates_exts:
            self.template_ext = templates_exts

    @classmethod
    def partial(cls, **kwargs: Any) -> Any:
        """See BaseOperator. What is mapped isn't constructed at parse: the function is looked at here."""
        function, given = kwargs.get("python_callable"), kwargs.get("op_kwargs")
        if callable(function):
            injection.check_given(function, given if isinstance(given, Mapping) else ())
        return super().partial(**kwargs)

    def run_with_lease(self, context: Any, lease: "Lease") -> Any:
        """Call the function, with a session if it wants one."""
        function = injection.without_injected(self.python_callable)
        context_merge(context, self.op_kwargs, templates_dict=self.templates_dict)
        arguments = determine_kwargs(function, self.op_args, context)
        if "spark" not in injection.wanted(self.python_callable):
            return injection.call(self.python_callable, self.op_args, arguments, lease=lease)
        with self.session(context, lease) as spark:
            return injection.call(self.python_callable, self.op_args, arguments, spark=spark, lease=lease)
