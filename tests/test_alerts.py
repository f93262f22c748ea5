"""The alerts: one for each limit, of metrics that there are, and a row for each limit in the page on security."""

import asyncio
import re
from pathlib import Path
from typing import get_args

import pytest
import yaml  # type: ignore[import-untyped]

from sparkbroker.broker.adapters.prometheus_metrics import PrometheusMetrics
from sparkbroker.broker.ports.metrics import Limit

ROOT = Path(__file__).parents[1]
LIMITS = set(get_args(Limit))


@pytest.fixture(scope="module")
def rules():
    groups = yaml.safe_load((ROOT / "chart/files/alerts.yaml").read_text())["groups"]
    return [rule for group in groups for rule in group["rules"]]


def test_each_limit_has_one_alert(rules):
    named = [limit for rule in rules for limit in re.findall(r'limit="(\w+)"', rule["expr"])]
    assert sorted(named) == sorted(LIMITS)
    assert len({rule["alert"] for rule in rules}) == len(rules)


def test_each_alert_says_what_it_is_and_what_to_do(rules):
    for rule in rules:
        assert set(rule["annotations"]) == {"summary", "description"}, rule["alert"]
        assert rule["labels"]["severity"] in {"warning", "critical"}


def test_alerts_are_about_metrics_that_there_are(rules):
    async def shown() -> set[str]:
        metrics = PrometheusMetrics()
        metrics.observe_leases(dict, asyncio.get_running_loop())
        families = await asyncio.to_thread(lambda: list(metrics.collect()))
        return {name for family in families for name in (family.name, f"{family.name}_total")}

    there = asyncio.run(shown())
    for rule in rules:
        for name in re.findall(r"sparkbroker_\w+", rule["expr"]):
            assert name in there, rule["alert"]


def test_each_limit_has_a_row_in_the_page_on_security():
    page = (ROOT / "docs/explanation/security.md").read_text()
    rows = re.findall(r"^\|.*\| `(\w+_\w+|connections|disk)` \|$", page, re.MULTILINE)
    assert sorted(rows) == sorted(LIMITS)
