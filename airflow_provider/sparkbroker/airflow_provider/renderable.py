"""Which templates the triggerer can render. Pure.

It has the run, the task and its params, and can ask Airflow for little else: a template that pulls an XCom there waits for an
answer that never comes. Variables and connections may come from a worker's own environment. And what it renders has to be the
same after it was restarted, since the broker is asked under the same request id. So this is a list of what is allowed. A task
with any other template begins in a worker.
"""

from collections.abc import Iterator, Mapping
from typing import Any, Final

PLAIN: Final = frozenset({
    "data_interval_end", "data_interval_start", "ds", "ds_nodash", "logical_date", "params", "partition_key", "run_id",
    "task_instance_key_str", "ts", "ts_nodash", "ts_nodash_with_tz",
})  # fmt: skip
"""Names of a task's context that are values, with all that is in them."""

_INSTANCE: Final = frozenset({"dag_id", "map_index", "run_id", "task_id", "try_number"})
PARTS: Final[Mapping[str, frozenset[str]]] = {
    "dag": frozenset({"dag_id"}),
    "dag_run": frozenset({"conf", "dag_id", "run_id"}),
    "macros": frozenset({"dateutil", "ds_add", "ds_format", "ds_format_locale", "json", "timedelta"}),
    "task": frozenset({"task_id"}),
    "task_instance": _INSTANCE,
    "ti": _INSTANCE,
}  # fmt: skip
"""Names that are more than values, with those of their attributes that are values or plain functions."""
_RANDOM: Final = frozenset({"lipsum", "random"})
"""Of Jinja's own functions and filters, those that give something else each time."""
_OF_THE_CLOCK: Final = frozenset({
    "age", "diff", "diff_for_humans", "is_anniversary", "is_birthday", "is_future", "is_past", "now", "today", "utcnow",
})  # fmt: skip
"""Likewise of a date's attributes."""


def is_renderable(value: object, environment: Any) -> bool:
    """Whether the triggerer can render every template in ``value``, at any depth; ``environment`` is Jinja's, as it has it.

    Text that isn't a template at all is renderable. Text that Jinja can't read isn't: the worker says what is wrong with it.
    """
    from jinja2 import TemplateSyntaxError  # noqa: PLC0415  only where there are templates

    try:
        return all(_is_known(text, environment) for text in _texts(value))
    except TemplateSyntaxError:
        return False


def _texts(value: object) -> Iterator[str]:
    match value:
        case str():
            yield value
        case Mapping():
            for item in value.values():
                yield from _texts(item)
        case list() | tuple():
            for item in value:
                yield from _texts(item)


def _is_known(text: str, environment: Any) -> bool:
    from jinja2 import meta, nodes  # noqa: PLC0415  as above

    tree = environment.parse(text)
    if next(tree.find_all((nodes.Include, nodes.Import, nodes.FromImport, nodes.Extends)), None) is not None:
        return False  # files, which are beside the DAG
    own = {node.name for node in tree.find_all((nodes.Filter, nodes.Name))}
    if own & _RANDOM:
        return False
    attributes = list(tree.find_all((nodes.Getattr, nodes.Getitem)))
    parts = {id(node.node): _part(node) for node in attributes}
    if not _OF_THE_CLOCK.isdisjoint(_part(node) for node in attributes):
        return False
    asked = meta.find_undeclared_variables(tree)
    if asked <= PLAIN:
        return True
    return all(
        name.name in PLAIN or parts.get(id(name)) in PARTS.get(name.name, ())
        for name in tree.find_all(nodes.Name)
        if name.name in asked
    )


def _part(node: Any) -> object:
    """The attribute that is read, if the template names it."""
    from jinja2 import nodes  # noqa: PLC0415  as above

    if isinstance(node, nodes.Getattr):
        return node.attr
    return node.arg.value if isinstance(node.arg, nodes.Const) else None
