"""pyspark's own ways to "the" session, ``getOrCreate`` and ``getActiveSession``, led to a lease's.

What to lead them to is a Lead's to say: this process's open leases (``_current``), or the lease of the program that a
command was started with (``_child``). This module needs nothing but the standard library: it is loaded there too, by
its path, in a Python that may have no sparkbroker.
"""

import functools
import os
import sys
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec
from types import ModuleType
from typing import Any, Final, Protocol

WHERE: Final = ("spark.master", "spark.remote", "spark.api.mode")
"""Keys by which a program's own builder says where its Spark is."""
_OPENING: Final = "_sparkbroker_opening"
_LEADS: Final = "_sparkbroker_leads"
_LOCAL_SERVER: Final = "SPARK_LOCAL_REMOTE"
"""Pyspark sets it once it has started a Connect server itself."""


class Own:
    """What pyspark has without us, and what a builder says of it."""

    def __init__(self, session: Any, builder: Any = None) -> None:
        self._session = session
        self._builder = builder

    def active(self) -> Any:
        """Its active session in this thread, or None."""
        with opening():
            return self._session.getActiveSession()

    def exists(self) -> bool:
        """Whether it has a session or a context, in whatever thread."""
        modules = [sys.modules.get(name) for name in ("pyspark.sql.connect.session", "pyspark.sql.session")]
        sessions = [module.SparkSession for module in modules if module is not None]
        if any(getattr(session, "_get_default_session", lambda: None)() is not None for session in sessions):
            return True
        context = getattr(sys.modules.get("pyspark"), "SparkContext", None)
        return getattr(context, "_active_spark_context", None) is not None

    def is_asked_for(self) -> bool:
        """Whether the builder, or the environment, says where its Spark is."""
        options = self._builder._options  # noqa: SLF001
        return (
            "spark.master" in options
            or "spark.remote" in options
            or getattr(self._builder, "_channel_builder", None) is not None
            or "SPARK_REMOTE" in os.environ
            or "MASTER" in os.environ
        )


class Lead(Protocol):
    """Where the sessions are."""

    def session(self, own: Own) -> Any:
        """What ``getOrCreate`` gives; None: what pyspark says. Raise if it has ended."""

    def active(self, own: Own) -> Any:
        """What ``getActiveSession`` gives; None: there is none."""

    def options(self, options: Mapping[str, Any]) -> "dict[str, Any]":
        """The builder's options as pyspark is to see them where the session is its to make."""

    def decides(self) -> bool:
        """What a builder says of its Spark doesn't matter: it may say anything."""

    def opened(self) -> None:
        """Pyspark has given a session for a builder."""

    def check_context(self) -> None:
        """Raise if a new SparkContext isn't allowed here."""

    def context_settings(self) -> Mapping[str, str]:
        """What a new SparkContext is to have, whatever the program says."""

    def context_given(self, settings: Mapping[str, str]) -> None:
        """A SparkContext is made with these of the program's own."""

    def scrub(self, text: str) -> str:
        """The text of an error without secrets."""


@contextmanager
def opening() -> Iterator[None]:
    """In this thread pyspark is left alone: it opens a session of ours."""
    import pyspark  # noqa: PLC0415  it is there

    # Kept there, since a program may have two copies of this module.
    local = pyspark.__dict__.setdefault(_OPENING, threading.local())
    before = getattr(local, "depth", 0)
    local.depth = before + 1
    try:
        yield
    finally:
        local.depth = before


def _aside() -> bool:
    return bool(getattr(getattr(sys.modules.get("pyspark"), _OPENING, None), "depth", 0))


def install(lead: Lead, *, later: bool = False) -> None:
    """Lead what is loaded of pyspark; with ``later`` also what will be. Idempotent for the same Lead."""
    for name, hook in _HOOKS.items():
        if name in sys.modules:
            _hook_once(sys.modules[name], hook, lead)
    if later:
        sys.meta_path.insert(0, _Finder(lead))


def _hook_once(module: ModuleType, hook: "Callable[[Any, Lead], None]", lead: Lead) -> None:
    leads = module.__dict__.setdefault(_LEADS, [])
    if lead not in leads:
        leads.append(lead)
        hook(module, lead)


def _hook_classic(module: Any, lead: Lead) -> None:
    session = module.SparkSession
    builder = session.Builder
    _lead_builder(session, lead)
    if hasattr(builder, "_validate_startup_urls"):
        # It refuses a master beside SPARK_REMOTE, in a message with all that is in that URL.
        _around(builder, "_validate_startup_urls", lambda original, self: None if lead.decides() else original(self))
    _lead_active(session, lead)


def _hook_connect(module: Any, lead: Lead) -> None:
    _lead_builder(module.SparkSession, lead)
    _lead_active(module.SparkSession, lead)


def _lead_builder(session: Any, lead: Lead) -> None:
    def get(original: Callable[[Any], Any], self: Any) -> Any:
        found = lead.session(Own(session, self))
        if found is None:
            self._options = lead.options(self._options)
            found = original(self)
            lead.opened()
            return found
        _apply(self, found)
        return found

    def create(original: Callable[[Any], Any], self: Any) -> Any:
        self._options = lead.options(self._options)
        made = original(self)
        lead.opened()
        return made

    _around(session.Builder, "getOrCreate", get)
    _around(session.Builder, "create", create)


def _lead_active(session: Any, lead: Lead) -> None:
    original = session.__dict__["getActiveSession"].__func__

    @functools.wraps(original)
    def active(cls: Any) -> Any:
        return original(cls) if _aside() else lead.active(Own(session))

    session.getActiveSession = classmethod(active)


def _apply(builder: Any, session: Any) -> None:
    """Its options, as pyspark applies them to a session that it has."""
    options = {key: value for key, value in builder._options.items() if key not in WHERE}  # noqa: SLF001
    if hasattr(session, "_jsparkSession"):
        from pyspark.sql.session import SparkSession  # noqa: PLC0415  it is there

        module = SparkSession._get_j_spark_session_module(session._jvm)  # noqa: SLF001
        module.applyModifiableSettings(session._jsparkSession, options)  # noqa: SLF001
        return
    from pyspark.sql.connect.session import SparkSession as ConnectSparkSession  # noqa: PLC0415

    applying = ConnectSparkSession.Builder()
    applying._options = options  # noqa: SLF001
    applying._apply_options(session)  # noqa: SLF001


def _hook_context(module: Any, lead: Lead) -> None:
    if module.SparkContext.__module__ != module.__name__:
        return  # another module's, under an older name
    original = module.SparkContext.__init__

    @functools.wraps(original)
    def init(self: Any, master: Any = None, *rest: Any, **named: Any) -> None:
        if not _aside():
            lead.check_context()
            if lead.context_settings():
                master, rest, named = _with_settings(lead, master, rest, named)
        original(self, master, *rest, **named)

    module.SparkContext.__init__ = init


_CONF_PLACE: Final = 6
"""Of SparkContext's arguments after the master: appName, sparkHome, pyFiles, environment, batchSize, serializer."""


def _with_settings(
    lead: Lead, master: Any, rest: "tuple[Any, ...]", named: "dict[str, Any]"
) -> "tuple[Any, tuple[Any, ...], dict[str, Any]]":
    from pyspark import SparkConf  # noqa: PLC0415  it is there

    given = rest[_CONF_PLACE] if len(rest) > _CONF_PLACE else named.get("conf")
    asked = dict(given.getAll()) if given is not None else {}
    lead.context_given({**asked, **({"spark.master": master} if master else {})})
    settings = lead.context_settings()
    conf = SparkConf()
    for key, value in {**asked, **settings}.items():
        conf.set(key, value)
    if len(rest) > _CONF_PLACE:
        rest = (*rest[:_CONF_PLACE], conf, *rest[_CONF_PLACE + 1 :])
    else:
        named = {**named, "conf": conf}
    return settings.get("spark.master", master), rest, named


def _hook_errors(module: Any, lead: Lead) -> None:
    original = module.PySparkException.__init__

    @functools.wraps(original)
    def init(self: Any, *arguments: Any, **named: Any) -> None:
        scrubbed = [lead.scrub(value) if isinstance(value, str) else value for value in arguments]
        for name, value in named.items():
            if isinstance(value, str):
                named[name] = lead.scrub(value)
            elif isinstance(value, dict):
                named[name] = {key: lead.scrub(item) if isinstance(item, str) else item for key, item in value.items()}
        original(self, *scrubbed, **named)

    module.PySparkException.__init__ = init


def _hook_channel(module: Any, _lead: Lead) -> None:
    """To a Connect server that pyspark has started in this process, by its address.

    It listens on 127.0.0.1. Pyspark looks for it at ``localhost``, and its token would reach who listens on ::1.
    """
    original = module.DefaultChannelBuilder.endpoint.fget

    def endpoint(self: Any) -> Any:
        found = original(self)
        ours = _LOCAL_SERVER in os.environ and found.startswith("localhost:")
        return found.replace("localhost", "127.0.0.1", 1) if ours else found

    module.DefaultChannelBuilder.endpoint = property(endpoint)


def _around(owner: Any, name: str, wrapper: "Callable[..., Any]") -> None:
    original = getattr(owner, name)

    @functools.wraps(original)
    def wrapped(self: Any, *arguments: Any) -> Any:
        return original(self, *arguments) if _aside() else wrapper(original, self, *arguments)

    setattr(owner, name, wrapped)


_HOOKS: Final = {
    "pyspark.errors.exceptions.base": _hook_errors,
    "pyspark.core.context": _hook_context,
    "pyspark.context": _hook_context,
    "pyspark.sql.session": _hook_classic,
    "pyspark.sql.connect.session": _hook_connect,
    "pyspark.sql.connect.client.core": _hook_channel,
}


class _Finder(MetaPathFinder):
    """Hooks what is imported later, when it has been."""

    def __init__(self, lead: Lead) -> None:
        self._lead = lead

    def find_spec(self, name: str, path: Any = None, target: Any = None) -> "ModuleSpec | None":
        if name not in _HOOKS:
            return None
        for finder in sys.meta_path:
            spec = None if isinstance(finder, type(self)) else finder.find_spec(name, path, target)
            if spec is not None:
                if spec.loader is not None:
                    spec.loader = _Hooking(spec.loader, _HOOKS[name], self._lead)
                return spec
        return None


class _Hooking(Loader):
    def __init__(self, loader: Any, hook: "Callable[[Any, Lead], None]", lead: Lead) -> None:
        self._loader = loader
        self._hook = hook
        self._lead = lead

    def create_module(self, spec: Any) -> Any:
        return self._loader.create_module(spec)

    def exec_module(self, module: ModuleType) -> None:
        self._loader.exec_module(module)
        _hook_once(module, self._hook, self._lead)

    def __getattr__(self, name: str) -> Any:
        """What else a loader may be asked for, such as ``get_source``."""
        return getattr(self._loader, name)
