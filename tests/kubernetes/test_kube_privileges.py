"""What no bound opens to a holder: privileges of any kind, however they are said. And accounts, which only a bound opens."""

from typing import Any

import msgspec
import pytest

from sparkbroker.broker.domain.asking.conf import check_conf
from sparkbroker.broker.domain.asking.pod import check_pod
from sparkbroker.broker.domain.asking.profile import Profile
from sparkbroker.broker.domain.errors import InvalidField
from sparkbroker.broker.domain.lease.lease import ContainerSize, LeaseSpec
from sparkbroker.broker.domain.pods.bounds import BOUNDABLE, REFERENCES
from sparkbroker.broker.domain.pods.settings import parse_pod

SPEC = LeaseSpec(profile="p", queue="q", driver=ContainerSize(cores=1, memory=1 << 30))
EVERYTHING = {name: ("*",) for name in (*BOUNDABLE, *REFERENCES) if name not in ("namespace", "volume_size")}
ACCOUNTS = ("service_account", "executor_service_account")


def profile(bounds=None, **pod) -> Profile:
    settings = parse_pod({"image": "spark:1", **pod}, "pod")
    plain = Profile(name="p", provisioner="kubernetes", defaults=SPEC, allowed_pod=("*",), pod=settings)
    return msgspec.structs.replace(plain, pod_bounds=bounds or {})


def security(**said: Any) -> dict[str, Any]:
    return {"name": "c", "securityContext": said}


IN_A_CONTAINER: list[tuple[dict[str, Any], str]] = [
    (security(privileged=True), "securityContext.privileged: privileged"),
    (security(privileged=None), "securityContext.privileged: privileged"),
    (security(allowPrivilegeEscalation=True), "allowPrivilegeEscalation"),
    (security(runAsUser=0), "securityContext.runAsUser: runAsUser 0"),
    (security(runAsUser=0.0), "runAsUser 0"),
    (security(runAsUser=None), "runAsUser"),
    (security(runAsNonRoot=False), "securityContext.runAsNonRoot: runAsNonRoot False"),
    (security(runAsNonRoot=None), "runAsNonRoot"),
    (security(procMount="Unmasked"), "procMount Unmasked"),
    (security(seccompProfile={"type": "Unconfined"}), "seccompProfile Unconfined"),
    (security(seccompProfile=None), "seccompProfile"),
    (security(appArmorProfile={"type": "Unconfined"}), "appArmorProfile Unconfined"),
    (security(seLinuxOptions={"type": "spc_t"}), "seLinuxOptions with user, role or type"),
    (security(windowsOptions={"hostProcess": True}), "hostProcess"),
    (security(capabilities={"add": ["NET_RAW"], "drop": ["ALL"]}), "capabilities.add"),
    (security(capabilities={"drop": []}), "capabilities without drop: [ALL]"),
    (security(capabilities=None), "capabilities without drop: [ALL]"),
    ({"name": "c", "ports": [{"containerPort": 80, "hostPort": 80}]}, "ports[0].hostPort: hostPort 80"),
]
IN_A_POD: list[tuple[dict[str, Any], str]] = [
    ({"hostNetwork": True}, "hostNetwork"),
    ({"hostPID": True}, "hostPID"),
    ({"hostIPC": True}, "hostIPC"),
    ({"hostUsers": True}, "hostUsers"),
    ({"shareProcessNamespace": True}, "shareProcessNamespace"),
    ({"runtimeClassName": "fast"}, "runtimeClassName fast"),
    ({"securityContext": {"sysctls": [{"name": "net.ipv4.ip_forward", "value": "1"}]}}, "sysctls"),
    ({"securityContext": {"runAsUser": 0}}, "runAsUser 0"),
    ({"securityContext": {"seccompProfile": {"type": "Unconfined"}}}, "seccompProfile Unconfined"),
]


def refused(pod: dict[str, Any]) -> str:
    with pytest.raises(InvalidField) as error:
        check_pod(pod, profile(EVERYTHING))
    return str(error.value)


@pytest.mark.parametrize(("container", "words"), IN_A_CONTAINER)
def test_no_container_of_a_holders_has_privileges(container, words):
    template = {"containers": [{**container, "name": "spark-kubernetes-executor"}]}
    for pod in (
        {"sidecars": [container]},
        {"init_containers": [container]},
        {"executor_template": {"spec": template}},
        {"driver_template": {"spec": {"initContainers": [container]}}},
    ):
        told = refused(pod)
        assert words in told
        assert "can't be a holder's; leave it out" in told


@pytest.mark.parametrize(("spec", "words"), IN_A_POD)
def test_no_pod_of_a_holders_has_privileges(spec, words):
    for role in ("driver", "executor"):
        told = refused({f"{role}_template": {"spec": spec}})
        assert words in told
        assert told.startswith(f"spec.pod.{role}_template.spec.")


def test_no_annotation_gives_them():
    annotation = {"container.apparmor.security.beta.kubernetes.io/c": "unconfined"}
    assert "can't be a holder's" in refused({"annotations": annotation})
    assert "can't be a holder's" in refused({"executor_template": {"metadata": {"annotations": annotation}}})


def test_what_confines_a_pod_further_is_a_holders():
    confined = security(
        privileged=False, allowPrivilegeEscalation=False, runAsUser=1000, runAsNonRoot=True, readOnlyRootFilesystem=True,
        capabilities={"drop": ["ALL"]}, seccompProfile={"type": "RuntimeDefault"}, seLinuxOptions={"level": "s0:c1,c2"},
        procMount="Default",
    )  # fmt: skip
    asked = {
        "sidecars": [{**confined, "ports": [{"containerPort": 80}]}],
        "driver_template": {"spec": {"hostUsers": False, "securityContext": {"runAsUser": 1000, "sysctls": []}}},
        "labels": {"hostNetwork": "true", "privileged": "no"},
        "env": {"runAsUser": "0", "sysctls": "x"},
    }
    assert check_pod(asked, profile()) == asked


def test_a_profile_says_what_it_likes():
    """Operators decide; admission in the cluster has its own say."""
    template = {"spec": {"hostNetwork": True, "securityContext": {"runAsUser": 0, "runAsNonRoot": False}}}
    assert profile(driver_template=template).pod.driver_template == template


@pytest.mark.parametrize("setting", ACCOUNTS)
def test_accounts_are_closed_unless_a_bound_opens_them(setting):
    asked = {setting: "sparkbroker"}
    with pytest.raises(InvalidField) as error:
        check_pod(asked, profile())
    assert str(error.value) == (
        f"spec.pod.{setting}: 'sparkbroker' is not allowed by the profile; its pod_bounds.{setting} allows: none"
    )
    with pytest.raises(InvalidField, match=r"allows: team-\*"):
        check_pod(asked, profile({setting: ("team-*",)}))
    assert check_pod({setting: "team-a"}, profile({setting: ("team-*",)})) == {setting: "team-a"}
    assert check_pod(asked, profile(**asked)) == asked, "the profile's own"


@pytest.mark.parametrize("role", ["driver", "executor"])
def test_sparks_own_properties_open_no_account(role):
    key = f"spark.kubernetes.authenticate.{role}.serviceAccountName"
    conf = {key: "sparkbroker"}
    allowing = msgspec.structs.replace(profile(), allowed_conf=(key,))
    with pytest.raises(InvalidField, match=r"pod_bounds\.executor_service_account allows: none"):
        check_conf(conf, allowing)
    opened = msgspec.structs.replace(allowing, pod_bounds={"executor_service_account": ("sparkbroker",)})
    assert check_conf(conf, opened) == conf
