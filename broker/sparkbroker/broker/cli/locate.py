"""Which broker a command talks to."""

from pathlib import Path

from sparkbroker.broker.cli.embedded import answers
from sparkbroker.client import Address, NoDefaultAddress, resolve_address


def find(url: str | None) -> Address | None:
    """The configured broker, or one that answers on the default socket; None: neither. Raise BadAddress."""
    try:
        address = resolve_address(url)
    except NoDefaultAddress:
        return None
    if address.source != "the default" or answers(Path(address.target.removeprefix("unix:"))):
        return address
    return None
