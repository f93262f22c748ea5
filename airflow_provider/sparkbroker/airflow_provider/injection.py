"""Hiding ``spark`` and ``lease`` from a function's signature, and putting them back where it declares them.

Pure. The user's own function is never changed: a wrapper shows Airflow the signature without them.
"""

import functools
import inspect
import typing
from collections.abc import Callable, Mapping, Sequence
from inspect import Parameter
from typing import Any, Final

INJECTED: Final = ("spark", "lease")
"""The arguments that a task is given, if it declares them by these names."""

_PLACES: Final = (Parameter.POSITIONAL_ONLY, Parameter.POSITIONAL_OR_KEYWORD)
_MARK: Final = "_sparkbroker_original"


class InvalidFunction(TypeError):
    """The function, or the arguments that the DAG gives to it, can't be used; says what would be right."""


def wanted(function: Callable[..., Any]) -> frozenset[str]:
    """Which of INJECTED the function declares. Raise InvalidFunction if it declares none, or can't be run on a lease."""
    original = original_of(function)
    name = _name(original)
    _check_kind(original, name)
    found = frozenset(
        parameter.name
        for parameter in _signature(original, name).parameters.values()
        if parameter.name in INJECTED and parameter.kind not in (Parameter.VAR_POSITIONAL, Parameter.VAR_KEYWORD)
    )
    if not found:
        raise InvalidFunction(
            f"{name}: the function has no argument `spark`, which is how it is given its Spark session; declare it "
            f"anywhere in the signature, such as `def {name}(spark, …)` (or `lease`, for the lease without a session)"
        )
    return found


def without_injected(function: Callable[..., Any]) -> Callable[..., Any]:
    """The function behind a signature without INJECTED; called directly, it is the function itself.

    Idempotent. Errors as of ``wanted``.
    """
    if hasattr(function, _MARK):
        return function
    hidden = wanted(function)
    signature = _signature(function, _name(function))

    @functools.wraps(function)
    def wrapper(*args: Any, **kwargs: Any) -> Any:
        return function(*args, **kwargs)

    shown: Any = wrapper
    shown.__name__ = _name(function)
    shown.__signature__ = signature.replace(
        parameters=[parameter for name, parameter in signature.parameters.items() if name not in hidden]
    )
    shown.__annotations__ = _annotations(function, hidden)
    setattr(shown, _MARK, function)
    return wrapper


def check_given(function: Callable[..., Any], names: typing.Iterable[str]) -> None:
    """Raise InvalidFunction if the DAG gives an argument by a name that is injected."""
    for name in sorted(wanted(function).intersection(names)):
        raise InvalidFunction(
            f"{_name(original_of(function))}: the argument `{name}` is given by the task itself and can't be passed or "
            "mapped; leave it out of the call (of expand, partial and op_kwargs), or give your own argument another name"
        )


def check_names(function: Callable[..., Any], names: typing.Iterable[str]) -> None:
    """Likewise as ``check_given``; also for one by a name that the function doesn't have, which Airflow would drop."""
    given = list(names)
    check_given(function, given)
    original = original_of(function)
    parameters = _signature(original, _name(original)).parameters.values()
    if any(parameter.kind is Parameter.VAR_KEYWORD for parameter in parameters):
        return
    known = [
        parameter.name for parameter in parameters if parameter.kind not in (*_PLACES[:1], Parameter.VAR_POSITIONAL)
    ]
    for name in given:
        if name not in known:
            raise InvalidFunction(
                f"op_kwargs: {_name(original)} has no argument `{name}`; it has {', '.join(sorted({*known} - {*INJECTED})) or 'none'}"
            )


def left_open(function: Callable[..., Any], args: Sequence[Any], names: typing.Iterable[str]) -> frozenset[str]:
    """The arguments without a default that neither ``args`` nor ``names`` are, so that they have to come from a task's context.

    Raise InvalidFunction if the function can't be given these.
    """
    reduced, name = _reduced(function)
    try:
        bound = reduced.bind_partial(*args, **dict.fromkeys(names))
    except TypeError as error:
        raise InvalidFunction(f"{name}{reduced}: {error}") from error
    return frozenset(
        parameter.name
        for parameter in reduced.parameters.values()
        if parameter.default is Parameter.empty
        and parameter.kind not in (Parameter.VAR_POSITIONAL, Parameter.VAR_KEYWORD)
        and parameter.name not in bound.arguments
    )


def call(
    function: Callable[..., Any],
    args: Sequence[Any],
    kwargs: Mapping[str, Any],
    *,
    spark: Any = None,
    lease: Any = None,
) -> Any:
    """Call the function (or the one behind the wrapper) with arguments for the signature that Airflow was shown.

    Raise InvalidFunction if they don't fit; what the function raises passes through.
    """
    original = original_of(function)
    positional, by_name = place(original, args, kwargs, {"spark": spark, "lease": lease})
    return original(*positional, **by_name)


def place(
    function: Callable[..., Any], args: Sequence[Any], kwargs: Mapping[str, Any], values: Mapping[str, Any]
) -> tuple[list[Any], dict[str, Any]]:
    """The arguments for the function's own signature: the given ones, bound to the reduced one, and the injected."""
    check_given(function, kwargs)
    hidden = wanted(function)
    reduced, name = _reduced(function)
    signature = _signature(original_of(function), name)
    try:
        bound = reduced.bind(*args, **kwargs)
    except TypeError as error:
        raise InvalidFunction(f"{name}{reduced}: {error}") from error
    bound.apply_defaults()
    given = {**bound.arguments, **{key: values[key] for key in hidden}}
    positional: list[Any] = []
    by_name: dict[str, Any] = {}
    for parameter in signature.parameters.values():
        value = given[parameter.name]
        if parameter.kind in _PLACES:
            positional.append(value)
        elif parameter.kind is Parameter.VAR_POSITIONAL:
            positional.extend(value)
        elif parameter.kind is Parameter.VAR_KEYWORD:
            by_name.update(value)
        else:
            by_name[parameter.name] = value
    return positional, by_name


def _reduced(function: Callable[..., Any]) -> tuple[inspect.Signature, str]:
    """The signature without INJECTED, and the function's name."""
    hidden = wanted(function)
    name = _name(original_of(function))
    signature = _signature(original_of(function), name)
    shown = [parameter for parameter in signature.parameters.values() if parameter.name not in hidden]
    return signature.replace(parameters=shown), name


def original_of(function: Callable[..., Any]) -> Callable[..., Any]:
    """The user's own function, of a wrapper or of itself."""
    original: Callable[..., Any] = getattr(function, _MARK, function)
    return original


def _name(function: Callable[..., Any]) -> str:
    inner = function
    while isinstance(inner, functools.partial):
        inner = inner.func
    return str(getattr(inner, "__name__", type(inner).__name__))


def _signature(function: Callable[..., Any], name: str) -> inspect.Signature:
    try:
        return inspect.signature(function)
    except (TypeError, ValueError) as error:
        raise InvalidFunction(f"{name}: its signature can't be read ({error}); give a function in Python") from error


def _check_kind(function: Callable[..., Any], name: str) -> None:
    inner = function
    while isinstance(inner, functools.partial):
        inner = inner.func
    for candidate in (inner, getattr(inner, "__call__", None)):  # noqa: B004  it is a method that is looked at
        if inspect.iscoroutinefunction(candidate) or inspect.isasyncgenfunction(candidate):
            raise InvalidFunction(f"{name}: is async; pyspark blocks, so give a plain function (`def` without `async`)")
        if inspect.isgeneratorfunction(candidate):
            raise InvalidFunction(
                f"{name}: is a generator, whose body would run when its session is closed; return a list instead"
            )


def _annotations(function: Callable[..., Any], hidden: frozenset[str]) -> dict[str, Any]:
    """Without the hidden arguments, and with the return type read where the function is: Airflow would look for its
    names in this module. One that can't be read there (imported for type checkers only) is Any."""
    annotations = {
        name: value for name, value in getattr(function, "__annotations__", {}).items() if name not in hidden
    }
    if isinstance(annotations.get("return"), str):
        holder = type("Holder", (), {"__annotations__": {"return": annotations["return"]}})
        try:
            annotations["return"] = typing.get_type_hints(holder, getattr(function, "__globals__", {}))["return"]
        except (NameError, TypeError, SyntaxError, AttributeError):
            annotations["return"] = Any
    return annotations
