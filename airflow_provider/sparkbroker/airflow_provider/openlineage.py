"""The task as the parent of what its Spark session does, for OpenLineage's listener in the driver.

Only where Airflow's OpenLineage provider is installed; its own words for the properties are taken.
"""

import logging
from importlib.util import find_spec
from typing import Any

log = logging.getLogger(__name__)


def parent_conf(context: Any) -> dict[str, str]:
    """``spark.openlineage.parent*`` for this task; empty where there is no OpenLineage, and, with a warning, where it fails."""
    if find_spec("airflow.providers.openlineage") is None:
        return {}
    try:
        from airflow.providers.openlineage.utils.spark import (  # noqa: PLC0415  it may not be there
            inject_parent_job_information_into_spark_properties,
        )

        properties: dict[str, Any] = inject_parent_job_information_into_spark_properties({}, context)
    except Exception as error:  # noqa: BLE001  a half-installed or misled provider of lineage is no reason to fail a task
        log.warning("The Spark session isn't told its OpenLineage parent: %s: %s", type(error).__name__, error)
        return {}
    return {key: str(value) for key, value in properties.items()}
