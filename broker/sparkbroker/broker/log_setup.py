"""Logs are events with fields: ``log.info("lease.admitted", lease=name, queue=queue)``.

What an RPC is about (method, principal, lease, request id) is bound to everything that is logged during it; the fields
are made only when something is logged, because most calls log nothing.
"""

import io
import logging
import sys
from collections.abc import Callable, Mapping
from contextvars import ContextVar
from typing import Any, Final, Literal, TextIO

import structlog
from structlog.typing import EventDict, Processor, WrappedLogger

from sparkbroker.client.visible import plain, visible

_fields: ContextVar[Callable[[], Mapping[str, str]] | None] = ContextVar("sparkbroker_log_fields", default=None)

SECRET_FIELDS: Final = frozenset({"authorization", "headers", "token", "password", "secret", "key"})
HIDDEN: Final = "(hidden)"
# Without the frames' local variables, which hold requests and tokens (promise 11).
_TRACEBACKS: Final = structlog.processors.ExceptionRenderer(
    structlog.tracebacks.ExceptionDictTransformer(show_locals=False)
)


def bind_lazily(fields: Callable[[], Mapping[str, str]]) -> None:
    """From now on, in this task and those that it starts, logged events carry what ``fields()`` returns."""
    _fields.set(fields)


def set_up(*, form: Literal["console", "json"] = "console", level: str = "info", stream: TextIO | None = None) -> None:
    """Configure structlog and the standard library's logging (gRPC, Alembic, asyncio) alike, to ``stream`` or stderr.

    ``level`` is debug, info, warning or error. May be called again; the last call counts.
    """
    number = logging.getLevelNamesMapping()[level.upper()]
    shared: list[Processor] = [
        structlog.contextvars.merge_contextvars,
        _add_bound,
        structlog.stdlib.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        _hide_secrets,
    ]
    out = stream or plain(sys.stderr)
    renderers: list[Processor] = (
        [_TRACEBACKS, structlog.processors.JSONRenderer()]
        if form == "json"
        else [_make_visible, structlog.dev.ConsoleRenderer(colors=out.isatty(), exception_formatter=_traceback)]
    )
    structlog.configure(
        processors=[*shared, *renderers],
        wrapper_class=structlog.make_filtering_bound_logger(number),
        logger_factory=structlog.WriteLoggerFactory(file=out),
        cache_logger_on_first_use=False,
    )
    handler = logging.StreamHandler(out)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=[*shared, structlog.stdlib.add_logger_name],
            processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, *renderers],
        )
    )
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(max(number, logging.WARNING) if number > logging.DEBUG else number)


def _make_visible(_logger: WrappedLogger, _method: str, event: EventDict) -> EventDict:
    """Text of others, on a console; JSON has escapes of its own. What isn't text is shown by its ``repr``, which escapes."""
    return {
        visible(name, lines=False): visible(value, lines=False) if isinstance(value, str) else value
        for name, value in event.items()
    }


def _traceback(out: TextIO, error: structlog.typing.ExcInfo) -> None:
    text = io.StringIO()
    structlog.dev.plain_traceback(text, error)
    out.write(visible(text.getvalue()))


def _add_bound(_logger: WrappedLogger, _method: str, event: EventDict) -> EventDict:
    fields = _fields.get()
    if fields is not None:
        for name, value in fields().items():
            event.setdefault(name, value)
    return event


def _hide_secrets(_logger: WrappedLogger, _method: str, event: EventDict) -> EventDict:
    """The second line of defence (promise 11); the first is not to log them."""
    for name in event.keys() & SECRET_FIELDS:
        event[name] = HIDDEN
    for name, value in event.items():
        if isinstance(value, Mapping) and value.keys() & SECRET_FIELDS:
            event[name] = _without_secrets(value)
    return event


def _without_secrets(value: Mapping[str, Any]) -> dict[str, Any]:
    return {name: HIDDEN if name in SECRET_FIELDS else item for name, item in value.items()}
