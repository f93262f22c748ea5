"""What code in a driver could want of the node, through an executor's pod. Each is one change."""

from tests.cluster.executor_pod import CONTAINED, RESTRICTED, container, init_container


def the_node_s_network(manifest):
    manifest["spec"]["hostNetwork"] = True


def a_port_of_the_node(manifest):
    container(manifest)["ports"] = [{"containerPort": 80, "hostPort": 80}]


def privileges(manifest):
    container(manifest)["securityContext"] = {"privileged": True}


def a_probe_of_another_host(manifest):
    container(manifest)["readinessProbe"] = {"httpGet": {"host": "127.0.0.1", "port": 10250}}


def a_hook_that_asks_another_host(manifest):
    container(manifest)["lifecycle"] = {"preStop": {"httpGet": {"host": "169.254.169.254", "port": 80}}}


def secured(manifest, **more):
    """Spark's container, with another security context."""
    container(manifest)["securityContext"] = {**CONTAINED, **more}


def no_security_context(manifest):
    del container(manifest)["securityContext"]


def a_capability(manifest):
    secured(manifest, capabilities={"drop": ["ALL"], "add": ["SYS_ADMIN"]})


def most_capabilities(manifest):
    secured(manifest, capabilities={"drop": ["NET_RAW"]})


def escalation(manifest):
    secured(manifest, allowPrivilegeEscalation=True)


def escalation_in_an_init_container(manifest):
    init_container(manifest)["securityContext"] = {**CONTAINED, "allowPrivilegeEscalation": True}


def root(manifest):
    manifest["spec"]["securityContext"] = {**RESTRICTED, "runAsUser": 0}


def a_container_as_root(manifest):
    secured(manifest, runAsUser=0)


def perhaps_root(manifest):
    secured(manifest, runAsNonRoot=False)


def all_system_calls(manifest):
    manifest["spec"]["securityContext"] = {**RESTRICTED, "seccompProfile": {"type": "Unconfined"}}


def all_system_calls_in_a_container(manifest):
    secured(manifest, seccompProfile={"type": "Unconfined"})


def whatever_system_calls(manifest):
    manifest["spec"]["securityContext"] = {"runAsNonRoot": True}


def no_armour(manifest):
    secured(manifest, appArmorProfile={"type": "Unconfined"})


def all_of_proc(manifest):
    manifest["spec"]["hostUsers"] = False
    secured(manifest, procMount="Unmasked")


def another_type(manifest):
    secured(manifest, seLinuxOptions={"type": "spc_t"})


def a_kernel_s_setting(manifest):
    setting = {"name": "kernel.msgmax", "value": "65536"}
    manifest["spec"]["securityContext"] = {**RESTRICTED, "sysctls": [setting]}


STANDARD = "meets the Pod Security standard restricted"
NODE_ATTACKS = {
    the_node_s_network: "none of its node's namespaces",
    a_port_of_the_node: "none of its node's namespaces",
    privileges: "has no privileges",
    a_probe_of_another_host: "ask its own pod and no other host",
    a_hook_that_asks_another_host: "ask its own pod and no other host",
    no_security_context: STANDARD,
    a_capability: STANDARD,
    most_capabilities: STANDARD,
    escalation: STANDARD,
    escalation_in_an_init_container: STANDARD,
    root: STANDARD,
    a_container_as_root: STANDARD,
    perhaps_root: STANDARD,
    all_system_calls: STANDARD,
    all_system_calls_in_a_container: STANDARD,
    whatever_system_calls: STANDARD,
    no_armour: STANDARD,
    all_of_proc: STANDARD,
    another_type: STANDARD,
    a_kernel_s_setting: STANDARD,
}
"""Each with a part of what the policy says to it."""
