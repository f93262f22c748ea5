"""Mode CLIENT: what the worker's pod is given when the DAG is parsed, and what is refused, when and in which words."""

import copy
import json
from typing import Any

import pytest
from airflow.providers.cncf.kubernetes.pod_generator import PodGenerator
from kubernetes.client import models as k8s

from sparkbroker.airflow_provider import client_mode, failures
from sparkbroker.airflow_provider._compat import DAG, task
from sparkbroker.airflow_provider.compat import SparkDriverConf, SparkExecutorConf
from sparkbroker.airflow_provider.compat.operators import PySparkOnK8sOperator
from sparkbroker.airflow_provider.operators.lease import AcquireLeaseOperator, spark_lease
from sparkbroker.airflow_provider.operators.script import SparkScriptOperator
from sparkbroker.airflow_provider.operators.session import SparkSessionOperator
from sparkbroker.airflow_provider.operators.sql import SparkSqlOperator
from sparkbroker.airflow_provider.request import InvalidArgument
from sparkbroker.client import InvalidRequest
from sparkbroker.client.own_pod import VARIABLES

try:
    from airflow.sdk import TaskGroup
except ImportError:
    from airflow.utils.task_group import TaskGroup

SIZE: dict[str, Any] = {"mode": "CLIENT", "cores": 2, "memory": "2g", "memory_overhead": "1g"}
OWN = {"requests": {"memory": "3072Mi", "cpu": "2"}, "limits": {"memory": "3072Mi"}}


def compute(spark): ...


def pod_of(operator):
    """As the API writes it."""
    return PodGenerator.serialize_pod(operator.executor_config["pod_override"])


def worker_of(operator):
    return pod_of(operator)["spec"]["containers"][0]


def session(**given):
    return SparkSessionOperator(task_id="t", python_callable=compute, **given)


def test_the_worker_has_the_drivers_size_and_knows_itself():
    worker = worker_of(session(**SIZE))
    assert worker["name"] == "base"
    assert worker["resources"] == OWN
    paths = {item["name"]: item["valueFrom"]["fieldRef"]["fieldPath"] for item in worker["env"]}
    assert paths == {name: f"metadata.{part}" for part, name in VARIABLES.items()}


@pytest.mark.parametrize("mode", ["CONNECT", "LOCAL", None, "{{ params.mode }}"])
def test_other_modes_leave_the_workers_pod_alone(mode):
    given = {"pod_override": k8s.V1Pod()}
    assert session(mode=mode, memory="2g", executor_config=given).executor_config == given
    assert not session(mode=mode, memory="2g").executor_config


def test_a_heap_alone_is_given_what_spark_and_airflow_need_beside_it():
    small = session(mode="client", cores=1, memory="1Gi")
    large = session(mode="CLIENT", memory="10g")
    assert worker_of(small)["resources"]["limits"] == {"memory": f"{1024 + 384 + 512}Mi"}
    assert worker_of(large)["resources"]["requests"] == {"memory": f"{10240 + 1024 + 512}Mi"}
    assert client_mode.with_overhead({"memory": "1g"})["memory_overhead"] == "896m"
    assert client_mode.with_overhead({"memory": "1g", "memory_overhead": "2g"})["memory_overhead"] == "2g"


@pytest.mark.parametrize(
    "sizes", [{}, {"cores": 2}, {"memory": "{{ params.memory }}"}, {"memory": "2g", "memory_overhead": "{{ ds }}"},
              {"memory": "much"}]
)  # fmt: skip
def test_sizes_that_arent_literal_leave_the_workers_to_airflow(sizes):
    worker = worker_of(session(mode="CLIENT", **sizes))
    assert "resources" not in worker
    assert len(worker["env"]) == 3


def test_cpu_is_the_pod_settings_where_they_say_it():
    settings = {"driver_cpu_request": "300m", "driver_cpu_limit": "2"}
    resources = worker_of(session(**SIZE, pod=settings))["resources"]
    assert resources == {"requests": {"memory": "3072Mi", "cpu": "300m"}, "limits": {"memory": "3072Mi", "cpu": "2"}}
    assert "cpu" not in worker_of(session(mode="CLIENT", memory="2g"))["resources"]["requests"]
    assert (
        "cpu" not in worker_of(session(mode="CLIENT", memory="2g", cores="{{ params.cores }}"))["resources"]["requests"]
    )


def test_the_tasks_own_override_wins_and_is_left_as_it_was():
    own = k8s.V1Pod(
        metadata=k8s.V1ObjectMeta(labels={"team": "etl"}, annotations={"sparkbroker.io/principal": "etl"}),
        spec=k8s.V1PodSpec(
            service_account_name="etl",
            containers=[
                k8s.V1Container(
                    name="base",
                    image="own:1",
                    env=[k8s.V1EnvVar(name="A", value="b"), k8s.V1EnvVar(name="SPARKBROKER_POD_NAME", value="mine")],
                    resources=k8s.V1ResourceRequirements(requests={"cpu": "100m"}, limits={"memory": "4Gi"}),
                ),
                k8s.V1Container(name="beside", image="side:1"),
            ],
        ),
    )
    before = copy.deepcopy(own)
    given = {"pod_override": own, "more": 1}
    operator = session(**SIZE, executor_config=given)
    assert own == before
    assert given["pod_override"] is own
    assert operator.executor_config["more"] == 1
    pod = pod_of(operator)
    worker, beside = pod["spec"]["containers"]
    assert pod["metadata"] == {"labels": {"team": "etl"}, "annotations": {"sparkbroker.io/principal": "etl"}}
    assert (pod["spec"]["serviceAccountName"], worker["image"], beside["name"]) == ("etl", "own:1", "beside")
    assert worker["resources"] == {"requests": {"memory": "3072Mi", "cpu": "100m"}, "limits": {"memory": "4Gi"}}
    env = {item["name"]: item for item in worker["env"]}
    assert env["SPARKBROKER_POD_NAME"]["value"] == "mine"
    assert len(worker["env"]) == 4
    # Made again of what was made: a task is constructed on the worker, too.
    again = session(**SIZE, executor_config=operator.executor_config)
    assert pod_of(again) == pod


def test_a_limit_of_ours_isnt_below_a_request_of_theirs():
    theirs = k8s.V1Container(name="base", resources=k8s.V1ResourceRequirements(requests={"memory": "8Gi"}))
    own = {"pod_override": k8s.V1Pod(spec=k8s.V1PodSpec(containers=[theirs]))}
    assert worker_of(session(**SIZE, executor_config=own))["resources"] == {"requests": {"memory": "8Gi", "cpu": "2"}}


def test_the_pod_that_kubernetes_executor_makes_of_it():
    """By Airflow's own code: the pod template's image and variables stay, and its resources are ours."""
    container = k8s.V1Container(
        name="base",
        image="airflow:1",
        env=[k8s.V1EnvVar(name="AIRFLOW__CORE__EXECUTOR", value="LocalExecutor")],
        resources=k8s.V1ResourceRequirements(requests={"cpu": "50m", "memory": "256Mi"}, limits={"memory": "1Gi"}),
    )
    metadata = k8s.V1ObjectMeta(annotations={"sparkbroker.io/principal": "airflow"})
    template = k8s.V1Pod(metadata=metadata, spec=k8s.V1PodSpec(containers=[container], restart_policy="Never"))
    made = PodGenerator.serialize_pod(
        PodGenerator.reconcile_pods(template, session(**SIZE).executor_config["pod_override"])
    )
    (worker,) = made["spec"]["containers"]
    assert worker["image"] == "airflow:1"
    assert worker["resources"] == OWN
    assert {item["name"] for item in worker["env"]} == {"AIRFLOW__CORE__EXECUTOR", *VARIABLES.values()}
    assert made["metadata"]["annotations"] == {"sparkbroker.io/principal": "airflow"}
    assert made["spec"]["restartPolicy"] == "Never"


def test_mapped_tasks_have_it_too():
    with DAG("mapped", schedule=None):
        sql = SparkSqlOperator.partial(task_id="sql", **SIZE).expand(sql=["select 1", "select 2"])

        @task.spark_session(**SIZE)
        def decorated(spark, x): ...

        made = decorated.expand(x=[1, 2]).operator
        overridden = decorated.override(task_id="other", mode="CONNECT").expand(x=[1]).operator
        called = decorated.override(memory="4g")(1).operator
        old = PySparkOnK8sOperator.partial(
            task_id="old",
            python_callable=compute,
            spark_driver_conf=SparkDriverConf(memory="2Gi", memory_overhead="1Gi", cores=2, pod_labels={"a": "b"}),
        ).expand(spark_extra_conf=[{"spark.a": 1}])
    for operator in (sql, made, old):
        assert worker_of(operator)["resources"] == OWN
    assert pod_of(old)["metadata"] == {"labels": {"a": "b"}}
    assert not overridden.executor_config
    assert worker_of(called)["resources"]["limits"] == {"memory": "5120Mi"}


def test_default_args_give_it_to_mapped_tasks_too():
    with DAG("defaults", schedule=None, default_args=SIZE):
        sql = SparkSqlOperator.partial(task_id="sql").expand(sql=["select 1"])
        old = PySparkOnK8sOperator.partial(task_id="old", python_callable=compute).expand(spark_extra_conf=[{}])
        once = PySparkOnK8sOperator(task_id="once", python_callable=compute)

        @task.spark_session
        def decorated(spark, x): ...

        made = decorated.expand(x=[1]).operator
        other = decorated.override(task_id="other", mode="CONNECT").expand(x=[1]).operator
        with TaskGroup("larger", default_args={"memory": "4g"}):
            larger = decorated.expand(x=[1]).operator
    for operator in (sql, made, old, once):
        assert worker_of(operator)["resources"] == OWN
    assert worker_of(larger)["resources"]["limits"] == {"memory": "5120Mi"}
    assert not other.executor_config


def test_default_args_win_over_what_the_predecessors_classes_mean():
    with DAG("defaults", schedule=None, default_args={"mode": "LOCAL", "cores": 3}):
        operator = PySparkOnK8sOperator(task_id="t", python_callable=compute)
        mapped = PySparkOnK8sOperator.partial(task_id="m", python_callable=compute).expand(spark_extra_conf=[{}])
    assert (operator.mode, operator.cores, operator.client_or_local) == ("LOCAL", 3, False)
    assert not operator.executor_config
    assert not mapped.executor_config


def test_it_never_begins_in_the_triggerer():
    assert not session(**SIZE, deferrable=True).start_from_trigger
    assert not session(mode="{{ params.mode }}", deferrable=True).start_from_trigger


def test_the_predecessors_driver_is_the_worker():
    driver = SparkDriverConf(
        cores=2, memory="2Gi", memory_overhead="1Gi", image="worker:1", service_account_name="etl",
        environment_variables=[k8s.V1EnvVar(name="A", value="b")], volumes=[{"name": "v", "emptyDir": {}}],
        volume_mounts=[{"name": "v", "mountPath": "/v"}], tolerations=[{"key": "spark"}], node_selector={"disk": "ssd"},
        pod_annotations={"note": "x"},
    )  # fmt: skip
    executors = SparkExecutorConf(image="spark:1", environment_variables=[{"name": "C", "value": "d"}])
    given: dict[str, Any] = {"spark_driver_conf": driver, "spark_executor_conf": executors}
    operator = PySparkOnK8sOperator(task_id="t", python_callable=compute, **given)
    assert operator.mode == "CLIENT"
    assert operator.pod == {"image": "spark:1", "env": {"C": "d"}}
    spec = pod_of(operator)["spec"]
    worker = spec["containers"][0]
    assert (worker["image"], worker["resources"], spec["serviceAccountName"]) == ("worker:1", OWN, "etl")
    assert {item["name"] for item in worker["env"]} == {"A", *VARIABLES.values()}
    assert (spec["tolerations"], spec["nodeSelector"]) == ([{"key": "spark"}], {"disk": "ssd"})
    assert (spec["volumes"], worker["volumeMounts"]) == (driver.volumes, driver.volume_mounts)
    own = {"pod_override": k8s.V1Pod(spec=k8s.V1PodSpec(containers=[k8s.V1Container(name="base", image="mine:1")]))}
    kept = PySparkOnK8sOperator(task_id="t", python_callable=compute, executor_config=own, **given)
    assert worker_of(kept)["image"] == "mine:1"
    elsewhere = PySparkOnK8sOperator(task_id="t", python_callable=compute, mode="LOCAL", **given)
    assert not elsewhere.executor_config


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: session(**SIZE, api="connect"), "api: 'connect', and a session of mode CLIENT is a classic one"),
        (lambda: session(**SIZE, on_retry="reattach"), "on_retry: 'reattach', and in mode CLIENT the driver is"),
        (lambda: AcquireLeaseOperator(task_id="t", **SIZE), "mode: 'CLIENT', and other tasks are to share this lease"),
        (lambda: spark_lease(**SIZE).__enter__(), "mode: 'CLIENT', and other tasks are to share this lease"),
        (lambda: SparkScriptOperator(task_id="t", script="x.py", **SIZE), "mode: 'CLIENT', and a program of its own"),
    ],
)
def test_what_cant_be_is_told_when_the_dag_is_parsed(make, message):
    with DAG("refused", schedule=None), pytest.raises(InvalidArgument) as refusal:
        make()
    assert str(refusal.value).startswith(message)
    assert "; give " in str(refusal.value) or "; leave it out" in str(refusal.value)


def test_a_worker_that_doesnt_know_its_pod():
    known = dict.fromkeys(VARIABLES.values(), "x")
    client_mode.check_worker(known)
    with pytest.raises(
        InvalidArgument, match="this worker is in no pod; run the task with KubernetesExecutor, or give"
    ):
        client_mode.check_worker({})
    in_a_pod = {**known, "SPARKBROKER_POD_UID": "", "KUBERNETES_SERVICE_HOST": "10.0.0.1"}
    with pytest.raises(InvalidArgument, match=r"SPARKBROKER_POD_UID doesn't say which that is.*install `kubernetes`"):
        client_mode.check_worker(in_a_pod)


def test_the_brokers_words_of_a_holders_pod_name_the_mode():
    missing = InvalidRequest(
        "spec.holder_pod: is missing: in mode CLIENT the holder's own pod is the driver; give namespace"
    )
    assert failures.diagnosis(missing).startswith("mode: of this profile it is CLIENT")
    other = InvalidRequest(
        "spec.holder_pod.namespace: 'airflow' is not a namespace of profile `p`; its drivers may be in: s"
    )
    assert failures.diagnosis(other) == (
        "mode: for 'CLIENT' the worker's pod would have to be another one: 'airflow' is not a namespace of profile `p`; its "
        "drivers may be in: s"
    )


IMPORTS = "from sparkbroker.airflow_provider.operators.session import SparkSessionOperator as Session\n"


def test_in_no_pod_mode_client_is_refused_and_the_predecessors_default_is_local(small_broker, run_dag):
    run = run_dag(f"""
        {IMPORTS}
        from sparkbroker.airflow_provider.compat import PySparkOnK8sOperator, SparkDriverConf
        def work(lease, spark=None):
            return "computed"
        def mode(lease):
            return [lease.info.spec.mode, lease.info.spec.holder_pod is not None]
        with DAG("nowhere", schedule=None, params={{"mode": "CLIENT"}}) as dag:
            Session(task_id="literal", python_callable=work, mode="CLIENT", deferrable=True)
            Session(task_id="templated", python_callable=work, mode="{{{{ params.mode }}}}", deferrable=True)
            PySparkOnK8sOperator(task_id="told", python_callable=work, mode="CLIENT")
            PySparkOnK8sOperator(
                task_id="old", python_callable=mode, spark_driver_conf=SparkDriverConf(memory="600Mi", image="x:1")
            )
    """)  # fmt: skip
    assert {name: run.states[name] for name in ("literal", "templated", "told")} == dict.fromkeys(
        ("literal", "templated", "told"), "failed"
    )
    assert run.log.count("mode: 'CLIENT' makes the worker's own pod the driver, and this worker is in no pod") >= 3
    assert "deploy_mode CLIENT: this worker is in no pod that says which it is; mode LOCAL" in run.log
    local, has_pod = run.xcom("old")
    assert local == "LOCAL"
    assert not has_pod


def test_the_dag_is_the_same_each_time_and_survives_its_serialization():
    try:
        from airflow.serialization.serialized_objects import DagSerialization as Serialized
    except ImportError:
        from airflow.serialization.serialized_objects import SerializedDAG as Serialized

    def written():
        with DAG("same", schedule=None) as dag:
            session(**SIZE)
            SparkSqlOperator.partial(task_id="sql", **SIZE).expand(sql=["select 1"])
        return json.dumps(Serialized.to_dict(dag), sort_keys=True)

    first = written()
    assert first == written()
    read = Serialized.from_dict(json.loads(first))
    for task_id in ("t", "sql"):
        assert worker_of(read.get_task(task_id))["resources"] == OWN
