"""The page of Spark's properties agrees with Spark's own list of them, and with the broker."""

import importlib.util
import re
import zipfile
from pathlib import Path

import msgspec
import pytest

from sparkbroker.broker.domain.pods.settings import PodSettings

DOCS = Path(__file__).parents[1] / "docs"
SPARK = importlib.util.find_spec("pyspark")


@pytest.fixture(scope="module")
def generate_spark():
    spec = importlib.util.spec_from_file_location("docs_generate_spark", DOCS / "generate_spark.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def properties(need):
    """Every property that Spark on Kubernetes has, by the constants of its class."""
    jars = sorted(Path(SPARK.origin).parent.glob("jars/spark-kubernetes_*.jar")) if SPARK and SPARK.origin else []
    need(jars, "pyspark with its jars")
    with zipfile.ZipFile(jars[0]) as jar:
        content = jar.read("org/apache/spark/deploy/k8s/Config$.class")
    found = {match.decode() for match in re.findall(rb"spark\.kubernetes\.[A-Za-z0-9._]+", content)}
    assert len(found) > 100
    return found


def test_each_property_has_its_row_and_each_row_a_property(generate_spark, properties):
    names = {name + "it" if name.endswith(".") else name for name in properties}
    rows = {name: generate_spark.row_of(name) for name in names}
    assert [name for name, row in rows.items() if row is None] == []
    assert [row for row in generate_spark.KUBERNETES if row not in rows.values()] == []


def test_what_is_named_as_a_setting_is_one(generate_spark):
    settings = {field.name for field in msgspec.structs.fields(PodSettings)}
    words = {name for row in generate_spark.KUBERNETES for name in re.findall(r"`([a-z]+(?:_[a-z]+)+)`", row[2])}
    assert words
    assert words <= settings


def test_what_is_overwritten_is_what_the_broker_sets(generate_spark):
    """And what it sets of Spark on Kubernetes is in no row that says something else."""
    given = {name for name in generate_spark.set_by_the_broker() if name.startswith("spark.kubernetes.")}
    from sparkbroker.broker.adapters.kubernetes_provisioner import _conf

    told = {generate_spark.row_of(name)[1] for name in given - set(_conf.defaults(PodSettings()))}
    assert told == {generate_spark.OVERWRITTEN, generate_spark.MAPPED}


def test_the_page_has_them_all(generate_spark):
    page = generate_spark.page()
    for heading in ("## Of a holder", "## Of a profile", "## Spark on Kubernetes"):
        assert heading in page
    assert "`spark.executor.memory`" in page
    assert "`spark.kubernetes.executor.podNamePrefix`" in page
