"""What the errors of a JVM say, kept for longer than the JVM.

The text of py4j's errors, and of pyspark's that are made of them, is the JVM's, and is asked for when it is shown. A session in
this process ends its JVM before anybody shows the error that has ended the session: it would be said to have no text.
"""

import functools
import logging
from collections.abc import Iterator
from typing import Any, Final

from sparkbroker.client._blocking import start_thread

_log = logging.getLogger("sparkbroker.client")
_OF_A_JVM: Final = frozenset({
    ("py4j.protocol", "Py4JJavaError"),
    ("pyspark.errors.exceptions.captured", "CapturedException"),
})  # fmt: skip
_MOST: Final = 20
"""Errors of one chain."""
TEXT_TIMEOUT: Final = 5.0


def keep_texts(error: BaseException) -> None:
    """Ask for the text of this error, and of those that it came of, while their JVM lives. Blocks for seconds at most.

    They stay instances of their classes. One whose text can't be had is left as it is.
    """
    texts = {id(each): each for each in _chain(error) if _is_of_a_jvm(type(each))}
    if not texts:
        return
    try:
        found = start_thread(lambda: [(each, str(each)) for each in texts.values()], "error-text").result(TEXT_TIMEOUT)
    except Exception as reason:  # noqa: BLE001  the JVM has ended, or doesn't answer
        _log.info("sparkbroker: an error's text could not be asked for: %s", type(reason).__name__)
        return
    for each, text in found:
        each.__dict__["_sparkbroker_text"] = text
        kind: Any = type(each)  # mypy takes no class for hashable
        each.__class__ = _kept(kind)


def _chain(error: BaseException) -> Iterator[BaseException]:
    waiting: list[BaseException | None] = [error]
    seen: set[int] = set()
    while waiting and len(seen) < _MOST:
        each = waiting.pop(0)
        if each is None or id(each) in seen:
            continue
        seen.add(id(each))
        yield each
        waiting += [each.__cause__, each.__context__]


def _is_of_a_jvm(kind: type) -> bool:
    named = {(base.__module__, base.__name__) for base in kind.__mro__}
    return bool(named & _OF_A_JVM) and not hasattr(kind, "_sparkbroker_kept")


@functools.cache
def _kept(kind: type[Any]) -> type[Any]:
    return type(
        kind.__name__,
        (kind,),
        {
            "__module__": kind.__module__,
            "__qualname__": kind.__qualname__,
            "__doc__": kind.__doc__,
            "__str__": lambda self: self.__dict__["_sparkbroker_text"],
            "_sparkbroker_kept": True,
        },
    )
