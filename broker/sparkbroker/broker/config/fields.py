"""How values are written in the file, and what is said when they are written wrongly.

Every parser raises ``PydanticCustomError`` with a sentence "what was wrong; what would be right", without the field's
name: ``load`` puts the TOML path before it.
"""

import ipaddress
import math
import re
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Final

from pydantic import AfterValidator, BeforeValidator
from pydantic_core import PydanticCustomError

from sparkbroker.broker.domain.capacity.resources import check_cores, parse_cpu, parse_memory
from sparkbroker.broker.domain.errors import InvalidField
from sparkbroker.broker.domain.text import shown_value

MAX_DURATION: Final = 10 * 366 * 86400.0
MAX_SOCKET_PATH: Final = 107
"""Bytes; ``sun_path`` of Linux, less its NUL."""

_UNITS: Final = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}
_DURATION: Final = re.compile(r"(?:[0-9]{1,12}(?:\.[0-9]{1,6})?(?:ms|s|m|h|d))+")
_DURATION_PART: Final = re.compile(r"([0-9.]+)(ms|s|m|h|d)")
_NUMBER: Final = re.compile(r"[0-9]{1,12}(?:\.[0-9]{1,6})?")
_DURATION_EXPECTED: Final = 'write it as "30s", "5m", "2h", "7d", or a number of seconds'
_NAME: Final = re.compile(r"[a-z0-9](?:[a-z0-9._-]{0,61}[a-z0-9])?")
_LABEL: Final = re.compile(r"(?:[A-Za-z0-9](?:[A-Za-z0-9._-]{0,61}[A-Za-z0-9])?)?")
_CONF_KEY: Final = re.compile(r"spark\.[A-Za-z0-9._-]{1,200}")
_HOST_PORT: Final = re.compile(r"(?P<host>\[[0-9a-fA-F:.%a-z]+\]|[^:/\[\]\s]+):(?P<port>[0-9]{1,5})")


def wrong(problem: str, expected: str, *, within: str = "") -> PydanticCustomError:
    """The error of a value: what was wrong, and what would be right. ``within``: the rest of its path, ``.a[0]``."""
    context = {"problem": problem, "expected": expected, "within": within}
    return PydanticCustomError("wrong", "{problem}; {expected}", context)


def parse_duration(value: object) -> float:
    """Seconds, more than 0 and at most ten years, from ``"1h30m"``, ``"250ms"``, ``"30"`` or a number."""
    seconds = _seconds(value)
    if seconds is None:
        raise wrong(f"{shown_value(value)} is not a duration", _DURATION_EXPECTED)
    if not 0 < seconds <= MAX_DURATION:
        raise wrong(f"{shown_value(value)} is out of range", "it must be more than 0 and at most ten years")
    return seconds


def _seconds(value: object) -> float | None:
    if isinstance(value, bool):
        return None
    if isinstance(value, int | float):
        return float(value) if math.isfinite(value) else None
    if not isinstance(value, str):
        return None
    text = value.strip()
    if _NUMBER.fullmatch(text):
        return float(text)
    if not _DURATION.fullmatch(text):
        return None
    return sum(float(number) * _UNITS[unit] for number, unit in _DURATION_PART.findall(text))


def write_duration(seconds: float) -> str:
    """As it is written in the file, in the largest unit of which it is a whole number."""
    unit = next((unit for unit in ("d", "h", "m") if seconds % _UNITS[unit] == 0), "s")
    return f"{seconds / _UNITS[unit]:g}{unit}"


def _by_domain(value: object, parse: Callable[[str, str], int]) -> int:
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        raise wrong(f"{shown_value(value)} is not a quantity", 'write a number, or text such as "2g" or "500m"')
    try:
        return parse(str(value), "")
    except InvalidField as error:
        raise wrong(error.problem, error.expected) from error


def _memory(value: object) -> int:
    return _by_domain(value, parse_memory)


def _cpu(value: object) -> int:
    if isinstance(value, float) and math.isfinite(value):
        value = f"{value:.3f}".rstrip("0").rstrip(".") if round(value, 3) == value else value
    return _by_domain(value, parse_cpu)


def _cores(value: object) -> int:
    text = value.strip() if isinstance(value, str) else value
    number = int(text) if isinstance(text, str) and re.fullmatch(r"[0-9]{1,9}", text) else text
    if isinstance(number, bool) or not isinstance(number, int):
        raise wrong(f"{shown_value(value)} is not a number of cores", "it must be a whole number")
    try:
        return check_cores(number, "")
    except InvalidField as error:
        raise wrong(error.problem, error.expected) from error


def check_name(value: str) -> str:
    """The name of a queue, profile or pool."""
    if not _NAME.fullmatch(value):
        raise wrong(
            f"{shown_value(value)} is not a name",
            "use 1 to 63 of a-z, 0-9, '-', '_' and '.', beginning and ending with a letter or digit",
        )
    return value


def check_label(value: str) -> str:
    """A label's value in Kubernetes, or empty."""
    if not _LABEL.fullmatch(value):
        raise wrong(
            f"{shown_value(value)} is not a label's value",
            "use at most 63 letters, digits, '-', '_' and '.', beginning and ending with a letter or digit",
        )
    return value


def check_conf_key(value: str) -> str:
    """A key of Spark's configuration."""
    if not _CONF_KEY.fullmatch(value):
        raise wrong(f"{shown_value(value)} is not a key of Spark's configuration", 'keys begin with "spark."')
    return value


def flatten_conf(value: object) -> object:
    """Spark's configuration as text: ``spark.sql.ansi.enabled = true`` without quotes is nested tables in TOML."""
    if not isinstance(value, dict):
        return value
    flat: dict[str, object] = {}
    for key, item in value.items():
        inner = flatten_conf(item)
        if isinstance(inner, dict):
            flat |= {f"{key}.{name}": text for name, text in inner.items()}
        elif isinstance(inner, bool):
            flat[key] = str(inner).lower()
        else:
            flat[key] = str(inner) if isinstance(inner, int | float) else inner
    return flat


def split_host_port(value: str) -> tuple[str, int]:
    """``127.0.0.1:7077`` or ``[::1]:7077``; port 0 lets the system choose."""
    match = _HOST_PORT.fullmatch(value)
    if match is None or int(match["port"]) > 65535:
        raise wrong(f"{shown_value(value)} is not host:port", 'write it as "127.0.0.1:7077"')
    return match["host"].strip("[]"), int(match["port"])


def is_loopback(host: str) -> bool:
    """Whether only this machine can reach it. A name other than ``localhost`` is not known to be."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def check_listen(value: str) -> str:
    """``unix:PATH`` or ``tcp://HOST:PORT``."""
    if value.startswith("unix:"):
        path = value.removeprefix("unix:").removeprefix("//")
        if not path.startswith(("/", "~")):
            raise wrong(f"{shown_value(value)} has no absolute path", 'write it as "unix:/run/sparkbroker/broker.sock"')
        path = str(_expanded(Path(path)))
        if len(path.encode()) > MAX_SOCKET_PATH:
            raise wrong(
                f"{shown_value(value)} is longer than the {MAX_SOCKET_PATH} bytes of a unix socket's path",
                "choose a shorter path",
            )
        return f"unix:{path}"
    if value.startswith("tcp://"):
        split_host_port(value.removeprefix("tcp://"))
        return value
    raise wrong(f"{shown_value(value)} is not an address", 'write "unix:/path/broker.sock" or "tcp://127.0.0.1:7077"')


def check_address(value: str) -> str:
    """host:port, or empty."""
    if value:
        split_host_port(value)
    return value


def _expanded(path: Path) -> Path:
    try:
        return path.expanduser()
    except RuntimeError as error:
        raise wrong(f"{shown_value(str(path))} is in the home of a user that has no home", "begin it with /") from error


def _absolute(value: Path) -> Path:
    path = _expanded(value)
    if not path.is_absolute():
        raise wrong(f"{shown_value(str(value))} is not an absolute path", "begin it with / or ~")
    return path


Duration = Annotated[float, BeforeValidator(parse_duration)]
"""Seconds."""
Memory = Annotated[int, BeforeValidator(_memory)]
"""Bytes."""
Cpu = Annotated[int, BeforeValidator(_cpu)]
"""Thousandths of a core."""
Cores = Annotated[int, BeforeValidator(_cores)]
"""Whole cores."""
Name = Annotated[str, AfterValidator(check_name)]
Label = Annotated[str, AfterValidator(check_label)]
ConfKey = Annotated[str, AfterValidator(check_conf_key)]
Listen = Annotated[str, AfterValidator(check_listen)]
Address = Annotated[str, AfterValidator(check_address)]
AbsolutePath = Annotated[Path, AfterValidator(_absolute)]
