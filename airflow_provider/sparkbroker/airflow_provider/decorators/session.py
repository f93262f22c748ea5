"""``@task.spark_session``: a function of a DAG with a Spark session."""

import functools
from collections.abc import Callable, Mapping, Sequence
from typing import Any, ClassVar

from sparkbroker.airflow_provider import injection
from sparkbroker.airflow_provider._compat import (
    BaseOperator,
    DecoratedOperator,
    TaskDecorator,
    note_assets,
    task_decorator_factory,
)
from sparkbroker.airflow_provider.operators.session import SparkSessionOperator


class SparkSessionDecoratedOperator(DecoratedOperator, SparkSessionOperator):
    """SparkSessionOperator for a decorated function: its call's arguments are the function's, ``spark`` left out."""

    custom_operator_name = "@task.spark_session"
    template_fields: Sequence[str] = tuple(
        dict.fromkeys((*DecoratedOperator.template_fields, *SparkSessionOperator.template_fields))
    )
    template_fields_renderers: ClassVar[dict[str, str]] = {
        **SparkSessionOperator.template_fields_renderers,
        **DecoratedOperator.template_fields_renderers,
    }
    shallow_copy_attrs: Sequence[str] = tuple(
        dict.fromkeys((*DecoratedOperator.shallow_copy_attrs, *SparkSessionOperator.shallow_copy_attrs))
    )

    def __init__(
        self,
        *,
        python_callable: Callable[..., Any],
        op_args: Sequence[Any] | None = None,
        op_kwargs: Mapping[str, Any] | None = None,
        **kwargs: Any,
    ) -> None:
        injection.check_given(python_callable, op_kwargs if isinstance(op_kwargs, Mapping) else ())
        super().__init__(
            python_callable=python_callable,
            op_args=op_args,
            op_kwargs=op_kwargs,
            kwargs_to_upstream={"python_callable": python_callable, "op_args": op_args, "op_kwargs": op_kwargs},
            **kwargs,
        )

    def execute_with_lease(self, context: Any, event: dict[str, Any]) -> Any:
        """What a task does that hasn't waited in the worker; Airflow's own part of it is in ``execute`` only."""
        return note_assets(self, super().execute_with_lease(context, event), context)


def spark_session_task(
    python_callable: Callable[..., Any] | None = None, multiple_outputs: bool | None = None, **kwargs: Any
) -> TaskDecorator:
    """The decorator: with or without arguments, which are SparkSessionOperator's.

    Raise ``injection.InvalidFunction`` for a function that doesn't declare ``spark``.
    """
    return decorator(SparkSessionDecoratedOperator, python_callable, multiple_outputs, **kwargs)


def decorator(
    operator: type[BaseOperator],
    python_callable: Callable[..., Any] | None,
    multiple_outputs: bool | None,
    **kwargs: Any,
) -> TaskDecorator:
    """A decorator that makes tasks of this operator, of functions whose signature is shown without ``spark``."""

    def decorate(function: Callable[..., Any]) -> Any:
        made = task_decorator_factory(
            python_callable=injection.without_injected(function),
            multiple_outputs=multiple_outputs,
            decorated_operator_class=operator,
            **kwargs,
        )
        made.__class__ = _explaining(type(made))  # type: ignore[arg-type]
        return made

    if python_callable is None:
        return decorate
    if not callable(python_callable):
        raise TypeError(f"{python_callable!r} is no function; give the decorator's arguments by name")
    return decorate(python_callable)


@functools.cache
def _explaining(kind: type[Any]) -> type[Any]:
    """Airflow's object behind a decorator, with an error for a mapped ``spark`` that says what to do instead, and with the
    worker's pod of mapped tasks."""

    class Explaining(kind):
        def _validate_arg_names(self, func: Any, kwargs: dict[str, Any]) -> None:
            injection.check_given(self.function, kwargs)
            super()._validate_arg_names(func, kwargs)

        def _expand(self, expand_input: Any, *, strict: bool) -> Any:
            made = super()._expand(expand_input, strict=strict)
            mapped = made.operator
            self.operator_class.shape_worker(mapped.partial_kwargs, mapped.dag, mapped.task_group)
            return made

    return Explaining
