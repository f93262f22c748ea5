"""Pod settings: how they are written, merged and bounded."""

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sparkbroker.broker.domain.asking.pod import check_pod
from sparkbroker.broker.domain.asking.profile import Profile
from sparkbroker.broker.domain.errors import InvalidField
from sparkbroker.broker.domain.lease.lease import ContainerSize, LeaseSpec
from sparkbroker.broker.domain.pods.bounds import check_bounds
from sparkbroker.broker.domain.pods.settings import PodSettings, deep_merge, merge, parse_pod

SPEC = LeaseSpec(profile="p", queue="q", driver=ContainerSize(cores=1, memory=1 << 30))


def profile(allowed=("*",), bounds=None, **pod) -> Profile:
    settings = parse_pod({"image": "spark:1", **pod}, "pod")
    return Profile(
        name="p", provisioner="kubernetes", defaults=SPEC, allowed_pod=allowed, pod=settings, pod_bounds=bounds or {}
    )


@pytest.mark.parametrize(
    ("setting", "words"),
    [
        ({"imag": "x"}, "pod.imag: there is no such pod setting"),
        ({"image": 1}, "pod.image: expected `str`, got `int`"),
        ({"image": "a b"}, "pod.image: 'a b' is not valid"),
        ({"image_pull_policy": "never"}, "pod.image_pull_policy: invalid enum value"),
        ({"namespace": "A"}, "pod.namespace: 'A' is not valid"),
        ({"namespace": "a/../b"}, "pod.namespace"),
        ({"labels": {"sparkbroker.io/driver": "x"}}, "is the broker's own"),
        ({"annotations": {"sparkbroker.io/pool": "x"}}, "is the broker's own"),
        ({"labels": {"a": "b c"}}, "is not a label's value"),
        ({"labels": {"a b": "c"}}, "is not a key that Kubernetes takes"),
        ({"env": {"SPARK_CONNECT_AUTHENTICATE_TOKEN": "x"}}, "is the broker's own"),
        ({"env": {"1A": "x"}}, "is not the name of a variable"),
        ({"env": {"A": 1}}, "pod.env"),
        ({"volumes": [{"emptyDir": {}}]}, "pod.volumes[0].name"),
        ({"volumes": [{"name": "sparkbroker-files", "emptyDir": {}}]}, "is the broker's or Spark's own"),
        ({"volumes": [{"name": "a"}, {"name": "a"}]}, "is there twice"),
        ({"volume_mounts": [{"name": "a", "mountPath": "rel"}]}, "is not a mount"),
        ({"sidecars": [{"name": "spark-kubernetes-driver"}]}, "is the broker's or Spark's own"),
        ({"driver_cpu_request": "lots"}, "pod.driver_cpu_request"),
        ({"python_version": "3"}, "pod.python_version"),
        ({"driver_template": {"kind": "Pod"}}, "is not a part of a pod template"),
        ({"driver_template": {"metadata": {"name": "x"}}}, "pod.driver_template.metadata.name"),
        ({"driver_template": {"metadata": {"labels": {"sparkbroker.io/driver": "x"}}}}, "broker's own"),
        ({"executor_template": {"spec": {"serviceAccountName": "x"}}}, "use service_account"),
        (
            {"executor_template": {"spec": {"resources": {"requests": {"cpu": "1000"}}}}},
            "pod.executor_template.spec.resources: can't be set by a template",
        ),
        ({"sidecars": [{"name": "s", "securityContext": None}]}, "pod.sidecars[0].securityContext: is no object"),
        ({"init_containers": [{"name": "s", "resources": "1"}]}, "pod.init_containers[0].resources: is no object"),
        ({"sidecars": [{"name": "s", "resources": {"limits": [1]}}]}, "pod.sidecars[0].resources.limits: is no object"),
        ({"driver_template": {"spec": {"affinity": "near"}}}, "pod.driver_template.spec.affinity: is no object"),
        (
            {"driver_template": {"spec": {"terminationGracePeriodSeconds": "5s"}}},
            "terminationGracePeriodSeconds: is no whole number",
        ),
        ({"executor_template": {"spec": {"containers": {}}}}, "is not a list of objects"),
        ({"tolerations": [{}] * 300}, "at most 256 are taken"),
    ],
)
def test_what_is_wrong_is_told_with_its_place(setting, words):
    with pytest.raises(InvalidField) as error:
        parse_pod(setting, "pod")
    assert words in str(error.value)


def test_whole_numbers_of_protobufs_json_are_whole():
    parsed = parse_pod({"tolerations": [{"key": "a", "tolerationSeconds": 30.0}]}, "pod")
    assert parsed.tolerations[0] == {"key": "a", "tolerationSeconds": 30}
    assert isinstance(parsed.tolerations[0]["tolerationSeconds"], int)


def test_a_holders_settings_go_over_the_profiles():
    below = parse_pod(
        {"image": "a", "env": {"A": "1", "B": "1"}, "tolerations": [{"key": "x"}], "one_zone": True}, "pod"
    )
    over = parse_pod({"image": "b", "env": {"B": "2"}, "tolerations": [{"key": "x"}, {"key": "y"}]}, "pod")
    merged = merge(below, over)
    assert merged.image == "b"
    assert merged.env == {"A": "1", "B": "2"}
    assert merged.tolerations == ({"key": "x"}, {"key": "y"})
    assert merged.one_zone


def test_a_holder_cant_redefine_the_profiles_volume():
    below = parse_pod({"volumes": [{"name": "data", "persistentVolumeClaim": {"claimName": "a"}}]}, "pod")
    over = parse_pod({"volumes": [{"name": "data", "emptyDir": {}}]}, "pod")
    with pytest.raises(InvalidField, match="is also one of the profile's"):
        merge(below, over)
    assert merge(below, below) == below


settings = st.fixed_dictionaries(
    {},
    optional={
        "image": st.sampled_from(["a", "b:1"]),
        "env": st.dictionaries(st.sampled_from("ABC"), st.text("xyz", max_size=2), max_size=3),
        "labels": st.dictionaries(st.sampled_from("abc"), st.sampled_from("xyz"), max_size=3),
        "node_selector": st.dictionaries(st.sampled_from("abc"), st.sampled_from("xyz"), max_size=3),
        "tolerations": st.lists(st.fixed_dictionaries({"key": st.sampled_from("abc")}), max_size=3),
        "one_zone": st.booleans(),
    },
)


@given(settings, settings)
def test_merging_loses_nothing_of_the_profiles(below, over):
    ours, theirs = parse_pod(below, "pod"), parse_pod(over, "pod")
    merged = merge(ours, theirs)
    assert merge(ours, PodSettings()) == ours
    assert {item["key"] for item in merged.tolerations} == {
        item["key"] for item in (*ours.tolerations, *theirs.tolerations)
    }
    for name in ("env", "labels", "node_selector"):
        assert getattr(merged, name) == {**getattr(ours, name), **getattr(theirs, name)}
    # Merging twice changes no more.
    assert merge(merged, theirs) == merged


def test_objects_merge_deeply_and_lists_are_joined():
    assert deep_merge({"a": {"x": 1, "l": [1]}, "b": 1}, {"a": {"y": 2, "l": [1, 2]}, "b": 2}) == {
        "a": {"x": 1, "y": 2, "l": [1, 2]},
        "b": 2,
    }


@pytest.mark.parametrize(
    ("pod", "words"),
    [
        ({"volumes": [{"name": "v", "secret": {"secretName": "db"}}]}, "'db' is not allowed by the profile"),
        (
            {"volumes": [{"name": "v", "projected": {"sources": [{"secret": {"name": "db"}}]}}]},
            "'projected' is not allowed",
        ),
        ({"volumes": [{"name": "v", "hostPath": {"path": "/"}}]}, "'hostPath' is not allowed"),
        ({"env": {"A": {"secretKeyRef": {"name": "db", "key": "k"}}}}, "'db' is not allowed"),
        ({"sidecars": [{"name": "s", "envFrom": [{"secretRef": {"name": "db"}}]}]}, "'db' is not allowed"),
        ({"sidecars": [{"name": "s", "securityContext": {"privileged": True}}]}, "privileged can't be a holder's"),
        ({"driver_template": {"spec": {"hostNetwork": True}}}, "hostNetwork can't be a holder's"),
        (
            {"sidecars": [{"name": "s", "securityContext": {"capabilities": {"add": ["SYS_ADMIN"]}}}]},
            "capabilities.add",
        ),
        ({"image_pull_secrets": ["db"]}, "'db' is not allowed"),
        ({"namespace": "other"}, "'other' is not allowed"),
    ],
)
def test_what_no_holder_may_have_unless_the_profile_bounds_it_otherwise(pod, words):
    with pytest.raises(InvalidField) as error:
        check_pod(pod, profile())
    assert words in str(error.value)


def test_bounds_open_what_they_name():
    bounds = {
        "image": ("registry/team-*",), "secrets": ("team-*",), "host_paths": ("/data/*",),
        "volume_kinds": ("secret", "hostPath"), "namespace": ("spark-b",), "env": ("TEAM_*",), "tolerations": ("spot",),
    }  # fmt: skip
    allowed = {
        "image": "registry/team-a:2",
        "namespace": "spark-b",
        "env": {"TEAM_X": {"secretKeyRef": {"name": "team-db", "key": "k"}}},
        "tolerations": [{"key": "spot"}],
        "volumes": [{"name": "a", "secret": {"secretName": "team-x"}}, {"name": "b", "hostPath": {"path": "/data/x"}}],
    }
    assert check_pod(allowed, profile(bounds=bounds)) == allowed
    for refused in (
        {"image": "evil/registry/team-a"},
        {"env": {"PATH": "/x"}},
        {"tolerations": [{"operator": "Exists"}]},
        {"volumes": [{"name": "a", "emptyDir": {}}]},
        {"volumes": [{"name": "b", "hostPath": {"path": "/etc"}}]},
    ):
        with pytest.raises(InvalidField, match="is not allowed by the profile"):
            check_pod(refused, profile(bounds=bounds))


@pytest.mark.promise(11)
def test_no_bound_opens_another_drivers_token():
    bounds = {"secrets": ("*",)}
    with pytest.raises(InvalidField, match="a driver's own secret"):
        check_pod({"env": {"A": {"secretKeyRef": {"name": "sparkbroker-d1", "key": "token"}}}}, profile(bounds=bounds))


def test_bounds_name_what_can_be_bounded():
    check_bounds({"image": ("a*",), "secrets": ()}, "pod_bounds")
    with pytest.raises(InvalidField, match="can't be bounded"):
        check_bounds({"imag": ("a",)}, "pod_bounds")
    with pytest.raises(InvalidField, match="list the namespaces"):
        check_bounds({"namespace": ("spark-*",)}, "pod_bounds")


def test_a_profile_that_runs_no_pods_takes_settings_without_effect():
    plain = msgspec.structs.replace(profile(), provisioner="local", pod=PodSettings())
    assert check_pod({"volumes": "nonsense"}, plain) == {"volumes": "nonsense"}
