"""A module beside a DAG that can't be imported where Airflow isn't."""

from airflow.models import Variable

FACTOR = 7


def sevenfold(x: int) -> int:
    return x * FACTOR


def from_a_variable() -> str:
    return str(Variable.get("x"))  # noqa: AIR311  in both versions
