"""What a session in the holder's own process is built with."""

import pytest

from sparkbroker.broker.domain.asking.local_session import check_local, local_conf, local_master
from sparkbroker.broker.domain.asking.profile import Profile
from sparkbroker.broker.domain.errors import InvalidField
from sparkbroker.broker.domain.lease.lease import ContainerSize, LeaseMode, LeaseSpec
from sparkbroker.broker.domain.pods.settings import PodSettings

SIZE = ContainerSize(cores=2, memory=3 << 30)


def spec(**changes):
    return LeaseSpec(profile="p", queue="q", driver=SIZE, mode=LeaseMode.LOCAL, **changes)


def profile(**changes):
    return Profile(name="p", defaults=spec(), **changes)


def test_it_has_the_profiles_conf_over_the_holders_and_the_leases_size():
    conf = local_conf(
        spec(conf={"spark.a": "holder", "spark.b": "holder", "spark.driver.memory": "64g"}),
        profile(conf={"spark.a": "profile", "spark.driver.memory": "65g"}),
    )
    assert conf == {
        "spark.a": "profile",
        "spark.b": "holder",
        "spark.driver.memory": "3g",
        "spark.ui.enabled": "false",
        "spark.ui.port": "0",
    }
    assert local_master(spec()) == "local[2]"


def test_it_has_a_ui_where_the_profile_has_one_and_where_it_is_asked_for():
    assert local_conf(spec(), profile(ui=True))["spark.ui.enabled"] == "true"
    assert local_conf(spec(conf={"spark.ui.enabled": "true"}), profile())["spark.ui.enabled"] == "true"


def test_its_packages_and_jars_are_those_of_the_request_and_the_profile():
    conf = local_conf(
        spec(packages=("g:a:1", "g:b:1"), jars=("/j.jar", "/a%20b/x#1.jar")),
        profile(conf={"spark.jars.packages": " g:c:1, g:a:1", "spark.jars.repositories": "r"}),
    )
    assert conf["spark.jars.packages"] == "g:a:1,g:b:1,g:c:1"
    assert conf["spark.jars"] == "/j.jar,file:///a%2520b/x%231.jar"
    assert conf["spark.jars.repositories"] == "r"


def test_what_it_cant_have_is_refused_by_name():
    with pytest.raises(InvalidField, match=r"spec\.pod: a LOCAL lease has no pod, and env, labels can't be given"):
        check_local({"labels": {}, "env": {}}, LeaseMode.LOCAL, profile())
    pods = profile(provisioner="kubernetes", pod=PodSettings(image="i", env={"A": "b"}, volumes=({"name": "v"},)))
    with pytest.raises(InvalidField, match=r"spec\.mode: profile `p` gives its pods env, volumes, and a LOCAL session"):
        check_local({}, LeaseMode.LOCAL, pods)
    check_local({"env": {}}, LeaseMode.CONNECT, pods)
    check_local({}, LeaseMode.LOCAL, profile(provisioner="kubernetes", pod=PodSettings(image="i", namespace="n")))
