"""What an Airflow connection says of a broker. Pure; each error names the connection, and the field that is wrong."""

import ipaddress
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any, Final

from sparkbroker.airflow_provider._provider_info import CONN_FIELDS, DEFAULT_PORT
from sparkbroker.client import DEFAULT_PATIENCE, Address, BadAddress, resolve_address  # none of these brings gRPC

_TRUE: Final = ("true", "1", "yes", "on")
_FALSE: Final = ("false", "0", "no", "off", "")
_HOST: Final = re.compile(r"[A-Za-z0-9_]([A-Za-z0-9_.-]*[A-Za-z0-9_.])?")
_UNUSED: Final = {
    "login": "the token goes into the field password",
    "schema": "for TLS, use the extra use_tls, or a grpcs:// in the extra url",
}
"""Fields of every connection that say nothing of a broker, and what is used instead."""
_FIELDS: Final = {
    "an argument gives both a token and a token file": "gives both a password and the extra token_file",
    "from an argument": "in the password",
    "allow_plaintext=True": "the extra allow_plaintext",
    "the ca_file argument": "the extra ca_file",
}
"""How the client calls what comes of a field, and how the field is called."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _AddressWithCa(Address):
    """With the certificates to trust in it, and not in a file."""

    ca_certificate: str = ""

    def read_ca(self) -> bytes | None:
        return self.ca_certificate.encode()


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """What a connection says. ``patience`` is in seconds; the URLs are templates."""

    address: Address
    patience: float = DEFAULT_PATIENCE
    lease_url: str = ""
    spark_ui_url: str = ""


def read_settings(connection: Any, source: str) -> Settings:
    """An Airflow connection's settings; raise BadAddress, which names ``source`` and the field."""
    _check_unused(connection, source)
    extra = {key: value for key, value in _extra(connection, source).items() if value is not None}
    unknown = sorted(extra.keys() - CONN_FIELDS.keys())
    if unknown:
        raise BadAddress(f"{source}: unknown extra {unknown[0]!r}; known are {', '.join(sorted(CONN_FIELDS))}")
    text = {name: _text(extra, name, source) for name in ("url", "ca_file", "ca_certificate", "token_file")}
    use_tls = _flag(extra, "use_tls", source)
    url = _url(connection, text["url"], use_tls, source)
    if text["ca_file"] and text["ca_certificate"]:
        raise BadAddress(f"{source}: gives both ca_file and ca_certificate; give one of them")
    try:
        address = resolve_address(
            url,
            token=connection.password or None,
            token_file=text["token_file"] or None,
            ca_file=text["ca_file"] or None,
            allow_plaintext=_flag(extra, "allow_plaintext", source),
            environ={},  # the worker's own settings are for other brokers
        )
    except BadAddress as error:
        raise BadAddress(f"{source}: {_by_field(str(error), bool(text['url']))}") from error
    if text["ca_certificate"]:
        if not address.tls:
            raise BadAddress(
                f"{source}: {address.url!r} has no TLS, and ca_certificate is given; use grpcs:// or use_tls"
            )
        known = {field.name: getattr(address, field.name) for field in fields(Address)}
        address = _AddressWithCa(**known, ca_certificate=text["ca_certificate"])
    return Settings(
        address=address,
        patience=_patience(extra, source),
        lease_url=_text(extra, "lease_url", source),
        spark_ui_url=_text(extra, "spark_ui_url", source),
    )


def _url(connection: Any, url: str, use_tls: bool, source: str) -> str:
    host = (connection.host or "").strip()
    if url and host:
        raise BadAddress(f"{source}: gives both host ({host!r}) and extra url ({url!r}); give one of them")
    if url:
        if use_tls and not url.startswith("grpcs://"):
            raise BadAddress(f"{source}: use_tls with the url {url!r}; a URL says TLS by itself: grpcs://host:port")
        return url
    if not host:
        raise BadAddress(f"{source}: has neither a host nor the extra url; give one, such as unix:///path/to/socket")
    if "/" in host:
        raise BadAddress(
            f"{source}: the host {host!r} is neither a name nor an address; a URL belongs into the extra url"
        )
    return f"{'grpcs' if use_tls else 'grpc'}://{_host(host, source)}:{_port(connection.port, source)}"


def _host(host: str, source: str) -> str:
    """As a URL has it. Raise BadAddress for what is more than a host."""
    bare = host[1:-1] if host.startswith("[") and host.endswith("]") else host
    if ":" in bare or bare != host:
        try:
            return f"[{ipaddress.IPv6Address(bare)}]"
        except ValueError:
            pass
    name, colon, port = host.rpartition(":")
    if colon and port.isdecimal():
        raise BadAddress(f"{source}: the host {host!r} has a port in it; give the host {name!r} and the port {port}")
    if _HOST.fullmatch(host) is None:
        raise BadAddress(
            f"{source}: the host {host!r} is neither a name nor an address; give one without anything else"
        )
    return host


def _port(port: Any, source: str) -> int:
    if port is None or port == "":
        return DEFAULT_PORT
    if isinstance(port, bool) or not str(port).isdecimal() or not 1 <= int(port) <= 65535:
        raise BadAddress(f"{source}: the port is {port!r}; give a number from 1 to 65535")
    return int(port)


def _check_unused(connection: Any, source: str) -> None:
    for name, instead in _UNUSED.items():
        if (getattr(connection, name, None) or "").strip():
            raise BadAddress(f"{source}: has a {name}, which is not used; leave it empty: {instead}")


def _extra(connection: Any, source: str) -> Mapping[str, Any]:
    """Airflow itself takes what isn't JSON for nothing."""
    text = (connection.extra or "").strip()
    if not text:
        return {}
    try:
        extra = json.loads(text)
    except ValueError as error:
        raise BadAddress(
            f'{source}: the extra is not JSON ({error}); give an object, such as {{"use_tls": true}}'
        ) from error
    if not isinstance(extra, Mapping):
        raise BadAddress(
            f'{source}: the extra is a {type(extra).__name__}; give an object, such as {{"use_tls": true}}'
        )
    found: Mapping[str, Any] = connection.extra_dejson
    return found


def _by_field(message: str, of_url: bool) -> str:
    """A message of the client's in the names of a connection's fields."""
    for theirs, ours in {**_FIELDS, "the url argument": "the extra url" if of_url else "host and port"}.items():
        message = message.replace(theirs, ours)
    return message


def _text(extra: Mapping[str, Any], name: str, source: str) -> str:
    value = extra.get(name, "")
    if not isinstance(value, str):
        raise BadAddress(f"{source}: the extra {name} must be text, not {type(value).__name__}")
    return value.strip()


def _flag(extra: Mapping[str, Any], name: str, source: str) -> bool:
    value = extra.get(name, False)
    if isinstance(value, bool):
        return value
    if isinstance(value, str) and value.strip().lower() in (*_TRUE, *_FALSE):
        return value.strip().lower() in _TRUE
    raise BadAddress(f"{source}: the extra {name} is {value!r}; give true or false")


def _patience(extra: Mapping[str, Any], source: str) -> float:
    value = extra.get("patience")
    if value is None or value == "":
        return DEFAULT_PATIENCE
    try:
        seconds = float(value)
    except (TypeError, ValueError) as error:
        raise BadAddress(f"{source}: the extra patience is {value!r}; give seconds") from error
    if not 1 <= seconds <= 86400:
        raise BadAddress(f"{source}: the extra patience is {value!r}; give 1 to 86400 seconds")
    return seconds
