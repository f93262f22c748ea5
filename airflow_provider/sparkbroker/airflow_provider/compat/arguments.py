"""The table: each argument of the predecessor, and what it is here. The documentation is made from it."""

from dataclasses import dataclass
from typing import Final

from sparkbroker.client.ask_text import SPARK_KEYS


@dataclass(frozen=True, slots=True, kw_only=True)
class Argument:
    """``old`` is ``Class.argument``; ``new`` the argument of a lease, empty if there is none; ``note`` says the rest."""

    old: str
    new: str
    note: str = ""

    @property
    def meaningless(self) -> bool:
        """It is taken, and does nothing but warn."""
        return not self.new


def _base() -> tuple[Argument, ...]:
    name = "SparkBaseConf."
    return (
        Argument(old=name + "deploy_mode", new="mode", note="CLIENT in a worker that is no pod: LOCAL"),
        Argument(old=name + "spark_url", new="", note="the lease says where its Spark is; name the broker by conn_id"),
        Argument(old=name + "kubernetes_namespace", new="pod", note="`namespace`"),
        Argument(old=name + "kubernetes_ca_cert_file", new="", note="the broker has its own access to Kubernetes"),
        Argument(old=name + "kubernetes_oauth_token_file", new="", note="the broker has its own access to Kubernetes"),
        Argument(old=name + "image_pull_policy", new="pod", note="`image_pull_policy`"),
        Argument(old=name + "image_pull_secrets", new="pod", note="`image_pull_secrets`, a list"),
        Argument(old=name + "shuffle_file_buffer", new="conf", note="`spark.shuffle.file.buffer`"),
        Argument(old=name + "jars", new="packages", note="they were Maven coordinates"),
    )


def _pod(name: str, of: str, *, conf: str) -> tuple[Argument, ...]:
    settings = (
        ("aws_role_arn", "annotations"),
        ("tolerations", "tolerations"),
        ("node_selector", "node_selector"),
        ("node_affinity", "affinity"),
        ("pod_affinity", "affinity"),
        ("pod_anti_affinity", "affinity"),
        ("volumes", "volumes"),
        ("volume_mounts", "volume_mounts"),
        ("environment_variables", "env"),
        ("pod_labels", "labels"),
        ("pod_annotations", "annotations"),
    )
    return (
        Argument(old=name + "cores", new=of + "cores"),
        Argument(old=name + "request_cores", new=of + "cores", note="rounded up, if `cores` isn't given"),
        Argument(old=name + "memory", new=of + "memory"),
        Argument(old=name + "memory_overhead", new=of + "memory_overhead"),
        Argument(
            old=name + "memory_overhead_factor",
            new=of + "memory_overhead",
            note="the factor times the memory, at least 384 MiB; it was multiplied wrongly",
        ),
        *(
            Argument(old=name + old, new="pod", note=f"`{new}`; in `{conf}_template` where driver and executors differ")
            for old, new in settings
        ),
        Argument(
            old=name + "image",
            new="pod",
            note="`image`, one for both; in client mode the worker's is `SparkDriverConf`'s",
        ),
        Argument(old=name + "service_account_name", new="pod", note=f"`{of}service_account`"),
        Argument(old=name + "container_name", new="", note="the broker names the containers"),
        Argument(old=name + "containers", new="", note="use the other settings, or a pod template in the profile"),
        Argument(old=name + "extra_java_options", new="conf", note=f"`spark.{conf}.extraJavaOptions`"),
        Argument(old=name + "extra_class_path", new="conf", note=f"`spark.{conf}.extraClassPath`"),
        Argument(old=name + "extra_library_path", new="conf", note=f"`spark.{conf}.extraLibraryPath`"),
    )


def _driver() -> tuple[Argument, ...]:
    name = "SparkDriverConf."
    return (
        Argument(old=name + "pod_name", new="", note="the broker names the pods; labels find them"),
        Argument(old=name + "host", new="", note="the broker knows it"),
    )


def _executors() -> tuple[Argument, ...]:
    name = "SparkExecutorConf."
    return (
        Argument(old=name + "instances", new="executors"),
        Argument(
            old=name + "dynamic_allocation_enabled", new="executors", note="with two numbers, the fewest and most"
        ),
        Argument(old=name + "dynamic_allocation_min_executors", new="executors", note="the first of the two"),
        Argument(
            old=name + "dynamic_allocation_max_executors",
            new="executors",
            note='the second; without it, or with "infinity", `instances`, at least Spark\'s 2: a lease has a bound',
        ),
    )


def _operator() -> tuple[Argument, ...]:
    name = "PySparkOnK8sOperator."
    return (
        Argument(old=name + "spark_base_conf", new="(see SparkBaseConf)"),
        Argument(old=name + "spark_driver_conf", new="(see SparkDriverConf)"),
        Argument(old=name + "spark_executor_conf", new="(see SparkExecutorConf)"),
        Argument(old=name + "spark_extra_conf", new="conf", note="wins over all else; sizes become the lease's"),
    )


ARGUMENTS: Final = (
    *_operator(),
    *_base(),
    *_pod("SparkDriverConf.", "", conf="driver"),
    *_driver(),
    *_pod("SparkExecutorConf.", "executor_", conf="executor"),
    *_executors(),
)
BY_NAME: Final = {argument.old: argument for argument in ARGUMENTS}

CONF_ARGUMENTS: Final = {
    **SPARK_KEYS,
    "spark.app.name": "app_name",
    "spark.submit.pyFiles": "py_files",
    "spark.files": "files",
    "spark.archives": "archives",
}
"""Keys of ``spark_extra_conf`` that a lease has an argument for; the broker takes them as nothing else."""

CONF_WITHOUT_MEANING: Final = (
    "spark.master",
    "spark.remote",
    "spark.submit.",
    "spark.kubernetes.",
    "spark.driver.host",
    "spark.driver.port",
    "spark.driver.bindAddress",
    "spark.dynamicAllocation.",
)
"""Keys, and beginnings of keys, that the broker decides: ``pod`` and the sizes are what to use."""
