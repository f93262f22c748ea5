"""Everything that differs between the versions of Airflow, and nothing else: 2.11 and 3.

Written for 3; what 2.11 lacks is made up for here. Names are imported from where the version at hand wants them, so that
neither warns.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from airflow.triggers.base import BaseTrigger, StartTriggerArgs, TriggerEvent

try:
    import airflow.sdk  # noqa: F401  only whether it is there

    AIRFLOW_3: Final = True
except ImportError:
    AIRFLOW_3 = False  # type: ignore[misc]

if AIRFLOW_3 or TYPE_CHECKING:
    from airflow.sdk import (
        DAG,
        BaseHook,
        BaseOperator,
        BaseOperatorLink,
        XComArg,
        get_current_context,
        setup,
        task,
        teardown,
    )
    from airflow.sdk.bases.decorator import (
        DecoratedOperator,
        TaskDecorator,
        determine_kwargs,
        task_decorator_factory,
    )
    from airflow.sdk.configuration import conf
    from airflow.sdk.definitions.context import context_merge
    from airflow.sdk.exceptions import (
        AirflowException,
        AirflowFailException,
        AirflowNotFoundException,
        AirflowSkipException,
        AirflowTaskTimeout,
    )
    from airflow.sdk.execution_time.xcom import XCom
    from airflow.sdk.log import mask_secret
else:
    from airflow.configuration import conf
    from airflow.decorators import setup, task, teardown
    from airflow.decorators.base import DecoratedOperator, TaskDecorator, task_decorator_factory
    from airflow.exceptions import (
        AirflowException,
        AirflowFailException,
        AirflowNotFoundException,
        AirflowSkipException,
        AirflowTaskTimeout,
    )
    from airflow.hooks.base import BaseHook
    from airflow.models import DAG, BaseOperator, XCom
    from airflow.models.baseoperatorlink import BaseOperatorLink
    from airflow.models.xcom_arg import XComArg
    from airflow.operators.python import get_current_context
    from airflow.utils.context import context_merge
    from airflow.utils.log.secrets_masker import mask_secret
    from airflow.utils.operator_helpers import determine_kwargs

try:
    from airflow.providers.standard.operators.python import PythonOperator
except ImportError:
    from airflow.operators.python import PythonOperator

__all__ = [
    "AIRFLOW_3",
    "DAG",
    "KILL_BY_RAISING",
    "START_FROM_TRIGGER",
    "AirflowException",
    "AirflowFailException",
    "AirflowNotFoundException",
    "AirflowSkipException",
    "AirflowTaskTimeout",
    "BaseHook",
    "BaseOperator",
    "BaseOperatorLink",
    "BaseTrigger",
    "DecoratedOperator",
    "PythonOperator",
    "StartTriggerArgs",
    "TaskDecorator",
    "TriggerEvent",
    "XCom",
    "XComArg",
    "aget_connection",
    "code_folders",
    "conf",
    "context_merge",
    "current_context",
    "default_deferrable",
    "determine_kwargs",
    "link_from_xcom",
    "mask_secret",
    "note_assets",
    "setup",
    "task",
    "task_decorator_factory",
    "teardown",
]

KILL_BY_RAISING: Final = AIRFLOW_3
"""Whether ``on_kill`` has to raise for the task's code to stop. 2.11 raises by itself, after ``on_kill``."""

START_FROM_TRIGGER: Final = hasattr(BaseTrigger, "render_template_fields")
"""Whether a task can begin in the triggerer with templated arguments."""


async def aget_connection(conn_id: str) -> Any:
    """The connection, for use in an event loop. Raise AirflowNotFoundException."""
    if hasattr(BaseHook, "aget_connection"):  # 3.1
        return await BaseHook.aget_connection(conn_id)
    from asgiref.sync import sync_to_async  # type: ignore[import-not-found]  # noqa: PLC0415  Airflow brings it; new versions don't need it

    return await sync_to_async(BaseHook.get_connection)(conn_id)


def default_deferrable() -> bool:
    """Whether operators are to defer where the DAG doesn't say."""
    return bool(conf.getboolean("operators", "default_deferrable", fallback=False))


def code_folders(file: str, ti: Any) -> Sequence[str]:
    """The folders from which the DAG of this file may import modules of its own; ``ti`` may be None."""
    archive, mark, _ = file.partition(".zip/")
    bundle = getattr(getattr(ti, "bundle_instance", None), "path", None)
    found = (
        archive + mark.removesuffix("/") if mark else Path(file).parent,
        bundle,
        conf.get("core", "dags_folder", fallback=None),
        conf.get("core", "plugins_folder", fallback=None),
    )
    return [str(folder) for folder in dict.fromkeys(found) if folder]


def current_context() -> Any:
    """The context of the task that this process runs; None: it runs none."""
    try:
        return get_current_context()  # noqa: AIR301  in 3 it is the SDK's
    except (AirflowException, RuntimeError):
        return None


def note_assets(operator: Any, value: Any, context: Any) -> Any:
    """The value, after what Airflow does with a decorated function's result: its assets become outlets."""
    more = {} if AIRFLOW_3 else {"context": context, "xcom_push": operator.xcom_push}
    return operator._handle_output(return_value=value, **more)  # noqa: SLF001  it has no other name


def link_from_xcom(ti_key: Any, xcom_key: str) -> str:
    """The link that the task has pushed; empty: none. For 2.11's webserver: in 3, Airflow reads it by itself."""
    if AIRFLOW_3:
        return ""
    return XCom.get_value(ti_key=ti_key, key=xcom_key) or ""
