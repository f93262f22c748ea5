import msgspec
import pytest

from sparkbroker.broker.domain.asking.request import SpecRequest, resolve
from sparkbroker.broker.domain.errors import InvalidField


def asked(profile, **fields):
    return resolve(SpecRequest(**fields), profile, queues=("adhoc", "etl"), default_queue="adhoc")


def refused(profile, **fields) -> InvalidField:
    with pytest.raises(InvalidField) as error:
        asked(profile, **fields)
    return error.value


def test_a_pod_setting_has_to_be_allowed_by_name(make_profile):
    profile = make_profile(allowed_pod=("image", "tolerations"))
    pod = {"image": "spark:4.1", "tolerations": [{"key": "spot", "operator": "Exists"}]}
    assert asked(profile, pod=pod).pod == pod
    error = refused(profile, pod={"image": "x", "volumes": []})
    assert str(error) == "spec.pod['volumes']: is not allowed by profile `small`; allowed are: image, tolerations"
    assert "allowed are: none" in str(refused(make_profile(), pod={"image": "x"}))
    assert asked(make_profile(allowed_pod=("*",)), pod={"volumes": []}).pod == {"volumes": []}


def test_a_pods_settings_go_over_the_profiles_one_by_one(make_profile):
    plain = make_profile(allowed_pod=("*",))
    defaults = msgspec.structs.replace(plain.defaults, pod={"image": "a", "env": {"A": "1"}})
    profile = msgspec.structs.replace(plain, defaults=defaults)
    assert asked(profile, pod={"image": "b"}).pod == {"image": "b", "env": {"A": "1"}}


@pytest.mark.parametrize("name", ["", "Image", "node-selector", "a" * 64, "spec.containers"])
def test_a_pod_setting_has_a_name(make_profile, name):
    assert "is not the name of a setting" in str(refused(make_profile(allowed_pod=("*",)), pod={name: 1}))


def test_pod_settings_are_bounded(make_profile):
    error = refused(make_profile(allowed_pod=("env",)), pod={"env": {"A": "x" * 70_000}})
    assert error.field == "spec.pod"
    assert "at most 65536" in str(error)


def test_a_default_of_the_profile_can_be_gone_without(make_profile):
    profile = make_profile()
    assert asked(profile).conf == {"spark.sql.shuffle.partitions": "8"}
    assert asked(profile, unset_conf=("spark.sql.shuffle.partitions",)).conf == {}
    assert asked(profile, unset_conf=("spark.sql.adaptive.enabled",)).conf == profile.defaults.conf


def test_what_is_unset_is_as_much_the_holders_as_what_is_set(make_profile):
    both = refused(
        make_profile(),
        conf={"spark.sql.shuffle.partitions": "2"},
        unset_conf=("spark.sql.shuffle.partitions",),
    )
    assert "is in conf as well" in str(both)
    profile = make_profile(conf={"spark.sql.ansi.enabled": "true"})
    for key in ("spark.sql.ansi.enabled", "spark.driver.memory", "spark.plugins", "x"):
        assert refused(profile, unset_conf=(key,)).field == f"spec.unset_conf['{key}']"
    many = tuple(f"spark.sql.adaptive.k{number}" for number in range(201))
    assert "at most 200" in str(refused(profile, unset_conf=many))
