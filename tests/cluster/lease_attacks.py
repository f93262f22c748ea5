"""What code in a driver could want of an executor's pod: whose it is, what it takes, what it reads. Each is one change."""

import copy

from tests.cluster.executor_pod import IMAGE, container, init_container


def no_owner(manifest):
    del manifest["metadata"]["ownerReferences"]


def another_owner(manifest):
    manifest["metadata"]["ownerReferences"][0]["uid"] = "00000000-0000-0000-0000-000000000000"


def a_second_owner(manifest):
    """One that lives longer."""
    another = {"apiVersion": "v1", "kind": "Pod", "name": "notebook", "uid": "00000000-0000-0000-0000-000000000000"}
    manifest["metadata"]["ownerReferences"].append(another)


def no_controller(manifest):
    """That a ReplicaSet would adopt."""
    del manifest["metadata"]["ownerReferences"][0]["controller"]


def another_kind_of_owner(manifest):
    manifest["metadata"]["ownerReferences"][0]["kind"] = "ConfigMap"


def label(manifest, **labels):
    manifest["metadata"]["labels"] |= labels


def another_program_s_label(manifest):
    label(manifest, app="airflow")


def another_program_s_name(manifest):
    label(manifest, **{"app.kubernetes.io/name": "airflow"})


def another_application_s_driver(manifest):
    """As the Service of one that spark-submit started chooses it."""
    label(manifest, **{"spark-app-selector": "spark-1", "spark-role": "driver"})


def any_taint(manifest):
    manifest["spec"]["tolerations"] = [{"operator": "Exists"}]


def another_team_s_nodes(manifest):
    manifest["spec"]["tolerations"] = [{"key": "example.org/team", "operator": "Exists"}]


def another_scheduler(manifest):
    manifest["spec"]["schedulerName"] = "example"


def no_broker(manifest):
    """Which no broker would find, charge or end."""
    del manifest["metadata"]["labels"]["sparkbroker.io/owner"]


def another_broker(manifest):
    manifest["metadata"]["labels"]["sparkbroker.io/owner"] = "r-0000000000000000"


def another_lease(manifest):
    manifest["metadata"]["labels"]["sparkbroker.io/driver"] = "d2"


def a_driver(manifest):
    manifest["metadata"]["labels"]["sparkbroker.io/role"] = "driver"


def the_driver_s_account(manifest):
    manifest["spec"]["serviceAccountName"] = "sparkbroker-driver"


def a_token(manifest):
    manifest["spec"]["automountServiceAccountToken"] = True


def a_projected_token(manifest):
    source = {"serviceAccountToken": {"path": "token"}}
    manifest["spec"]["volumes"] = [{"name": "v", "projected": {"sources": [source]}}]


def a_secret(manifest):
    manifest["spec"]["volumes"] = [{"name": "v", "secret": {"secretName": "sparkbroker-d2"}}]


def a_projected_secret(manifest):
    source = {"secret": {"name": "sparkbroker-d2"}}
    manifest["spec"]["volumes"] = [{"name": "v", "projected": {"sources": [source]}}]


def a_secret_variable(manifest):
    key = {"secretKeyRef": {"name": "sparkbroker-d2", "key": "token"}}
    container(manifest)["env"] = [{"name": "T", "valueFrom": key}]


def all_of_a_secret(manifest):
    container(manifest)["envFrom"] = [{"secretRef": {"name": "sparkbroker-d2"}}]


def a_secret_in_an_init_container(manifest):
    init_container(manifest)["envFrom"] = [{"secretRef": {"name": "sparkbroker-d2"}}]


def a_pull_secret(manifest):
    manifest["spec"]["imagePullSecrets"] = [{"name": "registry"}]


def a_volume(manifest, **source):
    manifest["spec"]["volumes"] = [{"name": "v", **source}]


def a_token_of_a_signer(manifest):
    source = {"podCertificate": {"signerName": "example.org/any", "keyType": "ED25519", "credentialBundlePath": "c"}}
    a_volume(manifest, projected={"sources": [source]})


def an_image_of_files(manifest):
    a_volume(manifest, image={"reference": IMAGE})


def a_claim(manifest):
    """The broker's, if it is in this namespace."""
    a_volume(manifest, persistentVolumeClaim={"claimName": "sparkbroker"})


def ephemeral(size, **spec):
    asked = {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": size}}, **spec}
    return {"volumeClaimTemplate": {"spec": asked}}


def a_claim_of_its_own(manifest):
    a_volume(manifest, ephemeral=ephemeral("1Gi"))


def a_volume_s_driver(manifest):
    attributes = {"secretProviderClass": "lake"}
    a_volume(manifest, csi={"driver": "secrets-store.csi.k8s.io", "readOnly": True, "volumeAttributes": attributes})


def a_file_server(manifest):
    a_volume(manifest, nfs={"server": "files.example", "path": "/"})


def a_large_one(manifest):
    container(manifest)["resources"]["limits"]["memory"] = "5Gi"


def many_cores(manifest):
    container(manifest)["resources"]["requests"]["cpu"] = "2001m"


def two_that_are_large_together(manifest):
    second = copy.deepcopy(container(manifest)) | {"name": "second"}
    second["resources"]["requests"]["cpu"] = "1500m"
    manifest["spec"]["containers"].append(second)


def no_limit(manifest):
    del container(manifest)["resources"]["limits"]


def a_whole_that_is_more_than_its_parts(manifest):
    manifest["spec"]["resources"] = {"requests": {"cpu": "1000"}}


def a_node(manifest):
    manifest["spec"]["nodeName"] = "node1"


def importance(manifest):
    manifest["spec"]["priorityClassName"] = "system-node-critical"


def a_holder_s_mark(manifest):
    manifest["metadata"]["labels"]["sparkbroker.io/holder"] = "true"


def another_name(manifest):
    manifest["metadata"]["name"] = "sparkbroker-d2"


def a_finalizer(manifest):
    manifest["metadata"]["finalizers"] = ["example.org/never"]


def the_broker_s_labels(manifest):
    manifest["metadata"]["labels"]["app.kubernetes.io/instance"] = "r"


def a_long_farewell(manifest):
    manifest["spec"]["terminationGracePeriodSeconds"] = 86_400


def a_graphics_card(manifest):
    container(manifest)["resources"]["limits"]["nvidia.com/gpu"] = "1"


def a_host_path(manifest):
    manifest["spec"]["volumes"] = [{"name": "v", "hostPath": {"path": "/"}}]


LEASE_ATTACKS = {
    a_holder_s_mark: "never marked as its holder's own",
    another_name: "named after its driver's",
    a_finalizer: "without finalizers",
    the_broker_s_labels: "the labels of the broker's own pods",
    a_long_farewell: "ends within 600 s",
    a_graphics_card: "admissionPolicy.extendedResources",
    a_host_path: "only volumes of the kinds",
    an_image_of_files: "only volumes of the kinds",
    a_token_of_a_signer: "only volumes of the kinds",
    a_claim: "admissionPolicy.executorClaims",
    a_claim_of_its_own: "admissionPolicy.executorEphemeralVolumes",
    a_volume_s_driver: "admissionPolicy.executorCsiDrivers",
    a_file_server: "executorNfsServers",
    no_broker: "the label sparkbroker.io/owner of its broker",
    another_broker: "the label sparkbroker.io/owner of its broker",
    no_controller: "one owner, a pod that is its controller",
    another_program_s_label: "admissionPolicy.executorLabels",
    another_program_s_name: "admissionPolicy.executorLabels",
    another_application_s_driver: "admissionPolicy.executorLabels",
    any_taint: "admissionPolicy.executorTolerations",
    another_team_s_nodes: "admissionPolicy.executorTolerations",
    another_scheduler: "executorRuntimeClasses",
    no_owner: "only pods that its own pod owns, and nothing else",
    another_kind_of_owner: "only pods that its own pod owns, and nothing else",
    another_owner: "only pods that its own pod owns, and nothing else",
    a_second_owner: "only pods that its own pod owns, and nothing else",
    another_lease: "only executors of its own driver",
    a_driver: "only executors of its own driver",
    the_driver_s_account: "runs as sparkbroker-executor, without its token",
    a_token: "runs as sparkbroker-executor, without its token",
    a_projected_token: "admissionPolicy.executorTokenAudiences",
    a_secret: "only the Secrets that",
    a_projected_secret: "only the Secrets that",
    a_secret_variable: "only the Secrets that",
    all_of_a_secret: "only the Secrets that",
    a_secret_in_an_init_container: "only the Secrets that",
    a_pull_secret: "only the Secrets that",
    a_whole_that_is_more_than_its_parts: "for each container, and not for the whole pod",
    a_large_one: "at most 2 CPUs and 4Gi of memory",
    many_cores: "at most 2 CPUs and 4Gi of memory",
    two_that_are_large_together: "at most 2 CPUs and 4Gi of memory",
    no_limit: "requests CPU and has a memory limit",
    a_node: "is placed by the scheduler",
    importance: "only the priority classes",
}
"""Each with a part of what the policy says to it."""
