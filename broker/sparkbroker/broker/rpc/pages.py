"""Page tokens (AIP-158): where the next page begins, signed, and bound to the query that they continue.

Stateless: a token holds the last item's sort key, so it stays good while items come and go, across restarts too. The
signature keeps callers from building them (their content is no part of the API); it hides nothing, and nothing in it
is secret from its owner.
"""

import hmac
from base64 import urlsafe_b64decode, urlsafe_b64encode
from typing import Final

import msgspec

from sparkbroker.broker.domain.errors import InvalidField

DEFAULT_SIZE: Final = 100
MAX_SIZE: Final = 1000
MAX_TOKEN: Final = 2048
_MAC_BYTES: Final = 16

Position = tuple[float, str]
"""The sort key of the last item of a page."""


class PageTokens:
    """Signs and reads page tokens with a key derived from the broker's."""

    def __init__(self, broker_key: bytes) -> None:
        # A key of its own: the broker's key also signs drivers' tokens, and one must never pass for the other.
        self._key = hmac.digest(broker_key, b"sparkbroker/page-token/v1", "sha256")

    def issue(self, query: tuple[str, ...], position: Position) -> str:
        """A token that continues ``query`` (method, principal, filter, order, …) after ``position``."""
        body = msgspec.json.encode(position)
        return urlsafe_b64encode(self._mac(query, body) + body).rstrip(b"=").decode()

    def read(self, query: tuple[str, ...], token: str) -> Position | None:
        """The position; None for an empty token, the first page. Raise InvalidField unless it is ours for ``query``."""
        if not token:
            return None
        if len(token) <= MAX_TOKEN:
            try:
                raw = urlsafe_b64decode(token.encode() + b"=" * (-len(token) % 4))
            except ValueError:
                raw = b""
            mac, body = raw[:_MAC_BYTES], raw[_MAC_BYTES:]
            if hmac.compare_digest(mac, self._mac(query, body)):
                position: Position = msgspec.json.decode(body, type=Position)
                return position
        raise InvalidField(
            "page_token",
            "it was not issued by this broker for this query",
            "pass next_page_token of the page before unchanged, with the same caller and the same other fields, or "
            "leave it empty for the first page",
        )

    def _mac(self, query: tuple[str, ...], body: bytes) -> bytes:
        signed = msgspec.json.encode(query) + b"\0" + body
        return hmac.digest(self._key, signed, "sha256")[:_MAC_BYTES]


def page_size(asked: int) -> int:
    """The size of a page. Raise InvalidField unless from 0 (the default) to 1000."""
    if not 0 <= asked <= MAX_SIZE:
        raise InvalidField(
            "page_size", f"{asked} is out of range", f"it must be from 0 (for {DEFAULT_SIZE}) to {MAX_SIZE}"
        )
    return asked or DEFAULT_SIZE
