"""A Python function with a Spark session: real Spark."""

import zipfile

import pytest

IMPORTS = "from sparkbroker.airflow_provider.operators.session import SparkSessionOperator as Session\n"


@pytest.mark.spark
@pytest.mark.timeout(300)
def test_functions_compute_with_connect_and_with_classic_sessions(spark_broker, run_dag, tmp_path):
    module, package = (tmp_path / name for name in ("a%20b #?c:/a_module.py", "x/p%20q ü.zip"))
    for file in (module, package):
        file.parent.mkdir()
    module.write_text("ANSWER = 42\n")
    with zipfile.ZipFile(package, "w") as archive:
        archive.writestr("a_package/__init__.py", "ANSWER = 43\n")
    run = run_dag(f"""
        {IMPORTS}
        def connect(first, spark, *, lease, factor=2):
            from pyspark.sql.functions import udf
            @udf("int")
            def answer(_):
                import a_module, a_package
                return a_module.ANSWER + a_package.ANSWER
            found = spark.range(first).select(answer("id").alias("a")).agg({{"a": "max"}}).first()[0]
            return [spark.range(first).count() * factor, found, lease.name]
        def classic(spark):
            def answers(_):
                import a_module, a_package
                from pyspark import SparkFiles
                text = open(SparkFiles.get("unpacked") + "/a_package/__init__.py").read()
                return [a_module.ANSWER, a_package.ANSWER, text]
            return spark.sparkContext.parallelize([1], 1).map(answers).first()
        def fails(spark):
            spark.sql("select nonsense from nowhere").collect()
        with DAG("compute", schedule=None) as dag:
            one = Session(task_id="connect", python_callable=connect, op_args=[3], op_kwargs={{"factor": "{{{{ 3 }}}}"}},
                          py_files=[{str(module)!r}, {str(package)!r}], deferrable=True, driver_log_level="INFO", profile="with_ui")
            two = Session(task_id="fails", python_callable=fails)
            three = Session(task_id="classic", python_callable=classic, mode="LOCAL", trigger_rule="all_done",
                            py_files=[{str(module)!r}, {str(package)!r}], archives=[{str(package) + "#unpacked"!r}])
            chain(one, two, three)
    """)  # fmt: skip
    assert run.states == {"connect": "success", "fails": "failed", "classic": "success"}, run.log
    counted, answer, name = run.xcom("connect")
    assert (counted, answer) == ("333", 85), "op_kwargs are rendered, to text"
    assert run.xcom("classic") == [42, 43, "ANSWER = 43\n"]
    assert spark_broker.ended(name) == "RELEASED"
    assert f"{name} is given back" in run.log
    before, _, _ = run.log.partition("::group::Spark driver log of leases/")
    assert " INFO " in before.partition("driver: ")[2], "the log of the task that succeeds, live"
    assert "::group::Spark driver log of leases/" in run.log
    assert run.xcom("connect", key="_link_SparkUiLink").startswith("http://")


@pytest.mark.spark
@pytest.mark.timeout(300)
def test_a_lost_driver_fails_the_task_with_its_reason_and_log(spark_broker, run_dag):
    run = run_dag(f"""
        {IMPORTS}
        import os, signal
        def compute(spark, lease):
            from pathlib import Path
            import json
            driver = lease.refresh().driver.removeprefix("drivers/")
            process = json.loads(Path({str(spark_broker.state)!r}, "drivers", driver, "process.json").read_text())
            os.kill(process["driver_pid"], signal.SIGKILL)
            spark.range(10).count()
        with DAG("lost", schedule=None) as dag:
            Session(task_id="lost", python_callable=compute)
    """)  # fmt: skip
    assert run.states == {"lost": "failed"}
    assert "LeaseFailed" in run.log
    assert "DRIVER_LOST" in run.log
    assert "::group::Spark driver log of leases/" in run.log


def test_a_function_without_spark_is_an_error_at_parse(airflow_home):
    from sparkbroker.airflow_provider.operators.session import SparkSessionOperator

    def compute(x):
        return x

    with pytest.raises(TypeError, match="compute: the function has no argument `spark`"):
        SparkSessionOperator(task_id="t", python_callable=compute)


def test_so_it_is_for_mapped_tasks(airflow_home):
    from sparkbroker.airflow_provider.operators.session import SparkSessionOperator

    def compute(x):
        return x

    with pytest.raises(TypeError, match="compute: the function has no argument `spark`"):
        SparkSessionOperator.partial(task_id="t", python_callable=compute)
    with pytest.raises(TypeError, match="`spark` is given by the task itself"):
        SparkSessionOperator.partial(task_id="t", python_callable=lambda spark, x: x, op_kwargs={"spark": 1})


def test_functions_can_be_mapped_over(small_broker, run_dag):
    run = run_dag(f"""
        {IMPORTS}
        def one(lease):
            return 1
        def two(lease):
            return 2
        with DAG("functions", schedule=None) as dag:
            Session.partial(task_id="each").expand(python_callable=[one, two])
    """)  # fmt: skip
    assert [run.xcom("each", map_index=place) for place in (0, 1)] == [1, 2]


def test_what_is_missing_on_the_worker_is_told_before_a_lease_is_asked_for(small_broker, run_dag):
    before = {lease.name for lease in small_broker.leases()}
    run = run_dag(f"""
        {IMPORTS}
        from sparkbroker.airflow_provider.operators.script import SparkScriptOperator
        def compute(spark):
            pass
        with DAG("missing", schedule=None) as dag:
            Session(task_id="archives", python_callable=compute, archives=["nowhere.zip"])
            SparkScriptOperator(task_id="script", script="nowhere.py")
            SparkScriptOperator(task_id="python", script={__file__!r}, python="/nowhere/python")
            SparkScriptOperator(task_id="cwd", script={__file__!r}, cwd="/nowhere")
    """)  # fmt: skip
    assert set(run.states.values()) == {"failed"}
    for said in ("archives: there is no 'nowhere.zip'", "script: there is no 'nowhere.py'",
                 "python: there is no '/nowhere/python' that can be run; give a Python",
                 "cwd: there is no folder '/nowhere'; give one of the worker's"):  # fmt: skip
        assert said in run.log
    assert {lease.name for lease in small_broker.leases()} == before


def test_an_argument_called_spark_is_an_error_at_parse(airflow_home):
    from sparkbroker.airflow_provider.operators.session import SparkSessionOperator

    def compute(spark):
        return spark

    with pytest.raises(TypeError, match="`spark` is given by the task itself"):
        SparkSessionOperator(task_id="t", python_callable=compute, op_kwargs={"spark": 1})
