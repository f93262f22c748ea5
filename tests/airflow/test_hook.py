"""The connection to a broker, as Airflow keeps it."""

import hashlib
import json
import socket
from types import SimpleNamespace

import pytest
from airflow.providers_manager import ProvidersManager

from sparkbroker.airflow_provider import get_provider_info
from sparkbroker.airflow_provider._compat import AIRFLOW_3, BaseHook
from sparkbroker.airflow_provider._provider_info import CONN_FIELDS
from sparkbroker.airflow_provider.hooks.broker import SparkBrokerHook
from sparkbroker.airflow_provider.hooks.connection import read_settings
from sparkbroker.client import BadAddress

try:
    from airflow.sdk.log import redact
except ImportError:
    from airflow.utils.log.secrets_masker import redact

TOKEN = "the-token-of-ann-and-of-nobody-else"
CERTIFICATE = "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"


@pytest.fixture
def settings(monkeypatch, airflow_home):
    def read(**fields):
        monkeypatch.setenv("AIRFLOW_CONN_A_BROKER", json.dumps({"conn_type": "sparkbroker", **fields}))
        return SparkBrokerHook("a_broker").settings()

    return read


def test_host_and_port(settings):
    assert settings(host="h").address.url == "grpc://h:7077"
    assert settings(host="h", port=1234, extra={"use_tls": True}).address.url == "grpcs://h:1234"
    assert settings(host="::1", port=1234).address.url == "grpc://[::1]:1234"


def test_a_url_and_the_rest(settings):
    found = settings(
        password="secret-of-mine",
        extra={
            "url": "grpcs://h:1",
            "patience": 5,
            "lease_url": "x{lease}",
            "spark_ui_url": "y",
            "ca_certificate": CERTIFICATE,
        },
    )
    assert found.address.read_token() == "secret-of-mine"
    assert found.address.read_ca() == CERTIFICATE.strip().encode()
    assert (found.patience, found.lease_url, found.spark_ui_url) == (5.0, "x{lease}", "y")
    assert "secret-of-mine" not in repr(found)


def test_a_connection_of_a_uri(monkeypatch, airflow_home):
    monkeypatch.setenv("AIRFLOW_CONN_A_BROKER", "sparkbroker://:secret-of-mine@h:99?use_tls=true&patience=3")
    found = SparkBrokerHook("a_broker").settings()
    assert (found.address.url, found.address.read_token(), found.patience) == ("grpcs://h:99", "secret-of-mine", 3.0)


def test_the_workers_own_environment_is_for_other_brokers(settings, monkeypatch):
    monkeypatch.setenv("SPARKBROKER_URL", "grpcs://other:1")
    monkeypatch.setenv("SPARKBROKER_TOKEN", "token-of-another")
    found = settings(host="h")
    assert (found.address.url, found.address.read_token()) == ("grpc://h:7077", "")


def test_a_token_file_is_read_at_each_call(settings, tmp_path):
    file = tmp_path / "token"
    file.write_text("one\n")
    address = settings(extra={"url": "unix:///x/y", "token_file": str(file)}).address
    assert address.read_token() == "one"
    file.write_text("two\n")
    assert address.read_token() == "two"


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({}, "has neither a host nor the extra url; give one, such as unix:///path/to/socket"),
        ({"host": "h", "extra": {"url": "grpc://h:1"}}, "gives both host ('h') and extra url"),
        ({"host": "grpc://h"}, "is neither a name nor an address; a URL belongs into the extra url"),
        ({"host": "h:7077"}, "the host 'h:7077' has a port in it; give the host 'h' and the port 7077"),
        ({"host": "[::1]:7077"}, "the host '[::1]:7077' has a port in it; give the host '[::1]' and the port 7077"),
        ({"host": "h:x"}, "the host 'h:x' is neither a name nor an address"),
        ({"host": "me@h"}, "the host 'me@h' is neither a name nor an address"),
        ({"host": "h?a=b"}, "the host 'h?a=b' is neither a name nor an address"),
        ({"host": "h i"}, "the host 'h i' is neither a name nor an address"),
        ({"host": "h", "port": 70000}, "the port is 70000; give a number from 1 to 65535"),
        ({"host": "h", "login": "me"}, "has a login, which is not used; leave it empty: the token"),
        ({"host": "h", "schema": "grpcs"}, "has a schema, which is not used; leave it empty: for TLS, use the"),
        ({"extra": {"url": "grpc://h"}}, "the extra url: 'grpc://h' must name host and port"),
        (
            {"host": "h", "password": "a-token", "extra": {"token_file": "/x"}},
            "gives both a password and the extra token_f",
        ),
        ({"host": "h", "extra": {"ca_file": "/x"}}, "the extra ca_file gives the CA file '/x', and"),
        ({"host": "h", "password": "a b"}, "the token in the password is empty or has characters"),
        ({"extra": {"url": "http://h:1"}}, "has an unknown form; use unix:///path/to/socket"),
        ({"extra": {"url": "grpc://h:1", "use_tls": True}}, "a URL says TLS by itself: grpcs://host:port"),
        ({"host": "h", "extra": {"use_tls": "maybe"}}, "the extra use_tls is 'maybe'; give true or false"),
        ({"host": "h", "extra": {"patience": "long"}}, "the extra patience is 'long'; give seconds"),
        ({"host": "h", "extra": {"patience": 0}}, "give 1 to 86400 seconds"),
        ({"host": "h", "extra": {"tls": True}}, "unknown extra 'tls'; known are allow_plaintext, ca_certificate"),
        ({"host": "h", "extra": {"ca_file": 1}}, "the extra ca_file must be text"),
        ({"host": "h", "extra": {"ca_certificate": CERTIFICATE}}, "has no TLS, and ca_certificate is given"),
        ({"host": "h", "password": "a-token"}, "a token would be sent unencrypted"),
        (
            {"host": "h", "extra": {"use_tls": True, "ca_file": "/x", "ca_certificate": CERTIFICATE}},
            "gives both ca_file and ca_certificate",
        ),
    ],
)
def test_bad_settings_name_the_connection_and_the_field(settings, fields, said):
    with pytest.raises(BadAddress) as raised:
        settings(**fields)
    assert said in str(raised.value)
    assert str(raised.value).startswith("connection 'a_broker': ")
    assert "a-token" not in str(raised.value)


@pytest.mark.parametrize("extra", ["{not json", "[1]", '"grpc://h:1"'])
def test_an_extra_that_is_no_object_is_not_taken_for_nothing(extra):
    connection = SimpleNamespace(host="h", port=None, password=None, extra=extra, extra_dejson={})
    with pytest.raises(BadAddress, match="connection 'c': the extra is "):
        read_settings(connection, "connection 'c'")


@pytest.mark.parametrize("host", ["::1", "[::1]", "2001:db8::1"])
def test_an_address_of_version_6_is_a_host(settings, host):
    assert settings(host=host, port=1).address.url == f"grpc://[{host.strip('[]')}]:1"


def test_the_hook_is_a_way_to_the_client(small_broker):
    with SparkBrokerHook().client() as broker, broker.lease(mode="LOCAL", key="by-hook") as lease:
        assert lease.state == "READY"


async def test_and_to_the_asynchronous_one(small_broker):
    async with await SparkBrokerHook().async_client() as broker:
        assert [queue.name for queue in await broker.queues()] == ["queues/default"]


def test_the_button_says_that_it_works(small_broker):
    works, text = SparkBrokerHook().test_connection()
    assert works, text
    assert "serves you the profiles default and the queues default" in text


def test_the_button_says_unreachable(monkeypatch, airflow_home, tmp_path):
    monkeypatch.setenv(
        "AIRFLOW_CONN_A_BROKER", json.dumps({"conn_type": "sparkbroker", "extra": {"url": f"unix://{tmp_path}/no"}})
    )
    works, text = SparkBrokerHook("a_broker").test_connection()
    assert not works
    assert text.startswith("Unreachable: ")


def test_the_button_says_wrong_settings(monkeypatch, airflow_home):
    monkeypatch.setenv("AIRFLOW_CONN_A_BROKER", json.dumps({"conn_type": "sparkbroker"}))
    assert SparkBrokerHook("a_broker").test_connection()[1].startswith("Wrong settings: connection 'a_broker'")


@pytest.fixture
def guarded(make_broker, state_folder, monkeypatch):
    """``button(**fields)`` of a connection to a broker that knows one token, ``TOKEN``."""
    tokens, port = state_folder / "tokens", free_port()
    digest = hashlib.sha256(TOKEN.encode()).hexdigest()
    tokens.write_text(f'[[token]]\nprincipal = "ann"\nroles = ["user"]\nsha256 = "{digest}"\n')
    tokens.chmod(0o600)
    listen = [f"unix:{state_folder}/b0/s/run/broker.sock", f"tcp://127.0.0.1:{port}"]
    make_broker(server=f'tokens = "{tokens}"\nlisten = {json.dumps(listen)}')

    def button(**fields):
        known = {"conn_type": "sparkbroker", "host": "127.0.0.1", "port": port}
        monkeypatch.setenv("AIRFLOW_CONN_A_BROKER", json.dumps(known | fields))
        return SparkBrokerHook("a_broker").test_connection()

    return button


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


@pytest.mark.timeout(180)
def test_the_button_says_unauthenticated(guarded, tmp_path):
    (tmp_path / "token").write_text("wrong-token-of-nobody")
    assert guarded(password=TOKEN)[0]
    for fields in ({"password": "wrong-token-of-nobody"}, {"extra": {"token_file": str(tmp_path / "token")}}, {}):
        works, text = guarded(**fields)
        assert not works
        assert text.startswith("Unauthenticated: ")
        assert text.endswith("Check the token")
        assert "wrong-token" not in text


def test_the_button_says_version_to_another_grpc_server(monkeypatch, airflow_home):
    from concurrent.futures import ThreadPoolExecutor

    import grpc

    server = grpc.server(ThreadPoolExecutor(1))
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    try:
        monkeypatch.setenv(
            "AIRFLOW_CONN_A_BROKER", json.dumps({"conn_type": "sparkbroker", "host": "127.0.0.1", "port": port})
        )
        works, text = SparkBrokerHook("a_broker").test_connection()
    finally:
        server.stop(0).wait()
    assert not works
    assert text.startswith("Version: this is no broker")


def test_the_token_is_masked(settings, tmp_path):
    """See test_secrets for a real task's log."""
    (tmp_path / "token").write_text("secret-of-a-file")
    settings(host="127.0.0.1", password="secret-of-mine")
    settings(host="127.0.0.1", extra={"token_file": str(tmp_path / "token")})
    assert redact("it is >secret-of-mine< or >secret-of-a-file<") == "it is >***< or >***<"


def test_a_token_file_that_is_not_there_is_named(settings, tmp_path):
    with pytest.raises(BadAddress, match=r"connection 'a_broker': the token file .*/no can't be read: No such file"):
        settings(host="127.0.0.1", extra={"token_file": str(tmp_path / "no")})


@pytest.mark.parametrize("how", ["nothing", "a URI", "JSON"])
def test_a_connection_that_is_not_there_or_not_readable(monkeypatch, airflow_home, how):
    if how != "nothing":
        monkeypatch.setenv("AIRFLOW_CONN_A_BROKER", {"a URI": "sparkbroker://h:port", "JSON": "{"}[how])
    works, text = SparkBrokerHook("a_broker").test_connection()
    assert not works
    assert text


def test_airflow_knows_the_connection_type_and_its_form(airflow_home):
    info = ProvidersManager().providers["sparkbroker"].data
    (kind,) = info["connection-types"]
    assert (kind["connection-type"], kind["hook-name"]) == ("sparkbroker", "Spark broker")
    assert kind["hook-class-name"] == f"{SparkBrokerHook.__module__}.{SparkBrokerHook.__name__}"
    assert get_provider_info()["package-name"] == "sparkbroker"
    assert issubclass(SparkBrokerHook, BaseHook)
    assert {"url", "use_tls", "ca_file", "ca_certificate", "token_file"} <= kind["conn-fields"].keys()
    assert kind["ui-field-behaviour"]["relabeling"] == {"password": "Token"}


def test_no_switch_is_hidden_by_its_name(airflow_home):
    """Airflow's form would show its default as ``***``, which is on, and save that."""
    switches = {name: False for name, field in CONN_FIELDS.items() if "boolean" in field["schema"]["type"]}
    assert redact(switches) == switches


@pytest.mark.skipif(AIRFLOW_3, reason="3 makes the form of the provider's info")
def test_2_11_has_a_form_with_the_same_fields(airflow_home):
    widgets = ProvidersManager().connection_form_widgets
    ours = {widget.field_name for widget in widgets.values() if widget.package_name == "sparkbroker"}
    assert ours == CONN_FIELDS.keys()
    (certificate,) = [each.field for each in widgets.values() if each.field_name == "ca_certificate"]
    assert "TextArea" in type(certificate.kwargs["widget"]).__name__, "a certificate has lines"
    assert ProvidersManager().field_behaviours["sparkbroker"]["relabeling"] == {"password": "Token"}
