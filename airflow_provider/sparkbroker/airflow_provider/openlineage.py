"""The task as the parent of what its Spark session does, for OpenLineage's listener in the driver.

Only where Airflow's OpenLineage provider is installed; its own words for the properties are taken.
"""

from importlib.util import find_spec
from typing import Any


def parent_conf(context: Any) -> dict[str, str]:
    """``spark.openlineage.parent*`` for this task; empty where there is no OpenLineage."""
    if find_spec("airflow.providers.openlineage") is None:
        return {}
    from airflow.providers.openlineage.utils.spark import (  # noqa: PLC0415  it may not be there
        inject_parent_job_information_into_spark_properties,
    )

    properties: dict[str, Any] = inject_parent_job_information_into_spark_properties({}, context)
    return {key: str(value) for key, value in properties.items()}
