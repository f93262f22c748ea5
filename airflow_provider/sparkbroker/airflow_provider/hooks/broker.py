"""The connection to a broker, as Airflow keeps it."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Any, Final

from sparkbroker.airflow_provider._compat import BaseHook, aget_connection, mask_secret
from sparkbroker.airflow_provider._provider_info import CONN_FIELDS, UI_FIELD_BEHAVIOUR
from sparkbroker.airflow_provider.failures import diagnosis
from sparkbroker.client import (  # none of these brings gRPC before it is used
    Address,
    BadAddress,
    Broker,
    SparkbrokerError,
    resolve_address,
)

if TYPE_CHECKING:
    from sparkbroker.client import AsyncBroker

DEFAULT_CONN_ID: Final = "sparkbroker_default"
DEFAULT_PORT: Final = 7077
_TEST_PATIENCE: Final = 5.0
_SHOWN: Final = 8
_TRUE: Final = ("true", "1", "yes", "on")
_FALSE: Final = ("false", "0", "no", "off", "")


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
    patience: float = 60.0
    lease_url: str = ""
    spark_ui_url: str = ""


class SparkBrokerHook(BaseHook):
    """For operators of your own: the client of the broker that a connection of type ``sparkbroker`` names.

    with SparkBrokerHook("spark").client() as broker, broker.session(cores=2) as spark:
        ...

    Each call reads the connection anew. Errors: AirflowNotFoundException for a connection that isn't there, BadAddress for
    one that can't be used. The token is masked in Airflow's logs from then on.
    """

    conn_name_attr = "conn_id"
    default_conn_name = DEFAULT_CONN_ID
    conn_type = "sparkbroker"
    hook_name = "Spark broker"

    def __init__(self, conn_id: str = DEFAULT_CONN_ID, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.conn_id = conn_id

    @classmethod
    def get_ui_field_behaviour(cls) -> dict[str, Any]:
        """For the form of 2.11; 3 reads the provider's info."""
        return dict(UI_FIELD_BEHAVIOUR)

    @classmethod
    def get_connection_form_widgets(cls) -> dict[str, Any]:
        """Likewise."""
        from flask_appbuilder import fieldwidgets  # type: ignore[import-not-found]  # noqa: PLC0415
        from flask_babel import lazy_gettext  # type: ignore[import-not-found]  # noqa: PLC0415
        from wtforms import BooleanField, StringField  # type: ignore[import-untyped]  # noqa: PLC0415

        def field(label: str, schema: Mapping[str, Any], about: str) -> Any:
            if "boolean" in schema["type"]:
                return BooleanField(lazy_gettext(label), description=about, default=False)
            lines = schema.get("format") == "multiline"  # which a text field would lose; Airflow takes no TextAreaField
            widget = fieldwidgets.BS3TextAreaFieldWidget() if lines else fieldwidgets.BS3TextFieldWidget()
            return StringField(lazy_gettext(label), description=about, widget=widget)

        return {
            name: field(known["label"], known["schema"], known.get("description", ""))
            for name, known in CONN_FIELDS.items()
        }

    def settings(self) -> Settings:
        """What the connection says."""
        return self._read(self.get_connection(self.conn_id))

    async def asettings(self) -> Settings:
        """Likewise, in an event loop."""
        return self._read(await aget_connection(self.conn_id))

    def _read(self, connection: Any) -> Settings:
        source = f"connection {self.conn_id!r}"
        settings = read_settings(connection, source)
        try:
            token = settings.address.read_token()
        except BadAddress as error:
            raise BadAddress(f"{source}: {error}") from error
        if token:
            mask_secret(token)
        return settings

    def address(self) -> Address:
        """Where the broker is and how to prove who we are."""
        return self.settings().address

    def client(self, **callbacks: Any) -> Broker:
        """A client for blocking code; use it with ``with``. ``callbacks`` as of ``sparkbroker.client.Broker``."""
        settings = self.settings()
        return Broker(settings.address, patience=settings.patience, **callbacks)

    async def async_client(self, **callbacks: Any) -> "AsyncBroker":
        """A client for this event loop; use it with ``async with``."""
        from sparkbroker.client import AsyncBroker  # noqa: PLC0415  brings gRPC

        settings = await self.asettings()
        return AsyncBroker(settings.address, patience=settings.patience, **callbacks)

    def get_conn(self) -> Broker:
        """As ``client``: Airflow's own name for it."""
        return self.client()

    def test_connection(self) -> tuple[bool, str]:
        """Whether the broker answers and knows us, and if not, what is wrong."""
        try:
            settings = self.settings()
            with Broker(settings.address, patience=_TEST_PATIENCE) as broker:
                profiles, queues = broker.profiles(), broker.queues()
        except SparkbrokerError as error:
            return False, diagnosis(error)
        except Exception as error:  # noqa: BLE001  a button is to show what is wrong, whatever it is
            return False, f"{type(error).__name__}: {error}"
        return (
            True,
            f"{settings.address.url} serves you the profiles {_named(profiles)} and the queues {_named(queues)}",
        )


def read_settings(connection: Any, source: str) -> Settings:
    """An Airflow connection's settings; raise BadAddress, which names ``source`` and the field."""
    extra = {key: value for key, value in (connection.extra_dejson or {}).items() if value is not None}
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
        raise BadAddress(f"{source}: {error}") from error
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


def _named(resources: Sequence[Any]) -> str:
    names = sorted(resource.name.partition("/")[2] for resource in resources)
    return ", ".join(names[:_SHOWN]) + (", …" if len(names) > _SHOWN else "") or "(none)"


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
        raise BadAddress(f"{source}: the host {host!r} is no name or address; a URL belongs into the extra url")
    name = f"[{host}]" if ":" in host and not host.startswith("[") else host
    return f"{'grpcs' if use_tls else 'grpc'}://{name}:{connection.port or DEFAULT_PORT}"


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
        return 60.0
    try:
        seconds = float(value)
    except (TypeError, ValueError) as error:
        raise BadAddress(f"{source}: the extra patience is {value!r}; give seconds") from error
    if not 1 <= seconds <= 86400:
        raise BadAddress(f"{source}: the extra patience is {value!r}; give 1 to 86400 seconds")
    return seconds
