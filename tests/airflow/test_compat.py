"""The predecessor's arguments: each is in the table, has an effect or a warning, and none of its defects is back."""

import json
import subprocess
import warnings
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sparkbroker.airflow_provider.compat import (
    CPU,
    Memory,
    Sentinel,
    SparkBaseConf,
    SparkDeployMode,
    SparkDriverConf,
    SparkExecutorConf,
    operators,
)
from sparkbroker.airflow_provider.compat.arguments import ARGUMENTS, BY_NAME
from sparkbroker.airflow_provider.compat.mapping import lease_arguments, memory_text
from sparkbroker.airflow_provider.compat.pods import plain
from sparkbroker.airflow_provider.compat.resources import JvmUnit, K8sUnit
from sparkbroker.airflow_provider.request import ask

BROKER_PYTHON = Path(__file__).parents[2] / ".venv" / "bin" / "python"
CONNECT = SparkBaseConf(deploy_mode=SparkDeployMode.CONNECT)


def mapped(base=CONNECT, driver=None, executors=None, **extra):
    return lease_arguments(base, driver or SparkDriverConf(), executors or SparkExecutorConf(), extra)


SAMPLES = {
    "SparkBaseConf.deploy_mode": SparkDeployMode.LOCAL,
    "SparkBaseConf.spark_url": "sc://there:15002",
    "SparkBaseConf.kubernetes_namespace": "spark",
    "SparkBaseConf.kubernetes_ca_cert_file": "/ca.crt",
    "SparkBaseConf.kubernetes_oauth_token_file": "/token",
    "SparkBaseConf.image_pull_policy": "Always",
    "SparkBaseConf.image_pull_secrets": "one,two",
    "SparkBaseConf.shuffle_file_buffer": Memory.mebibytes(2),
    "SparkBaseConf.jars": ["g:a:1"],
    "cores": CPU.cores(3),
    "request_cores": "2500m",
    "memory": "3Gi",
    "memory_overhead": "1Gi",
    "memory_overhead_factor": 0.5,
    "image": "registry.example.com/spark:4",
    "container_name": "main",
    "service_account_name": "etl",
    "aws_role_arn": "arn:aws:iam::1:role/r",
    "extra_java_options": "-Da=b",
    "extra_class_path": "/x/*",
    "extra_library_path": "/lib",
    "tolerations": [{"key": "spark"}],
    "node_selector": {"disk": "fast"},
    "node_affinity": {"a": "b"},
    "pod_affinity": {"a": "b"},
    "pod_anti_affinity": {"a": "b"},
    "containers": [{"name": "x"}],
    "volumes": [{"name": "v"}],
    "volume_mounts": [{"name": "v", "mountPath": "/v"}],
    "environment_variables": [{"name": "A", "value": "b"}],
    "pod_labels": {"team": "x"},
    "pod_annotations": {"note": "x"},
    "SparkDriverConf.pod_name": "mine",
    "SparkDriverConf.host": "192.0.2.1",
    "SparkExecutorConf.instances": 5,
    "SparkExecutorConf.dynamic_allocation_enabled": True,
    "SparkExecutorConf.dynamic_allocation_min_executors": 2,
    "SparkExecutorConf.dynamic_allocation_max_executors": 7,
}
CLASSES = {"SparkBaseConf": SparkBaseConf, "SparkDriverConf": SparkDriverConf, "SparkExecutorConf": SparkExecutorConf}
OLD = [f"{name}.{item.name}" for name, kind in CLASSES.items() for item in fields(kind)]


def test_the_table_has_each_argument_once():
    of_confs = [argument.old for argument in ARGUMENTS if not argument.old.startswith("PySparkOnK8sOperator.")]
    assert sorted(of_confs) == sorted(OLD)
    assert all(argument.new or argument.note for argument in ARGUMENTS)


@pytest.mark.parametrize(
    ("given", "count"),
    [({}, [0, 2]), ({"dynamic_allocation_max_executors": "infinity", "instances": 4}, [0, 4]),
     ({"dynamic_allocation_min_executors": 3}, [3, 3])],
)  # fmt: skip
def test_executors_without_a_bound_get_one_and_it_is_told(given, count):
    found = mapped(executors=SparkExecutorConf(dynamic_allocation_enabled=True, cores=1, memory="1g", **given))
    assert found.arguments["executors"] == count
    (sentence,) = found.warnings
    assert f"a lease has a bound; it is {count[1]} now" in sentence
    ask(found.arguments)


@pytest.mark.parametrize("name", ["instances", "dynamic_allocation_min_executors"])
def test_a_number_of_executors_that_is_none_is_named(name):
    with pytest.raises(ValueError, match=f"SparkExecutorConf.{name}: invalid literal"):
        mapped(executors=replace(SparkExecutorConf(dynamic_allocation_enabled=True, cores=1), **{name: "some"}))  # type: ignore[arg-type]


def test_a_factor_of_the_overhead_in_the_conf_is_the_arguments():
    driver, executors = SparkDriverConf(memory="8g"), SparkExecutorConf(instances=1, memory="8g")
    factors = {f"spark.{of}.memoryOverheadFactor": 0.5 for of in ("driver", "executor")}
    found = lease_arguments(CONNECT, driver, executors, factors)
    assert not found.warnings
    assert found.arguments["memory_overhead"] == found.arguments["executor_memory_overhead"] == "4096m"
    assert "conf" not in found.arguments or not found.arguments["conf"]


def test_a_factor_in_the_conf_is_of_the_memory_in_the_conf():
    extra = {"spark.executor.memory": "4g", "spark.executor.memoryOverheadFactor": "0.5"}
    found = lease_arguments(CONNECT, SparkDriverConf(), SparkExecutorConf(instances=1, memory="1g"), extra)
    assert memory_text(found.arguments["executor_memory"]) == memory_text("4g")
    assert found.arguments["executor_memory_overhead"] == "2048m"


def test_a_dictionary_for_a_configuration_is_named():
    with pytest.raises(TypeError, match=r"spark_driver_conf: \{'memory': '1g'\} is no SparkDriverConf; give one"):
        lease_arguments(CONNECT, {"memory": "1g"}, SparkExecutorConf(), {})  # type: ignore[arg-type]


@pytest.mark.parametrize("name", OLD)
def test_each_argument_has_the_effect_that_the_table_says_or_warns(name):
    of, argument = name.split(".")
    value = SAMPLES.get(name, SAMPLES.get(argument))
    base = CONNECT
    given: dict[str, Any] = {argument: value}
    if argument.startswith("dynamic_allocation"):
        given = {"dynamic_allocation_enabled": True, "dynamic_allocation_max_executors": 9, **given}
    if of == "SparkBaseConf":
        base = SparkBaseConf(**{"deploy_mode": SparkDeployMode.CONNECT, **given})
        found = mapped(base)
    elif of == "SparkDriverConf":
        found = mapped(driver=SparkDriverConf(**given))
    else:
        found = mapped(executors=SparkExecutorConf(**given))
    known = BY_NAME[name]
    if known.meaningless:
        assert [sentence for sentence in found.warnings if name in sentence and known.note in sentence]
        assert found.arguments == mapped().arguments
    else:
        assert found.arguments.get(known.new) != mapped().arguments.get(known.new)
        assert not found.warnings
        ask(found.arguments)


def test_the_sizes_are_as_they_were():
    found = mapped(SparkBaseConf())
    assert found.arguments == {
        "mode": "CLIENT",
        "cores": 1,
        "memory": "1024m",
        "executors": 1,
        "executor_cores": 1,
        "executor_memory": "1024m",
    }
    assert found.warnings == []
    assert mapped(SparkBaseConf(deploy_mode="local")).arguments == {"mode": "LOCAL", "cores": 1, "memory": "1024m"}


def test_overhead_is_by_the_rule_of_spark():
    small = mapped(driver=SparkDriverConf(memory="1Gi", memory_overhead_factor=0.1))
    large = mapped(driver=SparkDriverConf(memory="10Gi", memory_overhead_factor=0.1))
    both = mapped(driver=SparkDriverConf(memory_overhead="2Gi", memory_overhead_factor=0.1))
    assert (small.arguments["memory"], small.arguments["memory_overhead"]) == ("1024m", "384m")
    assert large.arguments["memory_overhead"] == "1024m"
    assert both.arguments["memory_overhead"] == "2048m"
    with pytest.raises(ValueError, match=r"SparkDriverConf\.memory_overhead_factor: needs a memory that is known"):
        mapped(driver=SparkDriverConf(memory="{{ params.memory }}", memory_overhead_factor=0.1))


def test_pod_settings_of_driver_and_executors_are_merged_and_kept_apart():
    found = mapped(
        driver=SparkDriverConf(image="both", pod_labels={"a": "b"}),
        executors=SparkExecutorConf(image="both", pod_labels={"a": "c"}, service_account_name=Sentinel.AUTODETECT),
    )
    assert found.arguments["pod"] == {
        "image": "both",
        "driver_template": {"metadata": {"labels": {"a": "b"}}},
        "executor_template": {"metadata": {"labels": {"a": "c"}}},
    }


def test_every_pod_setting_is_one_that_the_broker_knows():
    """Agreeing and not: a broker's own reader is asked."""
    secret = {"name": "S", "valueFrom": {"secretKeyRef": {"name": "s", "key": "k"}}}
    settings: dict[str, Any] = {
        "pod_labels": {"a": "b"},
        "pod_annotations": {"c": "d"},
        "aws_role_arn": "arn:aws:iam::1:role/r",
        "tolerations": [{"key": "spark", "operator": "Exists"}],
        "node_selector": {"disk": "ssd"},
        "node_affinity": {"preferredDuringSchedulingIgnoredDuringExecution": []},
        "volumes": [{"name": "v", "emptyDir": {}}],
        "volume_mounts": [{"name": "v", "mountPath": "/v"}],
        "environment_variables": [{"name": "A", "value": "1"}, secret],
        "image": "both:1",
        "service_account_name": "robot",
    }
    agreed = mapped(driver=SparkDriverConf(**settings), executors=SparkExecutorConf(**settings)).arguments["pod"]
    assert agreed["env"] == {"A": "1", "S": secret["valueFrom"]}
    assert agreed["executor_service_account"] == "robot"
    assert not {"driver_template", "executor_template"} & agreed.keys()
    apart = mapped(driver=SparkDriverConf(**settings), executors=SparkExecutorConf()).arguments["pod"]
    assert apart["driver_template"]["spec"]["containers"][0] == {
        "name": "spark-kubernetes-driver",
        "env": settings["environment_variables"],
        "volumeMounts": settings["volume_mounts"],
    }
    assert "executor_template" not in apart
    for pod in (agreed, apart):
        program = (
            "import json, sys\nfrom sparkbroker.broker.domain.pods.settings import parse_pod\n"
            "parse_pod(json.load(sys.stdin), 'pod')"
        )
        command = [str(BROKER_PYTHON), "-c", program]
        read = subprocess.run(command, input=json.dumps(pod), text=True, capture_output=True, check=False)
        assert read.returncode == 0, read.stderr


def test_two_images_are_not_kept_apart():
    found = mapped(driver=SparkDriverConf(image="one"), executors=SparkExecutorConf(image="other"))
    assert found.arguments["pod"] == {"image": "one"}
    assert any("SparkExecutorConf.image has no effect here" in sentence for sentence in found.warnings)


def test_pod_settings_without_pods_warn():
    found = mapped(SparkBaseConf(deploy_mode="local"), SparkDriverConf(image="mine"))
    assert "pod" not in found.arguments
    assert "the settings of pods (image) has no effect" in found.warnings[0]
    assert "executor_config" in found.warnings[0]


def test_extra_conf_wins_and_none_deletes():
    extra = {
        "spark.executor.memory": "3g",
        "spark.driver.cores": None,
        "spark.driver.extraJavaOptions": "-Dx=y",
        "spark.sql.ansi.enabled": None,
        "spark.kubernetes.namespace": "n",
        "spark.kubernetes.executor.podTemplateFile": None,
        "spark.dynamicAllocation.enabled": "true",
        "spark.dynamicAllocation.maxExecutors": "6",
    }
    found = mapped(CONNECT, SparkDriverConf(extra_java_options="-Da=b"), None, **extra)
    assert found.arguments["executor_memory"] == "3g"
    assert "cores" not in found.arguments
    assert found.arguments["conf"] == {"spark.driver.extraJavaOptions": "-Dx=y", "spark.sql.ansi.enabled": None}
    assert ask(found.arguments)["executors"] == [0, 6]
    assert [sentence.split(" ")[0] for sentence in found.warnings] == ["spark_extra_conf['spark.kubernetes.namespace']"]


def test_what_is_known_late_is_left_to_the_task():
    found = mapped(
        driver=SparkDriverConf(memory="{{ params.memory }}", cores="{{ params.cores }}"),
        executors=SparkExecutorConf(instances="{{ params.n }}", memory="{{ params.memory }}"),
    )
    assert found.arguments["memory"] == "{{ params.memory }}"
    rendered = found.arguments | {"memory": "2Gi", "executor_memory": "512Mi", "cores": "2", "executors": "3"}
    assert ask(rendered) | {"mode": "CONNECT"} == {
        "mode": "CONNECT",
        "cores": 2,
        "memory": "2g",
        "executors": 3,
        "executor_cores": 1,
        "executor_memory": "512m",
    }


class Selector:
    """In the shape of the Kubernetes client's models."""

    attribute_map = {"secret_key_ref": "secretKeyRef", "field_ref": "fieldRef"}
    secret_key_ref = {"name": "s", "key": "k"}
    field_ref = None


def test_objects_of_the_kubernetes_client_are_written_as_its_api_has_them():
    assert plain([Selector(), {"a": (1,)}]) == [{"secretKeyRef": {"name": "s", "key": "k"}}, {"a": [1]}]


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: mapped(SparkBaseConf(deploy_mode="cluster")), r"SparkBaseConf\.deploy_mode: 'cluster' is unknown"),
        (lambda: mapped(driver=SparkDriverConf(memory="much")), r"SparkDriverConf\.memory: .*write one such as '2g'"),
        (lambda: mapped(executors=SparkExecutorConf(cores="x")), r"SparkExecutorConf\.cores: .*no amount of CPU"),
        (lambda: CPU(0), "m_cores: 0 is out of range"),
        (lambda: Memory(-1), "value: -1 is less than a byte"),
        (lambda: Memory.from_jvm_spec("1Gi"), "no amount of memory"),
    ],
)
def test_bad_values_name_the_argument(make, message):
    with pytest.raises(ValueError, match=message):
        make()


@given(st.integers(1, 2**50))
def test_memory_survives_every_notation(size):
    memory = Memory(size)
    assert Memory.from_k8s_spec(str(memory)) == memory
    assert Memory.from_k8s_spec(memory.to_k8s_spec(None)).size_in_bytes == size
    assert Memory.deserialize(memory.serialize(), 1) == memory
    text = memory_text(memory)
    assert text == f"{size}b" or Memory.from_jvm_spec(text) == memory


def test_amounts_can_be_added_multiplied_and_compared():
    assert CPU.from_k8s_spec("500m") + CPU.cores(1.5) == CPU.milli_cores(2000)
    assert (CPU.cores(1) * 2.5).to_jvm_spec() == "2"
    assert str(CPU.from_jvm_spec("2")) == "2000m"
    assert Memory.gibibytes(1) + Memory.mebibytes(1) > Memory.gigabytes(1) * 1
    assert (Memory(1, K8sUnit.Gi).to_jvm_spec(), Memory(2, JvmUnit.g).to_k8s_spec()) == ("1024m", "2048Mi")


def test_the_operator_warns_once_and_takes_a_leases_own_arguments():
    def work(x, spark):
        return x

    conf = SparkBaseConf(spark_url="sc://elsewhere:1")
    with pytest.warns(operators.NoEffectWarning, match="spark_url has no effect here.*conn_id"):
        first = operators.PySparkOnK8sOperator(task_id="a", python_callable=work, spark_base_conf=conf)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        second = operators.PySparkOnK8sOperator(
            task_id="b", python_callable=work, spark_base_conf=conf, profile="big", cores=4, mode="CONNECT"
        )
    assert (first.mode, first.cores, first.executors) == ("CLIENT", 1, 1)
    assert (second.mode, second.cores, second.profile) == ("CONNECT", 4, "big")
    with pytest.raises(TypeError, match="spark_extra_conf: 'x' is not a mapping"):
        operators.PySparkOnK8sOperator(task_id="c", python_callable=work, spark_extra_conf="x")  # type: ignore[arg-type]
