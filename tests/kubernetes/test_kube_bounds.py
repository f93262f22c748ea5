"""What a holder's volumes, templates and Spark's properties may refer to: bounded alike, however it is said."""

import msgspec
import pytest

from sparkbroker.broker.domain.asking.conf import check_conf
from sparkbroker.broker.domain.asking.pod import check_pod
from sparkbroker.broker.domain.asking.profile import Profile
from sparkbroker.broker.domain.errors import InvalidField
from sparkbroker.broker.domain.lease.lease import ContainerSize, LeaseSpec
from sparkbroker.broker.domain.pods.bounds import check_bounds
from sparkbroker.broker.domain.pods.settings import parse_pod

SPEC = LeaseSpec(profile="p", queue="q", driver=ContainerSize(cores=1, memory=1 << 30))
VOLUMES = "spark.kubernetes.executor.volumes"


def profile(bounds=None, **fields) -> Profile:
    """Everything is open by name."""
    pod = parse_pod({"image": "spark:1"}, "pod")
    plain = Profile(name="p", provisioner="kubernetes", defaults=SPEC, allowed_pod=("*",), pod=pod)
    return msgspec.structs.replace(plain, pod_bounds=bounds or {}, **fields)


def refused(pod, bounds=None) -> str:
    with pytest.raises(InvalidField) as error:
        check_pod(pod, profile(bounds))
    return str(error.value)


def volume(**source):
    return {"volumes": [{"name": "v", **source}]}


def in_template(**source):
    return {"executor_template": {"spec": volume(**source)}}


def ephemeral(size):
    requests = {"requests": {"storage": size}} if size else {}
    return {"ephemeral": {"volumeClaimTemplate": {"spec": {"resources": requests}}}}


CLAIM = {"persistentVolumeClaim": {"claimName": "payroll"}}
CSI = {"csi": {"driver": "d", "nodePublishSecretRef": {"name": "db"}}}


@pytest.mark.parametrize("said", [volume, in_template])
@pytest.mark.parametrize(
    ("source", "words"),
    [
        (CLAIM, "volumes[0].persistentVolumeClaim: 'payroll' is not allowed by the profile; its pod_bounds.claims allows: none"),
        ({"ephemeral": {}}, "volumes[0]: 'ephemeral' is not allowed by the profile; its pod_bounds.volume_kinds allows: emptyDir, "),
        ({"projected": {"sources": []}}, "'projected' is not allowed"),
        ({"csi": {"driver": "d"}}, "'csi' is not allowed"),
        ({"nfs": {"server": "s", "path": "/"}}, "'nfs' is not allowed"),
        ({"hostPath": {"path": "/"}}, "'hostPath' is not allowed"),
        ({"secret": {"secretName": "db"}}, "volumes[0].secret: 'db' is not allowed by the profile; its pod_bounds.secrets allows: none"),
    ],
)  # fmt: skip
def test_everything_is_open_and_these_volumes_are_not(said, source, words):
    assert words in refused(said(**source))


@pytest.mark.parametrize("said", [volume, in_template])
def test_claims_are_opened_by_name(said):
    bounds = {"claims": ("team-*",)}
    good = said(persistentVolumeClaim={"claimName": "team-data", "readOnly": True})
    assert check_pod(good, profile(bounds)) == good
    assert "its pod_bounds.claims allows: team-*" in refused(said(**CLAIM), bounds)
    assert "'' is not allowed" in refused(said(persistentVolumeClaim={}), bounds)


def test_config_maps_are_open_unless_they_are_bounded():
    asked = {**volume(configMap={"name": "other"}), "env": {"A": {"configMapKeyRef": {"name": "other", "key": "a"}}}}
    assert check_pod(asked, profile()) == asked
    for name, value in asked.items():
        assert "its pod_bounds.config_maps allows: team-*" in refused({name: value}, {"config_maps": ("team-*",)})


@pytest.mark.parametrize(
    "source",
    [{"secret": {"name": "db"}}, {"configMap": {"name": "x"}}, {"serviceAccountToken": {"path": "t"}}, {"podCertificate": {}}],
)  # fmt: skip
def test_what_cant_be_mounted_cant_be_projected(source):
    bounds = {"volume_kinds": ("projected", "downwardAPI"), "secrets": ("db",)}
    assert f"sources[0]: '{next(iter(source))}' is not allowed" in refused(
        volume(projected={"sources": [source]}), bounds
    )
    good = volume(projected={"sources": [{"downwardAPI": {"items": []}}]})
    assert check_pod(good, profile(bounds)) == good


def test_a_volumes_driver_reads_no_other_secret():
    bounds = {"volume_kinds": ("csi", "azureFile")}
    assert "csi.nodePublishSecretRef: 'db' is not allowed" in refused(volume(**CSI), bounds)
    assert "azureFile: 'db' is not allowed" in refused(volume(azureFile={"secretName": "db"}), bounds)
    assert check_pod(volume(**CSI), profile({**bounds, "secrets": ("db",)}))


@pytest.mark.parametrize("said", [volume, in_template])
@pytest.mark.parametrize(
    ("source", "words"),
    [
        ({"emptyDir": {}}, "volumes[0].emptyDir: has no size; the profile's pod_bounds.volume_size allows at most 20Gi"),
        ({}, "volumes[0].emptyDir: has no size"),
        ({"emptyDir": {"sizeLimit": "21Gi"}}, "'21Gi' is not allowed by the profile; its pod_bounds.volume_size allows at most 20Gi"),
        ({"emptyDir": {"sizeLimit": "much"}}, "'much' is not a quantity"),
        (ephemeral("1Ti"), "volumes[0].ephemeral: '1Ti' is not allowed"),
        (ephemeral(""), "volumes[0].ephemeral: has no size"),
    ],
)  # fmt: skip
def test_sizes_are_bounded(said, source, words):
    bounds = {"volume_size": ("20Gi",), "volume_kinds": ("emptyDir", "ephemeral")}
    assert words in refused(said(**source), bounds)
    for good in (said(emptyDir={"sizeLimit": "20Gi"}), said(**ephemeral("500M"))):
        assert check_pod(good, profile(bounds)) == good


def test_without_a_bound_sizes_are_the_holders():
    assert check_pod(volume(emptyDir={}), profile())


def test_a_bound_of_sizes_is_one_size():
    check_bounds({"volume_size": ("20Gi",)}, "pod_bounds")
    for wrong, words in (((), "write one size"), (("1Gi", "2Gi"), "write one size"), (("big",), "is not a quantity")):
        with pytest.raises(InvalidField, match=words):
            check_bounds({"volume_size": wrong}, "pod_bounds")


@pytest.mark.parametrize(
    ("bound", "template"),
    [
        ("image", {"spec": {"containers": [{"name": "spark-kubernetes-driver", "image": "evil"}]}}),
        ("sidecars", {"spec": {"containers": [{"name": "other", "image": "evil"}]}}),
        ("init_containers", {"spec": {"initContainers": [{"name": "other", "image": "evil"}]}}),
        ("env", {"spec": {"containers": [{"name": "spark-kubernetes-driver", "env": [{"name": "evil", "value": ""}]}]}}),
        ("labels", {"metadata": {"labels": {"evil": "x"}}}),
        ("annotations", {"metadata": {"annotations": {"evil": "x"}}}),
        ("node_selector", {"spec": {"nodeSelector": {"evil": "x"}}}),
        ("tolerations", {"spec": {"tolerations": [{"key": "evil"}]}}),
        ("priority_class", {"spec": {"priorityClassName": "evil"}}),
        ("secrets", {"spec": {"imagePullSecrets": [{"name": "evil"}]}}),
    ],
)  # fmt: skip
def test_a_template_goes_around_no_bound(bound, template):
    pod = {"driver_template": template}
    assert f"'evil' is not allowed by the profile; its pod_bounds.{bound} allows: good" in refused(
        pod, {bound: ("good",)}
    )
    assert check_pod(pod, profile({bound: ("evil",)})) == pod


@pytest.mark.parametrize(
    ("conf", "words"),
    [
        ({f"{VOLUMES}.persistentVolumeClaim.d.options.claimName": "payroll"}, "'payroll' is not allowed by the profile; its pod_bounds.claims"),
        ({f"{VOLUMES}.persistentVolumeClaim.d.options.claimName": "OnDemand"}, "'ephemeral' is not allowed"),
        ({f"{VOLUMES}.persistentVolumeClaim.d.options.claimName": "team-x", f"{VOLUMES}.persistentVolumeClaim.d.options.storageClass": "x"}, "'ephemeral' is not allowed"),
        ({f"{VOLUMES}.hostPath.d.options.path": "/etc"}, "'hostPath' is not allowed"),
        ({f"{VOLUMES}.nfs.d.options.server": "s"}, "'nfs' is not allowed"),
        ({f"{VOLUMES}.emptyDir.d.mount.path": "/d"}, "has no size"),
        ({f"{VOLUMES}.emptyDir.d.mount.path": "/d", f"{VOLUMES}.emptyDir.d.options.sizeLimit": "1Ti"}, "'1Ti' is not allowed"),
        ({"spark.kubernetes.executor.secrets.db": "/d"}, "'db' is not allowed"),
        ({"spark.kubernetes.executor.secretKeyRef.PASSWORD": "db:password"}, "'db' is not allowed"),
        ({"spark.kubernetes.container.image.pullSecrets": "team-x, db"}, "'db' is not allowed"),
        ({"spark.kubernetes.executor.secrets.sparkbroker-d1": "/d"}, "is not allowed"),
    ],
)  # fmt: skip
def test_sparks_own_properties_go_around_no_bound(conf, words):
    """Operators have to allow the exact key; that opens no value."""
    bounds = {"claims": ("team-*",), "secrets": ("team-*",), "volume_size": ("20Gi",)}
    allowing = profile(bounds, allowed_conf=tuple(conf))
    with pytest.raises(InvalidField) as error:
        check_conf(conf, allowing)
    assert error.value.field.startswith("spec.conf['spark.kubernetes.")
    assert words in str(error.value)


def test_what_is_within_the_bounds_may_be_said_by_properties():
    conf = {
        f"{VOLUMES}.persistentVolumeClaim.d.options.claimName": "team-data",
        f"{VOLUMES}.persistentVolumeClaim.d.mount.path": "/d",
        f"{VOLUMES}.emptyDir.e.options.sizeLimit": "1Gi",
        "spark.kubernetes.executor.secretKeyRef.PASSWORD": "team-db:password",
    }
    bounds = {"claims": ("team-*",), "secrets": ("team-*",), "volume_size": ("20Gi",)}
    assert check_conf(conf, profile(bounds, allowed_conf=tuple(conf))) == conf


def test_properties_for_volumes_are_closed_by_default():
    key = f"{VOLUMES}.persistentVolumeClaim.d.options.claimName"
    for allowed in ((), ("spark.*",), ("spark.kubernetes.*",)):
        with pytest.raises(InvalidField, match="an operator has to allow this exact key"):
            check_conf({key: "team-data"}, profile({"claims": ("*",)}, allowed_conf=allowed))
