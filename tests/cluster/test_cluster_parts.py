"""What can be said about the cluster's program without a cluster."""

import contextlib
import json
import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tools.cluster import layout, needs, oci, processes
from tools.cluster.images import build_image
from tools.cluster.problems import ClusterError

ROOT = Path(__file__).parents[2]


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """Daemons are written down here, not where a cluster that is up has them."""
    monkeypatch.setattr(processes, "PIDS", tmp_path / "pids")
    monkeypatch.setattr(processes, "LOGS", tmp_path / "log")
    monkeypatch.setattr(processes, "RUN", tmp_path)
    yield tmp_path
    for daemon in processes.daemons():
        if daemon.lives():
            os.kill(daemon.pid, signal.SIGKILL)
        with contextlib.suppress(ChildProcessError):
            os.waitpid(daemon.pid, 0)


def test_the_version_is_that_of_the_module():
    text = (layout.GO_MODULES / "kubernetes" / "go.mod").read_text()
    assert f"k8s.io/kubernetes v{layout.KUBERNETES} " in text


def test_every_tool_module_is_pinned():
    for mod in layout.GO_MODULES.glob("*/go.mod"):
        assert (mod.parent / "go.sum").stat().st_size > 0
        assert "=> ." not in mod.read_text(), "a folder is not pinned"


def test_the_newest_go_that_a_module_asks_for_counts():
    assert needs.newest_go_line(["go 1.9.10\n", "module x\n\ngo 1.26.0\n", "go 1.26\n"]) == "1.26.0"


def test_missing_packages_are_named_together(monkeypatch):
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    monkeypatch.setattr(needs, "search_path", lambda: "/nowhere")
    with pytest.raises(ClusterError, match=r"apt-get install runc debootstrap iproute2 .*openssl"):
        needs.check_run()


def test_the_readme_names_what_is_needed():
    text = " ".join((ROOT / "README.md").read_text().split())
    [named] = re.findall(r"`apt-get install ([^`]+)`", text)
    wanted = {word for packages in needs.PACKAGES.values() for word in packages.split()}
    assert set(named.split()) == wanted | {"containernetworking-plugins"}
    go = needs.newest_go_line(path.read_text() for path in layout.GO_MODULES.glob("*/go.mod"))
    assert f"Go {go} " in text


def test_it_needs_root(monkeypatch):
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    with pytest.raises(ClusterError, match="needs root"):
        needs.check_run()


def test_a_missing_go_is_said_with_the_version(monkeypatch):
    monkeypatch.setenv("PATH", "/nowhere")
    with pytest.raises(ClusterError, match=r"install Go 1\.\d+"):
        needs.check_build()


@pytest.mark.parametrize("name", ["sparkbroker.test/spark", "spark:latest", "host:5000/spark"])
def test_an_image_that_would_be_pulled_is_refused(name):
    with pytest.raises(ClusterError, match="a tag other than latest"):
        build_image(name, ROOT)


def test_an_image_is_the_same_from_the_same_files(tmp_path):
    root = tmp_path / "root"
    (root / "bin").mkdir(parents=True)
    (root / "bin" / "it").write_text("it")
    first = oci.pack(root, tmp_path / "a", "x:1", entrypoint=["/bin/it"])
    os.utime(root / "bin" / "it", (1, 1))
    assert oci.pack(root, tmp_path / "b", "x:1", entrypoint=["/bin/it"]) == first


def test_daemons_are_ended_and_nobody_else(folder, monkeypatch):
    monkeypatch.setattr(processes, "SHUTDOWN", 0.5)
    processes.start("stubborn", ["bash", "-c", "trap '' TERM; echo begun; exec sleep 60"])
    processes.wait("it", lambda: "begun" in (folder / "log" / "stubborn.log").read_text(), seconds=20)
    [daemon] = processes.daemons()
    assert daemon.lives()
    bystander = subprocess.Popen(["sleep", "60"])
    try:
        # A line of a process that has ended, and whose pid is another's now.
        with (folder / "pids").open("a") as file:
            file.write(json.dumps({"pid": bystander.pid, "started": 1, "name": "another", "argv": []}) + "\n")
        processes.stop_all()
        assert not daemon.lives()
        assert bystander.poll() is None
        (folder / "pids").unlink()
    finally:
        bystander.kill()
        bystander.wait()


def test_a_wait_ends_with_a_daemon(folder):
    processes.start("short", ["false"])
    with pytest.raises(ClusterError, match=r"the thing can't become ready, since short has ended; see .*short\.log"):
        processes.wait("the thing", lambda: False, seconds=30)


def test_a_daemon_that_is_restarted_is_the_same_program_and_another_process(folder):
    processes.start("it", ["sleep", "60"])
    processes.start("beside", ["sleep", "60"])
    [first, beside] = processes.daemons()
    os.kill(first.pid, signal.SIGSTOP)
    processes.restart("it")
    [same, second] = processes.daemons()
    assert same == beside
    assert same.lives()
    assert second.argv == first.argv
    assert second.lives()
    assert not first.lives()
    with pytest.raises(ClusterError, match="no 'them' was started; there are: beside, it"):
        processes.restart("them")


def test_the_program_says_what_is_wrong_in_a_sentence(tmp_path):
    environment = {
        **os.environ,
        "SPARKBROKER_CLUSTER_RUN": str(tmp_path / "r"),
        "SPARKBROKER_CLUSTER_CACHE": str(tmp_path / "c"),
    }
    done = subprocess.run(
        [sys.executable, "-m", "tools.cluster", "kubeconfig"],
        cwd=ROOT,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stderr) == (1, "cluster: the cluster isn't up\n")
