"""Where the broker is and how to prove who we are: argument, else environment, else configuration file, else default.

A URL is ``unix:///path/to/socket``, ``grpc://host:port`` (plaintext) or ``grpcs://host:port`` (TLS). A credential in
the configuration file belongs to the URL beside it and is sent nowhere else. Without TLS it is sent to a number only:
``localhost`` is 127.0.0.1, and no other name counts as this machine. A name may resolve to several addresses, and at the same
port of another one somebody else may listen.
"""

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit

from sparkbroker.client._errors import BadAddress
from sparkbroker.client._loopback import ADDRESS, is_loopback, is_loopback_name
from sparkbroker.client.file_text import MARK, NotText, decode, without_mark

_FORMS: Final = "unix:///path/to/socket, grpc://host:port or grpcs://host:port"
_LONGEST_SOCKET_PATH: Final = 107
_FILE_KEYS: Final = frozenset({"url", "token", "token_file", "ca_file"})


class NoDefaultAddress(BadAddress):
    """Nobody has named a broker, and for want of a home there is no default."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Address:
    """A broker's address, checked. ``target`` is gRPC's; ``source`` says for people where the URL came from."""

    url: str
    target: str
    tls: bool
    loopback: bool
    source: str
    token: str = field(default="", repr=False)
    token_file: Path | None = None
    ca_file: Path | None = None

    def read_token(self) -> str:
        """The token of now: a file is read at each call, so that a rotated token is taken up."""
        if self.token_file is None:
            return self.token
        content = _read(self.token_file, "token file")
        try:
            return _token_text(decode(content), str(self.token_file))
        except NotText as error:
            raise BadAddress(f"the token file {self.token_file} {error}; save it as UTF-8") from error

    def read_ca(self) -> bytes | None:
        """The certificates to trust, PEM. None: the system's."""
        return None if self.ca_file is None else without_mark(_read(self.ca_file, "CA file"))


def resolve_address(
    url: str | None = None,
    *,
    token: str | None = None,
    token_file: str | os.PathLike[str] | None = None,
    ca_file: str | os.PathLike[str] | None = None,
    allow_plaintext: bool = False,
    environ: Mapping[str, str] | None = None,
) -> Address:
    """Find the broker's address; raise BadAddress, which names the source of what is wrong.

    Environment: SPARKBROKER_URL, SPARKBROKER_TOKEN, SPARKBROKER_TOKEN_FILE, SPARKBROKER_CA_FILE. File:
    ``$XDG_CONFIG_HOME/sparkbroker/client.toml`` with the keys url, token, token_file, ca_file. Default: the socket
    ``$XDG_STATE_HOME/sparkbroker/run/broker.sock``. ``allow_plaintext`` allows to send a token unencrypted to
    another machine (a network that encrypts by itself).
    """
    env = os.environ if environ is None else environ
    settings: dict[str, str] = {}
    found = ""
    if url:
        found, source = url, "the url argument"
    elif env.get("SPARKBROKER_URL"):
        found, source = env["SPARKBROKER_URL"], "SPARKBROKER_URL"
    else:
        configuration, state = _home(env, "XDG_CONFIG_HOME", ".config"), _home(env, "XDG_STATE_HOME", ".local/state")
        if configuration is not None:
            file = configuration / "sparkbroker" / "client.toml"
            settings = _read_settings(file)
            found, source = settings.get("url", ""), str(file)
        if not found:
            if state is None:
                raise NoDefaultAddress(
                    "no broker is named, and the default one's socket is in the user's home, and this user has no home; "
                    "set SPARKBROKER_URL or HOME"
                )
            found, source = f"unix://{state}/sparkbroker/run/broker.sock", "the default"
    address = _parse(found, source)
    return _with_credentials(address, env, settings, token, token_file, ca_file, allow_plaintext)


def _with_credentials(
    address: Address,
    env: Mapping[str, str],
    settings: Mapping[str, str],
    token: str | None,
    token_file: str | os.PathLike[str] | None,
    ca_file: str | os.PathLike[str] | None,
    allow_plaintext: bool,
) -> Address:
    levels = [
        ("an argument", token, token_file),
        ("the environment", env.get("SPARKBROKER_TOKEN"), env.get("SPARKBROKER_TOKEN_FILE")),
        (address.source, settings.get("token"), settings.get("token_file")),
    ]
    text, path = "", None
    for origin, own_token, own_file in levels:
        if own_token and own_file:
            raise BadAddress(f"{origin} gives both a token and a token file; give one of them")
        if own_token or own_file:
            text = _token_text(own_token, origin) if own_token else ""
            path = _user_path(own_file, origin) if own_file else None
            break
    ca, origin = _ca_file(env, settings, ca_file)
    if ca and not address.tls:
        raise BadAddress(
            f"{origin} gives the CA file {str(ca)!r}, and {address.url!r} (from {address.source}) has no TLS; use a "
            "grpcs:// URL, or leave the CA file out"
        )
    if (text or path) and not (address.tls or address.loopback or allow_plaintext):
        raise BadAddress(
            f"{address.source}: a token would be sent unencrypted to {address.url!r}; use grpcs://, or for a broker on "
            f"this machine its IP address, such as {ADDRESS}, or allow_plaintext=True if the network encrypts by itself"
        )
    return Address(
        url=address.url,
        target=address.target,
        tls=address.tls,
        loopback=address.loopback,
        source=address.source,
        token=text,
        token_file=path,
        ca_file=_user_path(ca, origin) if ca else None,
    )


def _ca_file(
    env: Mapping[str, str], settings: Mapping[str, str], ca_file: str | os.PathLike[str] | None
) -> tuple[str | os.PathLike[str] | None, str]:
    """The CA file and where it is from, the first that there is."""
    if ca_file:
        return ca_file, "the ca_file argument"
    if env.get("SPARKBROKER_CA_FILE"):
        return env["SPARKBROKER_CA_FILE"], "SPARKBROKER_CA_FILE"
    return settings.get("ca_file"), "the configuration file"


def _parse(url: str, source: str) -> Address:
    try:
        parts = urlsplit(url)
        host, port = parts.hostname, parts.port
    except ValueError as error:
        raise BadAddress(f"{source}: {_shown(url)!r} is no URL ({error}); use {_FORMS}") from error
    if parts.username is not None or parts.query or parts.fragment:
        raise BadAddress(
            f"{source}: {_shown(url)!r} must hold nothing but the address; give credentials as token or token_file"
        )
    if parts.scheme == "unix":
        path = parts.path
        if parts.netloc or not path.startswith("/"):
            raise BadAddress(f"{source}: {url!r} must name an absolute path, as unix:///path/to/socket")
        if len(os.fsencode(path)) > _LONGEST_SOCKET_PATH:
            raise BadAddress(f"{source}: the socket path {path!r} is longer than {_LONGEST_SOCKET_PATH} bytes")
        return Address(url=url, target=f"unix:{path}", tls=False, loopback=True, source=source)
    if parts.scheme in ("grpc", "grpcs"):
        if not host or port is None or parts.path not in ("", "/"):
            raise BadAddress(f"{source}: {url!r} must name host and port, as {parts.scheme}://host:port")
        tls = parts.scheme == "grpcs"
        # With TLS the broker proves its name, which has to stay for that.
        to = ADDRESS if not tls and is_loopback_name(host) else host
        target = f"[{to}]:{port}" if ":" in to else f"{to}:{port}"
        return Address(url=url, target=target, tls=tls, loopback=is_loopback(host), source=source)
    raise BadAddress(f"{source}: {_shown(url)!r} has an unknown form; use {_FORMS}")


def _shown(url: str) -> str:
    """The URL without what may be a credential."""
    scheme, mark, rest = url.partition("://")
    rest = rest.partition("?")[0].partition("#")[0]
    return scheme + mark + rest.rpartition("@")[2]


def _home(env: Mapping[str, str], variable: str, below_home: str) -> Path | None:
    """The XDG folder. None: there is nothing to find it by, as for a container's random user."""
    for name, below in ((variable, ""), ("HOME", below_home)):
        value = env.get(name, "")
        if value.startswith("/"):  # the XDG specification: a relative path is to be ignored
            return Path(value) / below
    try:
        return Path.home() / below_home
    except RuntimeError:
        return None


def _user_path(path: str | os.PathLike[str], origin: str) -> Path:
    try:
        return Path(path).expanduser()
    except RuntimeError as error:
        raise BadAddress(
            f"{origin}: {os.fspath(path)!r} is in the home of a user that has no home; write the path"
        ) from error


def _read_settings(file: Path) -> dict[str, str]:
    try:
        raw = file.read_bytes()
    except FileNotFoundError:
        return {}
    except OSError as error:
        raise BadAddress(f"{file} can't be read: {error.strerror}") from error
    import tomllib  # noqa: PLC0415  only needed where there is a file

    try:
        settings = tomllib.loads(decode(raw))
    except NotText as error:
        raise BadAddress(f"{file} {error}; save it as UTF-8") from error
    except tomllib.TOMLDecodeError as error:
        raise BadAddress(f"{file} is no TOML: {error}") from error
    for key, value in settings.items():
        if key not in _FILE_KEYS:
            raise BadAddress(f"{file}: unknown key {key!r}; known are {', '.join(sorted(_FILE_KEYS))}")
        if not isinstance(value, str):
            raise BadAddress(f"{file}: {key} must be a string")
    if settings.keys() & {"token", "token_file"} and "url" not in settings:
        raise BadAddress(f"{file}: a token without url; also give the url of its broker")
    return settings


def _read(path: Path, what: str) -> bytes:
    try:
        with path.open("rb") as file:
            content = file.read(1 << 20)
    except OSError as error:
        raise BadAddress(f"the {what} {path} can't be read: {error.strerror}") from error
    return content


def _token_text(text: str, origin: str) -> str:
    token = text.removeprefix(MARK).strip()
    if not token or not token.isascii() or not token.isprintable() or " " in token:
        raise BadAddress(f"the token from {origin} is empty or has characters that a token can't have")
    return token
