"""The buttons on a task: its lease, and its Spark UI or history server.

Airflow 3 shows what is in the task's XCom under the link's key, and 2.11 asks the link, which looks there. The operator
pushes it as soon as it is known, so that the button works while the task runs.
"""

from typing import Any

from sparkbroker.airflow_provider._compat import BaseOperatorLink, link_from_xcom


class _PushedLink(BaseOperatorLink):
    @property
    def xcom_key(self) -> str:
        """Where the URL is."""
        return f"_link_{type(self).__name__}"

    def get_link(self, operator: Any, *, ti_key: Any) -> str:
        """The URL; empty: there is none (yet)."""
        pushed = getattr(operator, "pushed_links", None) or {}
        return pushed.get(self.xcom_key) or link_from_xcom(ti_key, self.xcom_key)


class LeaseLink(_PushedLink):
    """To the lease, by the connection's ``lease_url``."""

    name = "Spark lease"


class SparkUiLink(_PushedLink):
    """To the Spark UI, by the connection's ``spark_ui_url`` or straight to the driver."""

    name = "Spark UI"


def lease_url(template: str, lease: str) -> str:
    """The connection's template filled in; ``{lease}`` is the lease's id. Empty: there is no template."""
    return template.replace("{lease}", lease.removeprefix("leases/"))


def spark_ui_url(template: str, lease: str, ui: str) -> str:
    """Likewise; ``{ui}`` is the driver's own address, which it also is without a template."""
    if template:
        return template.replace("{lease}", lease.removeprefix("leases/")).replace("{ui}", ui)
    return ui if not ui or "://" in ui else f"http://{ui}"
