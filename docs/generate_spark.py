"""The page of Spark's properties, generated from the broker's own tables: what is honoured, mapped, set or refused.

A MkDocs hook (``mkdocs.yml``). What is hand-written here is what the broker has no table for: the properties of Spark on
Kubernetes. ``tests/test_docs_spark.py`` holds them to the list that Spark itself has, and to the broker's pod settings.
"""

import re
from typing import Any, Final

PAGE: Final = "reference/spark-properties.md"

PASSED: Final = "honoured"
MAPPED: Final = "mapped"
OVERWRITTEN: Final = "overwritten"
USELESS: Final = "no effect"

KUBERNETES: Final = (
    # (properties, what becomes of them, in words; `name` is a pod setting)
    ("spark.kubernetes.namespace", OVERWRITTEN, "`namespace`"),
    ("spark.kubernetes.container.image spark.kubernetes.*.container.image", OVERWRITTEN, "`image`: one for driver and executors"),
    ("spark.kubernetes.container.image.pullPolicy", MAPPED, "`image_pull_policy`"),
    ("spark.kubernetes.container.image.pullSecrets", MAPPED, "`image_pull_secrets`"),
    ("spark.kubernetes.authenticate.driver*", USELESS, "`service_account`: the driver's pod has its account's own credential"),
    ("spark.kubernetes.authenticate.executor*", MAPPED, "`executor_service_account`"),
    ("spark.kubernetes.authenticate spark.kubernetes.authenticate.submission*", USELESS, "no spark-submit speaks to the cluster"),
    ("spark.kubernetes.trust.certificates", PASSED, "not advised: the driver then trusts any API server"),
    ("spark.kubernetes.driver.master", PASSED, "the driver's pod finds the API server by its environment"),
    ("spark.kubernetes.context", USELESS, "no kubeconfig is read"),
    ("spark.kubernetes.driver.pod.name spark.kubernetes.driver.resourceNamePrefix spark.kubernetes.executor.podNamePrefix", OVERWRITTEN,
     "names come from the driver's id"),
    ("spark.kubernetes.driver.request.cores", MAPPED, "`driver_cpu_request`"),
    ("spark.kubernetes.driver.limit.cores", MAPPED, "`driver_cpu_limit`"),
    ("spark.kubernetes.executor.request.cores", OVERWRITTEN, "`executor_cpu_request`"),
    ("spark.kubernetes.executor.limit.cores", MAPPED, "`executor_cpu_limit`"),
    ("spark.kubernetes.memoryOverheadFactor", PASSED, "counted into the pods, and charged"),
    ("spark.kubernetes.resource.type", OVERWRITTEN, "`python` where `spark.executor.pyspark.memory` is set, so that it is counted"),
    ("spark.kubernetes.node.selector.* spark.kubernetes.executor.node.selector.*", PASSED,
     "for executors; `node_selector` is for the driver's pod too"),
    ("spark.kubernetes.driver.node.selector.*", USELESS, "`node_selector`, or `driver_template`"),
    ("spark.kubernetes.driver.label.* spark.kubernetes.driver.annotation.*", USELESS, "`labels` and `annotations`, or `driver_template`"),
    ("spark.kubernetes.executor.label.* spark.kubernetes.executor.annotation.*", PASSED,
     "on top of `labels` and `annotations`; the chart's `admissionPolicy.executorLabels` has to name a label's key"),
    ("spark.kubernetes.driverEnv.*", USELESS, "`env`"),
    ("spark.kubernetes.driver.secrets.* spark.kubernetes.driver.secretKeyRef.*", USELESS, "`env` and `volumes`"),
    ("spark.kubernetes.executor.secrets.* spark.kubernetes.executor.secretKeyRef.*", PASSED,
     ("`env` and `volumes` are for both; either way a holder's is bounded as [pod settings](pod-settings.md#bounds) are, and the chart's "
     "`admissionPolicy.executorSecrets` has to name the Secret")),
    ("spark.kubernetes.driver.volumes.*", USELESS, "`volumes` and `volume_mounts`"),
    ("spark.kubernetes.executor.volumes.*", PASSED,
     ("a holder's is bounded as [pod settings](pod-settings.md#bounds) are; a claim per executor (`OnDemand`) needs rights on claims, which the driver's account "
     "doesn't have: use an ephemeral volume in `executor_template`. The chart's [values](pod-settings.md#bounds) have to know it, too")),
    (("spark.kubernetes.driver.ownPersistentVolumeClaim spark.kubernetes.driver.waitToReusePersistentVolumeClaim "
     "spark.kubernetes.executor.pvc.* spark.kubernetes.legacy.useReadWriteOnceAccessMode"), USELESS,
     "they are about claims that the driver makes"),
    ("spark.kubernetes.driver.reusePersistentVolumeClaim spark.kubernetes.driver.service.deleteOnTermination", PASSED,
     "`false` by default here: the driver's account has rights on pods alone"),
    ("spark.kubernetes.driver.podTemplate* spark.kubernetes.driver.pod.*featureSteps spark.kubernetes.driver.pod.excludedFeatureSteps",
     USELESS, "`driver_template`"),
    ("spark.kubernetes.executor.podTemplate*", OVERWRITTEN, "`executor_template`"),
    ("spark.kubernetes.executor.pod.featureSteps spark.kubernetes.executor.pod.excludedFeatureSteps", PASSED,
     "classes of the image; labels, owner and account have to stay"),
    ("spark.kubernetes.scheduler.name spark.kubernetes.executor.scheduler.name", PASSED,
     "for executors; the chart's `admissionPolicy.executorSchedulers` has to name it"),
    ("spark.kubernetes.driver.scheduler.name", USELESS, "`schedulerName` in `driver_template`"),
    ("spark.kubernetes.securityContext.* spark.kubernetes.executor.securityContext.* spark.kubernetes.driver.securityContext.*", PASSED,
     "for executors; pods are `restricted` anyway, unless a template and the chart's `admissionPolicy.podSecurity` say otherwise"),
    ("spark.kubernetes.driver.service.*", USELESS, "there is no Service: executors know the driver's pod by its address"),
    ("spark.kubernetes.executor.useDriverPodIP", PASSED, "leave it `true`: there is no Service"),
    ("spark.kubernetes.executor.disableConfigMap", OVERWRITTEN, "`true`: the driver needs no right to make one"),
    ("spark.kubernetes.configMap.maxSize spark.kubernetes.hadoop.configMapName spark.kubernetes.kerberos.*", USELESS,
     "they are about what spark-submit makes: mount them by `volumes`"),
    ("spark.kubernetes.local.dirs.tmpfs", PASSED, "for executors' scratch space; it counts as memory of theirs"),
    ("spark.kubernetes.allocation.pods.allocator", PASSED, "`direct`, the default: others need rights that the driver's account doesn't have"),
    ("spark.kubernetes.allocation.*", PASSED, "how Spark asks for executors"),
    ("spark.kubernetes.dynamicAllocation.deleteGracePeriod spark.kubernetes.appKillPodDeletionGracePeriod", PASSED, ""),
    ("spark.kubernetes.decommission.script", PASSED, "the image's; `decommission` sets the rest"),
    ("spark.kubernetes.executor.decommissionLabel*", PASSED, "needs the right to patch pods"),
    ("spark.kubernetes.executor.podDeletionCost", PASSED, "needs the right to patch pods"),
    ("spark.kubernetes.executor.deleteOnTermination", PASSED, "`false` keeps pods of failed executors until the lease ends, charged"),
    ("spark.kubernetes.executor.terminationGracePeriodSeconds", PASSED,
     "or in `executor_template`; 120 s with `decommission`. The chart's `admissionPolicy.maxGracePeriod` is its limit"),
    ("spark.kubernetes.executor.roll* spark.kubernetes.executor.minTasksPerExecutorBeforeRolling", PASSED, "with Spark's own plugin"),
    ("spark.kubernetes.executor.resize*", USELESS, "needs the right to resize pods; a lease is charged for its request"),
    ("spark.kubernetes.executor.* spark.kubernetes.executorSnapshots* spark.kubernetes.driver.*Timeout", PASSED,
     "how Spark follows its executors"),
    ("spark.kubernetes.driver.annotateExitException", USELESS, "needs the right to patch pods"),
    ("spark.kubernetes.submission.* spark.kubernetes.submitInDriver spark.kubernetes.report.interval spark.kubernetes.file.upload.path",
     USELESS, "no spark-submit speaks to the cluster"),
)  # fmt: skip
"""A property's row is the first that has it."""


def on_files(files: Any, config: Any) -> Any:
    """Add the page (MkDocs calls this)."""
    from mkdocs.structure.files import File

    files.append(File.generated(config, PAGE, content=page()))
    return files


def row_of(name: str) -> tuple[str, str, str] | None:
    """The row that says what becomes of a property of Spark on Kubernetes."""
    return next((row for row in KUBERNETES if any(_pattern(text).fullmatch(name) for text in row[0].split())), None)


def _pattern(text: str) -> re.Pattern[str]:
    return re.compile(re.escape(text).replace(r"\*", ".*"))


def set_by_the_broker() -> dict[str, str]:
    """What a driver in a pod is started with though nobody asked for it: property -> value, of one example."""
    from sparkbroker.broker.adapters.kubernetes_provisioner._conf import properties

    request = _example()
    return properties(request, request.profile.pod, "spark")


def _example() -> Any:
    from sparkbroker.broker.domain.asking.profile import Profile
    from sparkbroker.broker.domain.capacity.resources import Resources
    from sparkbroker.broker.domain.lease.lease import ContainerSize, ExecutorSpec, LeaseSpec
    from sparkbroker.broker.domain.pods.settings import parse_pod
    from sparkbroker.broker.domain.units import DriverId, Principal
    from sparkbroker.broker.ports.provisioner import DriverRequest

    executors = ExecutorSpec(size=ContainerSize(cores=2, memory=4 << 30), min_count=2, max_count=8)
    spec = LeaseSpec(
        profile="pods", queue="default", driver=ContainerSize(cores=1, memory=2 << 30), executors=executors
    )
    pod = parse_pod(
        {"image": "registry.example/spark:4.3.0", "executor_service_account": "sparkbroker-executor"}, "pod"
    )
    profile = Profile(name="pods", provisioner="kubernetes", defaults=spec, pod=pod)
    return DriverRequest(
        driver_id=DriverId("d1"), attempt=1, spec=spec, profile=profile, profile_fingerprint="f", target=Resources(),
        principal=Principal("ann"),
    )  # fmt: skip


def page() -> str:
    """All of it."""
    from sparkbroker.broker.adapters.kubernetes_provisioner import _conf
    from sparkbroker.broker.config.allowed_conf import OWNED_CONF
    from sparkbroker.broker.domain.asking.conf import EXACT_ONLY, USE_INSTEAD
    from sparkbroker.broker.domain.pods.settings import parse_pod

    given = set_by_the_broker()
    defaults = {**_conf.defaults(parse_pod({"decommission": True}, "pod")), **_conf.defaults(parse_pod({}, "pod"))}
    ours = {key: value for key, value in given.items() if key not in defaults and key != "spark.app.name"}
    return "\n".join(
        [
            "# Spark's properties",
            "",
            "What becomes of a property that a holder gives with its request (`conf`, `--conf`, `spark_conf`), or that operators write",
            "into a profile's `conf`. Generated from the broker's own tables.",
            "",
            "Who wins: a key that sizes, binds or places drivers and executors is the broker's; of the others the profile's `conf` wins",
            "over the holder's, and both over defaults. A refusal names the key and what to use.",
            "",
            "## Of a holder",
            "",
            "Refused, since there is something else to ask with:",
            "",
            _table(["property", ""], [[f"`{key}`", words] for key, words in USE_INSTEAD]),
            "",
            "Refused, unless the profile's `allowed_conf` has this exact key, since they load code into the driver or open it to",
            "others: " + ", ".join(f"`{key}`" for key in EXACT_ONLY) + ".",
            "",
            "Every other one is taken if it is on the profile's `allowed_conf`. Its default, some sixty properties that tune",
            "queries, stands in the [configuration](configuration.md), under a profile's `allowed_conf`.",
            "",
            "## Of a profile",
            "",
            "Its `conf` takes any property but these, which have fields of their own:",
            "",
            _table(["property", ""], [[f"`{key}`", words] for key, words in OWNED_CONF.items()]),
            "",
            "## What a driver in a pod is started with",
            "",
            "With the profile of the [how-to](../how-to/kubernetes.md), whatever anybody gives:",
            "",
            _table(
                ["property", "value, for example"], [[f"`{key}`", f"`{value}`"] for key, value in sorted(ours.items())]
            ),
            "",
            "`spark.master` and `spark.driver.host` are what the pod finds in its environment. `spark.driver.bindAddress` is removed.",
            "",
            "Defaults, which `conf` may change (those of decommissioning where `decommission = true`):",
            "",
            _table(["property", "default here"], [[f"`{key}`", f"`{value}`"] for key, value in defaults.items()]),
            "",
            "## Spark on Kubernetes",
            "",
            "Drivers' pods are made by the broker, so what spark-submit reads has no effect; [pod settings](pod-settings.md) are for",
            "driver and executors both, and are checked. What is *honoured* is read by Spark in the driver: write it into a profile's",
            "`conf`, or its exact key into `allowed_conf`. *Mapped* and *overwritten*: the setting beside it is what counts; without",
            "it, what is mapped is read by Spark.",
            "",
            _table(["property", "", "use, or know"], [_shown(row) for row in KUBERNETES]),
            "",
        ]
    )


def _shown(row: tuple[str, str, str]) -> list[str]:
    return ["<br>".join(f"`{name}`" for name in row[0].split()), row[1], row[2]]


def _table(head: list[str], rows: list[list[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |" for line in lines)
