"""What ``.ci/run`` does with its commands, and with what it makes meanwhile. ``make`` is a stand-in here."""

import contextlib
import os
import select
import shutil
import subprocess
from pathlib import Path

import pytest

RUN = Path(__file__).parents[1] / ".ci" / "run"
MAKE = """#!/bin/bash
echo "$*" >> "$TOLD"
case "$*" in
  cluster-ahead) eval "$AHEAD" ;;
  lint*) eval "$TESTS" ;;
esac
"""


@pytest.fixture
def ci(tmp_path):
    """``ci(ahead=…, tests=…)``: the script's result, and the targets that it asked for, for these two lines of shell."""
    for name, text in {"bin/make": MAKE, "scripts/install-test-needs": "#!/bin/bash\n"}.items():
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        path.write_text(text)
        path.chmod(0o755)
    shutil.copytree(RUN.parent, tmp_path / ".ci")

    def run(*, ahead="true", tests="true", **env):
        told = tmp_path / "told"
        kept = {name: value for name, value in os.environ.items() if name != "KUBECONFIG"}
        path = f"{tmp_path}/bin:{os.environ['PATH']}"
        given = {"PATH": path, "TMPDIR": str(tmp_path), "TOLD": str(told), "AHEAD": ahead, "TESTS": tests}
        done = subprocess.run(
            [tmp_path / ".ci" / "run"], env=kept | given | env, capture_output=True, text=True, check=False
        )
        return done, told.read_text().splitlines()

    return run


def test_the_cluster_is_made_ready_meanwhile_and_taken_down(ci):
    done, told = ci(ahead="echo compiled")
    assert done.returncode == 0
    assert "compiled" in done.stdout
    assert told[0] == "class-archive"
    assert sorted(told[1:3]) == ["cluster-ahead", "lint test-core test-airflow"]
    assert told[3:] == ["test-kubernetes-most", "cluster-down"]


def test_what_could_not_be_made_fails_the_run_with_its_words(ci):
    done, told = ci(ahead="echo 'no such module'; exit 2")
    assert done.returncode == 1
    assert "with status 2:\nno such module\n" in done.stdout
    assert "test-kubernetes-most" not in told
    assert told[-1] == "cluster-down"


def test_tests_that_fail_end_what_is_being_made(ci, tmp_path):
    ahead = f"sleep 600 & echo $! > {tmp_path}/pid; mv {tmp_path}/pid {tmp_path}/begun; wait"
    done, told = ci(ahead=ahead, tests=f"until [ -e {tmp_path}/begun ]; do sleep 0.01; done; exit 3")
    assert done.returncode == 3
    assert told[-1] == "cluster-down"
    with contextlib.suppress(ProcessLookupError):
        process = os.pidfd_open(int((tmp_path / "begun").read_text()))
        assert select.select([process], [], [], 30)[0], "it goes on"
        os.close(process)


def test_nothing_is_made_for_a_cluster_that_is_there(ci):
    done, told = ci(KUBECONFIG="/it")
    assert done.returncode == 0
    assert told == ["lint test"]
