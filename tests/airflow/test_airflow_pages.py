"""The Python in the Airflow pages is what it says: a DAG, or tasks that fit into one."""

import re
from pathlib import Path

import pytest

from sparkbroker.airflow_provider._compat import AIRFLOW_3

DOCS = Path(__file__).parents[2] / "docs"
FENCE = re.compile(r"^```python\n(.*?)^```", re.MULTILINE | re.DOTALL)
PAGES = ("tutorial/airflow.md", "how-to/airflow-*.md", "how-to/from-*.md", "reference/airflow.md")

pytestmark = pytest.mark.skipif(not AIRFLOW_3, reason="the pages are written for Airflow 3")


def snippets():
    for page in sorted(path for pattern in PAGES for path in DOCS.glob(pattern)):
        for number, text in enumerate(FENCE.findall(page.read_text()), 1):
            yield pytest.param(text, id=f"{page.stem}-{number}")


@pytest.mark.parametrize("text", list(snippets()))
def test_a_snippet_is_taken_where_a_dag_is_parsed(text, airflow_home):
    from airflow.sdk import DAG

    code = compile(text, "snippet", "exec")
    if "__main__" in text:  # the end of a file that another snippet begins
        return
    with DAG("snippet", schedule=None):
        exec(code, {"__name__": "snippet"})
