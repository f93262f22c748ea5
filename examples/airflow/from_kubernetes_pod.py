"""In the style of KubernetesPodOperator with spark-submit in your own image. It was:

    KubernetesPodOperator(
        task_id="classic", image="registry.example.com/etl:1.4", cmds=["spark-submit"],
        arguments=["--master", "k8s://…", "--conf", "spark.executor.instances=2", …, "/app/classic.py", "{{ run_id }}"],
        env_vars={"TEXT": "…"}, container_resources=V1ResourceRequirements(limits={"cpu": "1", "memory": "1Gi"}),
        tolerations=[V1Toleration(key="spark", operator="Exists")],
    )

What the pod was for (an image, its size, its tolerations) is now the lease's: ``pod``, as far as the profile allows it.
The program stays; the broker waits for room, starts the driver and ends it, whatever becomes of the task.
"""

try:
    from airflow.sdk import DAG
except ImportError:  # Airflow 2
    from airflow.models import DAG
from sparkbroker.airflow_provider.operators.script import SparkScriptOperator

# The profile lists the allowed settings (allowed_pod). A profile that runs no pods, such as on a laptop, accepts them without effect.
POD = {"image": "registry.example.com/etl:1.4", "tolerations": [{"key": "spark", "operator": "Exists"}]}

with DAG("from_kubernetes_pod", schedule=None, tags=["sparkbroker"]) as the_dag:
    SparkScriptOperator(
        task_id="words",
        script="programs/words.py",
        arguments=["{{ run_id }}"],
        env={"TEXT": "to be or not to be"},
        py_files=["programs/cleaning.py"],
        cores=1,
        memory="600m",
        executors=2,
        executor_cores=1,
        executor_memory="512m",
        pod=POD,
    )
