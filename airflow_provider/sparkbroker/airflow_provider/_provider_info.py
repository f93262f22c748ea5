"""What Airflow's provider manager reads: data only."""

from typing import Any, Final

from sparkbroker.client import DEFAULT_PATIENCE  # it brings nothing

DEFAULT_PORT: Final = 7077
_PACKAGE: Final = "sparkbroker.airflow_provider"
_TEXT: Final = {"type": ["string", "null"]}
_FLAG: Final = {"type": ["boolean", "null"], "default": False}

UI_FIELD_BEHAVIOUR: Final = {
    "hidden_fields": ["schema", "login"],
    "relabeling": {"password": "Token"},
    "placeholders": {
        "host": "broker.example.com",
        "port": str(DEFAULT_PORT),
        "password": "the token that the broker knows you by",
        "extra": '{"url": "unix:///path/to/broker.sock"}',
    },
}

CONN_FIELDS: Final[dict[str, dict[str, Any]]] = {
    "url": {
        "label": "URL",
        "description": "unix:///path/to/socket, grpc://host:port or grpcs://host:port; instead of host and port",
        "schema": _TEXT,
    },
    "use_tls": {"label": "Use TLS", "description": "For host and port; a URL says it by itself", "schema": _FLAG},
    "ca_file": {
        "label": "CA file",
        "description": "PEM file with the certificates to trust, on the workers and the triggerer",
        "schema": _TEXT,
    },
    "ca_certificate": {
        "label": "CA certificate",
        "description": "The certificates to trust themselves, PEM",
        "schema": {"type": ["string", "null"], "format": "multiline"},
    },
    "token_file": {
        "label": "Token file",
        "description": "File with the token, on the workers and the triggerer; read anew for each call",
        "schema": _TEXT,
    },
    # No name with "token" in it: Airflow hides such a field's value, its default too, and its form would send that back.
    "allow_plaintext": {
        "label": "Send the token without TLS",
        "description": "For a network that encrypts by itself",
        "schema": _FLAG,
    },
    "patience": {
        "label": "Patience",
        "description": f"Seconds for which a broker that doesn't answer is tried again; {DEFAULT_PATIENCE:g} if empty",
        "schema": {"type": ["number", "null"], "minimum": 1},
    },
    "lease_url": {
        "label": "Link to a lease",
        "description": "Template with {lease}, such as https://spark.example.com/ui/leases/{lease}",
        "schema": _TEXT,
    },
    "spark_ui_url": {
        "label": "Link to the Spark UI",
        "description": "Template with {lease} and {ui}, for a proxy or the history server; if empty, the driver's own",
        "schema": _TEXT,
    },
}


def describe(version: str) -> dict[str, Any]:
    """The provider info of this version."""
    behaviour = UI_FIELD_BEHAVIOUR
    return {
        "package-name": "sparkbroker",
        "name": "sparkbroker",
        "description": "Leases real Spark sessions: driver and executor capacity on demand",
        "versions": [version],
        "connection-types": [
            {
                "connection-type": "sparkbroker",
                "hook-class-name": f"{_PACKAGE}.hooks.broker.SparkBrokerHook",
                "hook-name": "Spark broker",
                "ui-field-behaviour": {
                    "hidden-fields": behaviour["hidden_fields"],
                    "relabeling": behaviour["relabeling"],
                    "placeholders": behaviour["placeholders"],
                },
                "conn-fields": CONN_FIELDS,
            }
        ],
        "task-decorators": [
            {"name": "spark_session", "class-name": f"{_PACKAGE}.decorators.session.spark_session_task"},
            {"name": "pyspark_on_k8s", "class-name": f"{_PACKAGE}.compat.decorators.pyspark_on_k8s_task"},
        ],
        "extra-links": [f"{_PACKAGE}.links.LeaseLink", f"{_PACKAGE}.links.SparkUiLink"],
    }
