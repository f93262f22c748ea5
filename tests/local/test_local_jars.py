"""Jars and packages are on the machine before a driver starts, or the error names what is missing."""

import asyncio
import contextlib
import os
import select
import socket
import subprocess
import sys
import threading
import zipfile
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from sparkbroker.broker.adapters.local_provisioner import _errands
from sparkbroker.broker.adapters.local_provisioner._packages import Bounds, Jars
from sparkbroker.broker.adapters.local_provisioner._toolchain import discover
from sparkbroker.broker.domain.errors import ProvisionerFailed
from sparkbroker.broker.domain.lease.lease import ContainerSize, LeaseSpec

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
    tools = discover(request.profile)
    return await brought(Jars(machine.folder / "cache"), lambda jars, done: jars.resolve(request, tools, done))


async def brought(bringing, ask):
    """The answer, however long that takes."""
    try:
        while True:
            done = asyncio.Event()
            try:
                return await ask(bringing, done.set)
            except ProvisionerFailed as error:
                if "is being brought" not in error.message:
                    raise
            await done.wait()
    finally:
        await bringing.close()


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


RESOLVES = """
import asyncio, sys
from pathlib import Path
from sparkbroker.broker.adapters.local_provisioner import _ivy
from sparkbroker.broker.adapters.local_provisioner._toolchain import discover
from sparkbroker.broker.domain.lease.lease import ContainerSize, LeaseSpec
from sparkbroker.broker.domain.asking.profile import Profile
cache, repository = sys.argv[1:]
size = ContainerSize(cores=1, memory=1 << 30)
tools = discover(Profile(name="p", defaults=LeaseSpec(profile="p", queue="q", driver=size)))
names = ("org.example:wanted:1.0",)
wanted = _ivy.wanted(names, {"spark.jars.repositories": repository}, tools, Path(cache))
asyncio.run(_ivy.resolve_packages(wanted, names, tools, 60.0))
"""


@pytest.mark.spark
def test_ivy_ends_with_a_broker_that_is_killed(tmp_path):
    with socket.create_server(("127.0.0.1", 0)) as repository:
        repository.settimeout(60)
        url = f"http://127.0.0.1:{repository.getsockname()[1]}"
        with subprocess.Popen([sys.executable, "-c", RESOLVES, str(tmp_path), url]) as broker:
            try:
                asking, _ = repository.accept()
                [ivy] = Path(f"/proc/{broker.pid}/task/{broker.pid}/children").read_text().split()
                ended = os.pidfd_open(int(ivy))
            finally:
                broker.kill()
    with asking:
        assert select.select([ended], [], [], 10)[0], "Ivy runs on"
    os.close(ended)


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


class Web(ThreadingHTTPServer):
    """Serves ``content`` on loopback under any name but /gone, and less of it than it says under /short."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), WebHandler)
        self.content = b""
        self.leads_to = ""
        self.reached = threading.Event()
        self.left = threading.Event()
        self.asked: list[str] = []

    def url(self, name: str) -> str:
        return f"http://127.0.0.1:{self.server_port}/{name}"


class WebHandler(BaseHTTPRequestHandler):
    server: Web

    def do_GET(self) -> None:
        self.server.asked.append(self.path)
        if self.path.startswith("/elsewhere") and self.server.leads_to:
            self.send_response(302)
            self.send_header("Location", self.server.leads_to)
            self.end_headers()
            return
        if self.path.startswith("/slow"):
            self.drag_out()
            return
        if self.path.startswith("/gone"):
            self.send_error(404)
            return
        self.send_response(200)
        self.send_header("Content-Length", str(len(self.server.content)))
        self.end_headers()
        half = len(self.server.content) // 2
        self.wfile.write(self.server.content[:half] if self.path.startswith("/short") else self.server.content)

    def drag_out(self) -> None:
        """The beginning of an answer, and no more of it until its reader has gone."""
        self.wfile.write(b"HTTP/1.1 200 OK\r\nContent-Length: 100000\r\n\r\nP")
        self.wfile.flush()
        self.server.reached.set()
        self.connection.settimeout(30)
        with contextlib.suppress(OSError):
            self.connection.recv(1)
        self.server.left.set()
        self.close_connection = True

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def web(monkeypatch, machine) -> Iterator[Web]:
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    with Web() as server:
        server.content = jar(machine.folder / "served.jar").read_bytes()
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield server
        server.shutdown()
        thread.join()


@pytest.mark.spark
async def test_a_jar_from_the_web_is_fetched_once(machine, web):
    url = web.url("some%20where/a%20b.jar?v=1")
    [path] = await resolved(machine, jars=[url])
    assert Path(path).read_bytes() == web.content  # noqa: ASYNC240 (a test waits for nobody else)
    assert Path(path).name == "a_20b.jar"
    assert await resolved(machine, jars=[url], spark_jars=url) == (path,)
    assert len(web.asked) == 1
    [other] = await resolved(machine, jars=[web.url("elsewhere/a%20b.jar")])
    assert other != path


@pytest.mark.spark
async def test_a_jar_that_came_in_part_or_is_a_page_is_told_and_not_kept(machine, web):
    with pytest.raises(
        ProvisionerFailed, match=r"short\.jar' can't be downloaded: it ended after \d+ of \d+ bytes"
    ) as cut:
        await resolved(machine, jars=[web.url("short.jar")])
    assert cut.value.retryable
    whole, web.content = web.content, b"<html>Please log in</html>"
    with pytest.raises(ProvisionerFailed, match=r"page\.jar' can't be downloaded: it is not a jar") as page:
        await resolved(machine, jars=[web.url("page.jar")])
    assert page.value.misconfigured
    assert not [path for path in (machine.folder / "cache" / "jars").rglob("*") if path.is_file()]
    web.content = whole
    assert len(await resolved(machine, jars=[web.url("page.jar")])) == 1


@pytest.mark.spark
async def test_a_jar_that_the_web_does_not_have_is_named(machine, web):
    with pytest.raises(ProvisionerFailed, match=r"gone\.jar' can't be downloaded: HTTP Error 404") as gone:
        await resolved(machine, jars=[web.url("gone.jar")])
    assert gone.value.misconfigured
    server_gone = web.url("a.jar").replace(str(web.server_port), "1")
    with pytest.raises(ProvisionerFailed, match="Connection refused") as refused:
        await resolved(machine, jars=[server_gone])
    assert refused.value.retryable


@pytest.mark.parametrize("given", ["a:b", "a:b:c:d", "a:b:1;rm", '"a:b:1', "a:b:1 c"])
@pytest.mark.spark
async def test_a_coordinate_that_is_none_is_named(machine, given):
    with pytest.raises(ProvisionerFailed, match="group:artifact:version"):
        await resolved(machine, [given])


def files(machine, *jars):
    spec = LeaseSpec(profile="p", queue="q", driver=ContainerSize(cores=1, memory=1 << 30), jars=jars)
    return lambda bringing, done: bringing.files(machine.request("d1", spec), done)


async def test_a_server_that_drags_it_out_is_given_up_at_the_deadline_and_leaves_nothing(machine, web):
    bringing = Jars(machine.folder / "cache", Bounds(timeout=0.3))
    with pytest.raises(ProvisionerFailed, match=r"slow\.jar' can't be downloaded: not done after 0\.3 s") as refusal:
        await brought(bringing, files(machine, web.url("slow.jar")))
    assert refusal.value.retryable
    assert await asyncio.to_thread(web.left.wait, 20)
    assert not list((machine.folder / "cache" / "jars").iterdir())


async def test_what_is_under_way_ends_with_the_provisioner(machine, web, monkeypatch):
    monkeypatch.setattr(_errands, "PATIENCE", 0.0)
    bringing = Jars(machine.folder / "cache")
    with pytest.raises(ProvisionerFailed, match="is being brought"):
        await files(machine, web.url("slow.jar"))(bringing, lambda: None)
    await asyncio.to_thread(web.reached.wait, 20)
    await bringing.close()
    # Its end of the connection is closed: the process is gone.
    assert await asyncio.to_thread(web.left.wait, 20)
    assert not list((machine.folder / "cache" / "jars").iterdir())


@pytest.mark.parametrize("where", ["file:///etc/passwd", "ftp://127.0.0.1:1/a.jar"])
@pytest.mark.spark
async def test_a_redirect_leads_to_the_web_and_nowhere_else(machine, web, where):
    web.leads_to = where
    with pytest.raises(ProvisionerFailed, match="can't be downloaded") as refusal:
        await resolved(machine, jars=[web.url("elsewhere.jar")])
    assert refusal.value.misconfigured
    web.leads_to = web.url("there.jar")
    assert len(await resolved(machine, jars=[web.url("elsewhere2.jar")])) == 1


async def test_a_jar_that_is_too_large_is_told(machine, web):
    bringing = Jars(machine.folder / "cache", Bounds(jar_bytes=10))
    with pytest.raises(ProvisionerFailed, match="is larger than 10 bytes") as refusal:
        await brought(bringing, files(machine, web.url("large.jar")))
    assert refusal.value.misconfigured
