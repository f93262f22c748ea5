"""Finds, reads and validates the configuration."""

import os
import re
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from pydantic import ValidationError

from sparkbroker.broker.config.check import cross_problems
from sparkbroker.broker.config.model import Config
from sparkbroker.broker.config.problems import ConfigError, Problem, explain
from sparkbroker.broker.config.problems import Path as TomlPath
from sparkbroker.client.file_text import NotText, decode

PREFIX: Final = "SPARKBROKER__"
DEFAULTS: Final = "built-in defaults"
SYSTEM_FILE: Final = Path("/etc/sparkbroker/broker.toml")
MAX_FILE: Final = 4 << 20
NO_HOME: Final = Problem(
    "store.state_folder",
    "its default is in the user's home, and this user has no home",
    "set it, or HOME, or XDG_STATE_HOME",
)
"""The only problem of a configuration that a broker with a state folder of its own, such as one that ``run`` starts, can use."""
_TOML_VALUE: Final = re.compile(r"\s*[\[{\"']")


def load_config(
    path: Path | None, env: Mapping[str, str], *, overrides: Mapping[tuple[str, str], object] | None = None
) -> Config:
    """The configuration from ``path``, else from where ``find_config`` finds one, else the built-in defaults.

    ``SPARKBROKER__SECTION__KEY`` in ``env`` overrides the file; a value that begins with ``[``, ``{`` or a quote is
    read as TOML. ``overrides``, by (section, key), win over both. Raise ConfigError with everything that is wrong.
    """
    file = path or find_config(env)
    source = str(file) if file else DEFAULTS
    raw = _read(file) if file else {}
    origins = _overlay(raw, env, source)
    for (section, key), value in {**(overrides or {})}.items():
        table = raw.setdefault(section, {})
        if isinstance(table, dict):
            table[key] = value
    store = raw.setdefault("store", {})
    if isinstance(store, dict) and "state_folder" not in store:
        folder = default_state_folder(env)
        if folder is None:
            raise ConfigError(source, [NO_HOME])
        store["state_folder"] = str(folder)
    try:
        config = Config.model_validate(raw)
    except ValidationError as error:
        problems = [explain(detail, Config, origins) for detail in error.errors(include_url=False)]
        raise ConfigError(source, problems) from error
    problems = cross_problems(config)
    if problems:
        raise ConfigError(source, problems)
    return config.from_source(source)


def find_config(env: Mapping[str, str]) -> Path | None:
    """``$SPARKBROKER_CONFIG`` (which must exist), ``$XDG_CONFIG_HOME/sparkbroker/broker.toml``, the system's, or none."""
    if named := env.get("SPARKBROKER_CONFIG"):
        return Path(named)
    own = _base(env, "XDG_CONFIG_HOME", ".config")
    for candidate in (own and own / "broker.toml", SYSTEM_FILE):
        if candidate and os.path.lexists(candidate):
            return candidate
    return None


def default_state_folder(env: Mapping[str, str]) -> Path | None:
    """``$XDG_STATE_HOME/sparkbroker``, else ``~/.local/state/sparkbroker``. None: this user has no home."""
    return _base(env, "XDG_STATE_HOME", ".local/state")


def default_cache_folder(env: Mapping[str, str]) -> Path | None:
    """``$XDG_CACHE_HOME/sparkbroker``, else ``~/.cache/sparkbroker``: what brokers without a lasting state share.
    None: this user has no home."""
    return _base(env, "XDG_CACHE_HOME", ".cache")


def _base(env: Mapping[str, str], variable: str, fallback: str) -> Path | None:
    for name, below in ((variable, ""), ("HOME", fallback)):
        path = Path(env.get(name, ""))
        # The XDG base directory specification: a relative path is invalid and is to be ignored.
        if path.is_absolute():
            return path / below / "sparkbroker"
    try:
        return Path.home() / fallback / "sparkbroker"
    except RuntimeError:  # a container's random user
        return None


def _read(path: Path) -> dict[str, Any]:
    source = str(path)
    try:
        with path.open("rb") as file:
            content = file.read(MAX_FILE + 1)
    except FileNotFoundError as error:
        raise _unreadable(source, "there is no such file", "create it, or name another with --config") from error
    except OSError as error:
        raise _unreadable(source, f"it can't be read: {error.strerror}", "make it readable for the broker") from error
    if len(content) > MAX_FILE:
        raise _unreadable(source, f"it is larger than {MAX_FILE >> 20} MiB", "name a TOML file")
    try:
        return tomllib.loads(decode(content))
    except NotText as error:
        raise _unreadable(source, f"it {error}", "save it as UTF-8") from error
    except tomllib.TOMLDecodeError as error:
        raise _unreadable(source, f"it is not TOML: {error}", "see https://toml.io for the notation") from error


def _unreadable(source: str, problem: str, expected: str) -> ConfigError:
    return ConfigError(source, [Problem("the file", problem, expected)])


def _overlay(raw: dict[str, Any], env: Mapping[str, str], source: str) -> dict[TomlPath, str]:
    """Put the environment's values into ``raw``; which variable said what."""
    origins: dict[TomlPath, str] = {}
    for name in sorted(env):
        if not name.startswith(PREFIX):
            continue
        # Keys of Spark's configuration hold dots and capitals; all others are lower case.
        path = tuple(part if "." in part else part.lower() for part in name.removeprefix(PREFIX).split("__"))
        if not all(path):
            raise ConfigError(source, [Problem(name, "a part of the name is empty", f"write {PREFIX}SECTION__KEY")])
        table = raw
        for part in path[:-1]:
            table = table.setdefault(part, {})
            if not isinstance(table, dict):
                raise ConfigError(source, [Problem(name, f"{part} is not a table", f"write {PREFIX}SECTION__KEY")])
        table[path[-1]] = _value(name, env[name], source)
        origins[path] = name
    return origins


def _value(name: str, text: str, source: str) -> Any:
    if not _TOML_VALUE.match(text):
        return text
    try:
        return tomllib.loads(f"value = {text}")["value"]
    except tomllib.TOMLDecodeError as error:
        problem = Problem(name, f"it is not a TOML value: {error}", 'write it as in the file, such as ["a", "b"]')
        raise ConfigError(source, [problem]) from error
