"""Any signature keeps its arguments, whatever place ``spark`` and ``lease`` have in it."""

import functools
import inspect
from inspect import Parameter
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sparkbroker.airflow_provider import injection

SPARK, LEASE = object(), object()
VALUES = {"spark": SPARK, "lease": LEASE}


class Case:
    """A function that returns what it was given by name, and a call of what remains of its signature."""

    def __init__(self, source, args, kwargs, expected):
        self.source, self.args, self.kwargs, self.expected = source, args, kwargs, expected
        space: dict[str, Any] = {}
        exec(source, space)
        self.function = space["f"]

    def __repr__(self):
        return f"{self.source!r} called with *{self.args} **{self.kwargs}"


@st.composite
def cases(draw):
    names = ["a", "b", "c", "d"][: draw(st.integers(0, 4))]
    injected = draw(st.sampled_from([["spark"], ["lease"], ["spark", "lease"]]))
    order = draw(st.permutations(names + injected))
    kinds = sorted(draw(st.integers(0, 2)) for _ in order)  # 0: positional-only, 1: either, 2: keyword-only
    rest, extra = draw(st.booleans()), draw(st.booleans())
    has_default = _defaults(draw, kinds)
    parts: list[str] = []
    expected: dict[str, Any] = {}
    given_by_place: list[int] = []
    given_by_name: dict[str, Any] = {}
    place_open = True
    for index, (name, kind, default) in enumerate(zip(order, kinds, has_default, strict=True)):
        if index and kind != 0 and kinds[index - 1] == 0:
            parts.append("/")
        if kind == 2 and (not index or kinds[index - 1] != 2):
            parts.append("*rest" if rest else "*")
        parts.append(f"{name}={index + 100}" if default else name)
        if name in VALUES:
            expected[name] = VALUES[name]
        elif default and draw(st.booleans()):
            expected[name] = index + 100
            place_open = place_open and kind == 2
        elif kind != 2 and place_open and (kind == 0 or draw(st.booleans())):
            expected[name] = index
            given_by_place.append(index)
        elif kind == 0:
            expected[name] = index + 100  # It can't be given any more: one before it was left out.
        else:
            expected[name] = index
            given_by_name[name] = index
            place_open = place_open and kind == 2
    if kinds[-1] == 0:
        parts.append("/")
    if rest and kinds[-1] != 2:
        parts.append("*rest")
    if rest:
        every_place_taken = all(
            name in VALUES or (name not in given_by_name and (kind == 2 or expected[name] == index))
            for index, (name, kind) in enumerate(zip(order, kinds, strict=True))
        )
        more = draw(st.lists(st.integers(900, 999), max_size=2)) if every_place_taken else []
        given_by_place += more
        expected["rest"] = tuple(more)
    if extra:
        parts.append("**extra")
        expected["extra"] = draw(st.dictionaries(st.sampled_from(["x", "y"]), st.integers(), max_size=2))
        given_by_name |= expected["extra"]
    return Case(f"def f({', '.join(parts)}): return locals()", given_by_place, given_by_name, expected)


def _defaults(draw, kinds):
    """From one on all places have defaults, as Python wants it; keyword-only ones are free."""
    since = draw(st.integers(0, len(kinds)))
    return [draw(st.booleans()) if kind == 2 else index >= since for index, kind in enumerate(kinds)]


@given(cases())
def test_each_argument_arrives_where_it_was_declared(case):
    assert injection.call(case.function, case.args, case.kwargs, spark=SPARK, lease=LEASE) == case.expected


@given(cases())
def test_the_wrapper_shows_the_rest_of_the_signature_and_takes_it(case):
    before = inspect.signature(case.function), dict(vars(case.function))
    wrapper = injection.without_injected(case.function)
    shown = inspect.signature(wrapper)
    shown.bind(*case.args, **case.kwargs)
    assert list(shown.parameters.values()) == [p for n, p in before[0].parameters.items() if n not in VALUES]
    assert injection.call(wrapper, case.args, case.kwargs, spark=SPARK, lease=LEASE) == case.expected
    assert (inspect.signature(case.function), dict(vars(case.function))) == before


def test_only_what_is_declared_is_injected():
    def with_lease(lease, x):
        return lease, x

    assert injection.call(with_lease, [1], {}, spark=SPARK, lease=LEASE) == (LEASE, 1)
    assert injection.wanted(with_lease) == {"lease"}


def test_called_directly_the_wrapper_is_the_function():
    def load(spark, path="p"):
        return spark, path

    wrapper = injection.without_injected(load)
    assert wrapper(SPARK, "q") == (SPARK, "q")
    assert inspect.unwrap(wrapper) is load
    assert injection.without_injected(wrapper) is wrapper
    assert (wrapper.__name__, wrapper.__module__, wrapper.__qualname__) == (
        load.__name__,
        load.__module__,
        load.__qualname__,
    )


def test_a_decorated_function_and_a_partial_and_an_object_work():
    def base(a, spark, b=2):
        return a, spark, b

    @functools.wraps(base)
    def logged(*args, **kwargs):
        return base(*args, **kwargs)

    class Job:
        def __call__(self, x, *, spark):
            return x, spark

    assert injection.call(logged, [1], {}, spark=SPARK) == (1, SPARK, 2)
    assert injection.call(functools.partial(base, b=3), [1], {}, spark=SPARK) == (1, SPARK, 3)
    assert injection.call(functools.partial(base, 7), [], {"b": 4}, spark=SPARK) == (7, SPARK, 4)
    assert injection.call(Job(), [5], {}, spark=SPARK) == (5, SPARK)
    assert injection.without_injected(functools.partial(base, 7)).__name__ == "base"


def nothing(x):
    return x


def swallows(**spark):
    return spark


async def late(spark):
    return spark


def pieces(spark):
    yield spark


class Late:
    async def __call__(self, spark):
        return spark


@pytest.mark.parametrize(
    ("function", "message"),
    [
        (nothing, r"nothing: the function has no argument `spark`.* declare it .*def nothing\(spark, …\)"),
        (swallows, r"swallows: the function has no argument `spark`"),
        (late, "late: is async; .*plain function"),
        (Late(), "Late: is async"),
        (pieces, "pieces: is a generator.*return a list"),
        (print, "print: the function has no argument `spark`"),
        (type, "type: its signature can't be read"),
    ],
)
def test_a_function_that_can_not_be_run_is_refused_with_the_remedy(function, message):
    with pytest.raises(injection.InvalidFunction, match=message):
        injection.without_injected(function)


def test_arguments_that_are_injected_or_do_not_fit_are_refused():
    def load(spark, path, **more):
        return path

    with pytest.raises(injection.InvalidFunction, match="load: the argument `spark` is given by the task itself"):
        injection.call(load, ["p"], {"spark": 1}, spark=SPARK)
    with pytest.raises(injection.InvalidFunction, match=r"load\(path, \*\*more\): missing a required argument: 'path'"):
        injection.call(load, [], {}, spark=SPARK)


def test_an_error_of_the_function_itself_passes_through():
    def fails(spark):
        raise TypeError("missing a required argument: mine")

    with pytest.raises(TypeError, match="mine") as caught:
        injection.call(fails, [], {}, spark=SPARK)
    assert not isinstance(caught.value, injection.InvalidFunction)


def test_the_return_type_is_read_where_the_function_is():
    space: dict[str, Any] = {"Counts": dict[str, int]}
    exec("def count(spark: 'SparkSession') -> 'Counts': ...\ndef show(spark) -> 'DataFrame': ...", space)
    count, show = injection.without_injected(space["count"]), injection.without_injected(space["show"])
    assert count.__annotations__ == {"return": dict[str, int]}
    assert str(show.__annotations__["return"]) == "typing.Any"
    assert space["count"].__annotations__ == {"spark": "SparkSession", "return": "Counts"}
    assert inspect.signature(count).parameters == {}
    assert all(p.kind is not Parameter.VAR_KEYWORD for p in inspect.signature(show).parameters.values())
