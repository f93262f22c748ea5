"""Keeps tokens as their file is: a token that is taken out of it is worth nothing within seconds, without a signal."""

import asyncio
from typing import Final

import structlog

from sparkbroker.broker.adapters.static_tokens import StaticTokens
from sparkbroker.broker.domain.errors import BrokerError

log = structlog.get_logger()

CHECK_PERIOD: Final = 10.0
"""Seconds between two looks at the file."""
SETTLE: Final = 0.5
"""Seconds that a changed file has to stay as it is before it is read."""
SETTLE_LOOKS: Final = 10
"""After so many it is read as it is: who writes all the time doesn't keep a token alive."""


class TokenFollower:
    """Reads the file of ``tokens`` again when it has changed, while ``run`` does.

    A file that can't be used leaves the tokens read before in force, is told once for each change, and is tried again.
    """

    def __init__(self, tokens: StaticTokens) -> None:
        self._tokens = tokens

    def __repr__(self) -> str:
        return f"<TokenFollower {self._tokens!r}>"

    async def run(self) -> None:
        """Look until cancelled."""
        while True:
            await asyncio.sleep(CHECK_PERIOD)
            if self._tokens.file.changed():
                await self._settled()
                self.look()

    def look(self) -> None:
        """Read the file if it has changed, or couldn't be used."""
        if self._tokens.file.changed():
            self._read(asked=False)

    def reload(self) -> None:
        """Read the file as it is now, and tell how it went: somebody asked for it (SIGHUP)."""
        self._read(asked=True)

    async def _settled(self) -> None:
        # Who writes a file in place empties it first, and an empty one is valid: it would shut everybody out.
        before = self._tokens.file.stamps()
        for _ in range(SETTLE_LOOKS):
            await asyncio.sleep(SETTLE)
            now = self._tokens.file.stamps()
            if now == before:
                return
            before = now

    def _read(self, *, asked: bool) -> None:
        path = str(self._tokens.path)
        try:
            log.info("tokens.reloaded", file=path, count=self._tokens.reload())
        except BrokerError as error:
            if asked or self._tokens.file.news:
                log.error(  # noqa: TRY400 - the message says it all; a traceback would hide it
                    "tokens.not_reloaded",
                    file=path,
                    message=error.message,
                    hint=f"the tokens read before stay in force; mend the file: it is tried every {CHECK_PERIOD:g} s",
                )
