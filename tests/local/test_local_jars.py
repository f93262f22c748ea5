"""Jars and packages are on the machine before a driver starts, or the error names what is missing."""

import zipfile
from pathlib import Path

import pytest

from sparkbroker.broker.adapters.local_provisioner._packages import resolve
from sparkbroker.broker.adapters.local_provisioner._toolchain import discover
from sparkbroker.broker.adapters.system_clock import SystemClock
from sparkbroker.broker.domain.errors import ProvisionerFailed
from sparkbroker.broker.domain.lease import ContainerSize, LeaseSpec

POM = """<project><modelVersion>4.0.0</modelVersion><groupId>org.example</groupId><artifactId>{name}</artifactId>
<version>1.0</version><dependencies>{dependencies}</dependencies></project>"""
DEPENDENCY = (
    "<dependency><groupId>{group}</groupId><artifactId>{name}</artifactId><version>{version}</version></dependency>"
)


def publish(repository: Path, name: str, *dependencies: str) -> None:
    folder = repository / "org" / "example" / name / "1.0"
    folder.mkdir(parents=True)
    listed = ""
    for dependency in dependencies:
        group, artifact, version = dependency.split(":")
        listed += DEPENDENCY.format(group=group, name=artifact, version=version)
    (folder / f"{name}-1.0.pom").write_text(POM.format(name=name, dependencies=listed))
    jar(folder / f"{name}-1.0.jar")


def jar(path: Path) -> Path:
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("META-INF/MANIFEST.MF", "Manifest-Version: 1.0\n")
    return path


async def resolved(machine, packages=(), jars=(), **conf):
    spec = LeaseSpec(
        profile="p",
        queue="q",
        driver=ContainerSize(cores=1, memory=1 << 30),
        packages=tuple(packages),
        jars=tuple(jars),
        conf={key.replace("_", "."): value for key, value in conf.items()},
    )
    request = machine.request("d1", spec)
    return await resolve(request, discover(request.profile), machine.folder / "cache", SystemClock())


@pytest.mark.spark
@pytest.mark.timeout(120)
async def test_packages_come_with_what_they_need_but_not_with_spark(machine):
    repository = machine.folder / "repository"
    publish(repository, "needed")
    publish(repository, "wanted", "org.example:needed:1.0", "org.apache.spark:spark-core_2.13:4.0.0")
    uri = repository.as_uri()
    found = await resolved(machine, ["org.example:wanted:1.0"], spark_jars_repositories=uri)
    names = {Path(path).name.removeprefix("org.example_") for path in found}
    assert names == {"wanted-1.0.jar", "needed-1.0.jar"}
    (repository / "org").rename(repository / "gone")
    assert await resolved(machine, ["org.example:wanted:1.0"], spark_jars_repositories=uri) == found


@pytest.mark.spark
@pytest.mark.timeout(120)
async def test_a_package_that_does_not_exist_is_named(machine):
    settings = machine.folder / "settings.xml"
    settings.write_text(
        '<ivysettings><settings defaultResolver="all"/><resolvers><chain name="all">'
        f'<ibiblio name="only" m2compatible="true" root="{machine.folder.as_uri()}/"/></chain></resolvers></ivysettings>'
    )
    with pytest.raises(ProvisionerFailed, match=r"org\.example:nothing:9\.9 was not found") as refusal:
        await resolved(machine, ["org.example:nothing:9.9"], spark_jars_ivySettings=str(settings))
    assert refusal.value.misconfigured


@pytest.mark.parametrize(
    ("given", "problem"),
    [
        ("relative.jar", "is not absolute"),
        ("/no/such.jar", "there is no file '/no/such.jar'"),
        ("s3://bucket/a.jar", "is neither a path nor"),
    ],
)
@pytest.mark.spark
async def test_a_jar_that_will_not_do_is_named(machine, given, problem):
    with pytest.raises(ProvisionerFailed, match=problem) as refusal:
        await resolved(machine, jars=[given])
    assert refusal.value.misconfigured


@pytest.mark.spark
async def test_a_jar_that_is_none_is_told(machine):
    bad = machine.folder / "bad.jar"
    bad.write_text("no zip")
    with pytest.raises(ProvisionerFailed, match="is not a jar"):
        await resolved(machine, jars=[str(bad)])
    good = jar(machine.folder / "good.jar")
    assert await resolved(machine, jars=[good.as_uri()], spark_jars=str(good)) == (str(good),)


@pytest.mark.parametrize("given", ["a:b", "a:b:c:d", "a:b:1;rm", '"a:b:1', "a:b:1 c"])
@pytest.mark.spark
async def test_a_coordinate_that_is_none_is_named(machine, given):
    with pytest.raises(ProvisionerFailed, match="group:artifact:version"):
        await resolved(machine, [given])
