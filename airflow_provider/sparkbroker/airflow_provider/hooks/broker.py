"""The connection to a broker, as Airflow keeps it."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Final

from sparkbroker.airflow_provider import checks, own_code
from sparkbroker.airflow_provider._compat import BaseHook, aget_connection, current_context, mask_secret
from sparkbroker.airflow_provider._provider_info import CONN_FIELDS, UI_FIELD_BEHAVIOUR
from sparkbroker.airflow_provider.failures import diagnosis
from sparkbroker.airflow_provider.hooks.connection import Settings, read_settings
from sparkbroker.client import (  # none of these brings gRPC before it is used
    Address,
    BadAddress,
    Broker,
    SparkbrokerError,
)

if TYPE_CHECKING:
    from sparkbroker.client import AsyncBroker

DEFAULT_CONN_ID: Final = "sparkbroker_default"
_TEST_PATIENCE: Final = 5.0
_SHOWN: Final = 8


class _TasksBroker(Broker):
    """The client, whose sessions bring the code of the task's DAG."""

    @contextmanager
    def session(self, **options: Any) -> Iterator[Any]:
        """See Broker. Functions of the DAG's file, and of the modules beside it, can be used in Spark's Python."""
        context = current_context() or {}
        with super().session(**options) as spark, own_code.brought(spark, context.get("dag"), context.get("ti")):
            yield spark


class SparkBrokerHook(BaseHook):
    """For operators and tasks of your own: the client of the broker that a connection of type ``sparkbroker`` names.

    with SparkBrokerHook("spark").session(cores=2) as spark:
        ...
    with SparkBrokerHook("spark").client() as broker, broker.lease(cores=2) as lease:
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
        self.conn_id = checks.text(conn_id, "conn_id")

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
        return _TasksBroker(settings.address, patience=settings.patience, **callbacks)

    @contextmanager
    def session(self, **options: Any) -> Iterator[Any]:
        """A Spark session on a lease of its own, for the body; ``options`` as of ``sparkbroker.client.Broker.session``."""
        with self.client() as broker, broker.session(**options) as spark:
            yield spark

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


def _named(resources: Sequence[Any]) -> str:
    names = sorted(resource.name.partition("/")[2] for resource in resources)
    return ", ".join(names[:_SHOWN]) + (", …" if len(names) > _SHOWN else "") or "(none)"
