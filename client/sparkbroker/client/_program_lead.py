"""Where the Spark is of a program that knows nothing of leases: the lease that its command was started with.

What the program's own builder says about it (``master``, ``remote``) is what it says elsewhere, too; here the lease
decides. The standard library is all that this needs: see ``program/sitecustomize.py``.
"""

import json
import logging
import os
from collections.abc import Mapping
from typing import Any, Final
from urllib.parse import unquote

VARIABLE: Final = "SPARKBROKER_PROGRAM"
"""In the program's environment, as JSON: its ``lease``, and the ``settings`` that its session has whatever it says itself:
``spark.remote`` (a secret), or ``spark.master`` and sizes."""
_NO_SECRETS: Final = ("user_id", "session_id", "use_ssl", "user_agent")
_SHORTEST_SECRET: Final = 8

_log = logging.getLogger("sparkbroker")


class ProgramLead:
    """A Lead, see ``_pyspark_hook``."""

    def __init__(self, environ: Mapping[str, str]) -> None:
        told = json.loads(environ[VARIABLE])
        self._settings: dict[str, str] = told["settings"]
        self._remote = self._settings.get("spark.remote", "")
        self._lease: str = told["lease"]
        self._secrets = secrets_of(self._remote)
        self._opened = False
        self._told: set[str] = set()

    def session(self, own: Any) -> Any:
        """Pyspark's to give; raise where it would be a second one."""
        if self._remote and self._opened and not own.exists() and own.active() is None:
            raise RuntimeError(
                f"the Spark session of {self._lease} has been stopped, and it has no second one for this program: "
                "stop it at the program's end only, or ask for mode LOCAL"
            )
        return None

    def decides(self) -> bool:
        """The lease does."""
        return True

    def opened(self) -> None:
        """It has given one."""
        self._opened = True

    def active(self, own: Any) -> Any:
        """Pyspark's."""
        return own.active()

    def options(self, options: Mapping[str, Any]) -> "dict[str, Any]":
        """With the lease's place in place of the program's."""
        kept = {key: value for key, value in options.items() if key not in self._settings}
        self._tell(options)
        if self._remote:
            for key in ("spark.master", "spark.api.mode"):
                kept.pop(key, None)
            return {**kept, "spark.remote": self._remote}
        # ``local``: the Connect API, on the lease's own master. For its client pyspark then names the server that it has started.
        started = "SPARK_LOCAL_REMOTE" in os.environ
        if not started and not str(kept.get("spark.remote", "local")).startswith("local"):
            del kept["spark.remote"]
        if not os.environ.get("SPARK_REMOTE", "local").startswith("local"):
            self._say("SPARK_REMOTE")
            del os.environ["SPARK_REMOTE"]
        return kept

    def _tell(self, options: Mapping[str, Any]) -> None:
        for key in ("spark.master", "spark.remote", *self._settings):
            if key in options and options[key] != self._settings.get(key):
                self._say(key)

    def _say(self, key: str) -> None:
        if key not in self._told:
            self._told.add(key)
            # Not its value: a URL may have a token in it.
            _log.warning("sparkbroker: the program's own %s is ignored: its Spark is %s", key, self._lease)

    def check_context(self) -> None:
        """Raise where there is none: it would be a driver beside the lease."""
        if self._remote:
            raise RuntimeError(
                f"{self._lease} is in mode CONNECT, which has no SparkContext: use SparkSession, or ask for mode LOCAL"
            )

    def context_settings(self) -> Mapping[str, str]:
        """The lease's master and sizes."""
        return self._settings

    def context_given(self, settings: Mapping[str, str]) -> None:
        """A SparkContext is made with these of the program's own."""
        self._tell(settings)

    def scrub(self, text: str) -> str:
        """Without what a log must not have."""
        for secret in self._secrets:
            text = text.replace(secret, "***")
        return text


def secrets_of(remote: str) -> "list[str]":
    """What is secret in a Connect URL, as it stands there and as it is sent; the longest first."""
    parameters = [part.partition("=")[::2] for part in remote.partition("/;")[2].split(";")]
    values = {form for key, value in parameters if key not in _NO_SECRETS for form in (value, unquote(value))}
    values |= {value.removeprefix("Bearer ") for value in values}
    values |= {value.removeprefix("Bearer%20") for value in values}
    return sorted((value for value in values if len(value) >= _SHORTEST_SECRET), key=len, reverse=True)
