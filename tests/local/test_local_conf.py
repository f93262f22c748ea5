"""What a driver is started with: pure decisions."""

from pathlib import Path

import msgspec
import pytest

from sparkbroker.broker.adapters.local_provisioner import SparkLauncher, _logfile
from sparkbroker.broker.adapters.local_provisioner._conf import argument_file, jvm_arguments, properties
from sparkbroker.broker.adapters.local_provisioner._launch import Place
from sparkbroker.broker.adapters.local_provisioner._toolchain import (
    Java,
    Python,
    Spark,
    Toolchain,
    find_java,
    find_spark,
)
from sparkbroker.broker.adapters.static_provisioner import as_number, choose, parse_url
from sparkbroker.broker.domain.asking.conf import jar_uri
from sparkbroker.broker.domain.asking.profile import Profile, StaticEndpoint
from sparkbroker.broker.domain.errors import ProvisionerFailed
from sparkbroker.broker.domain.lease.lease import ContainerSize, ExecutorSpec

TOOLS = Toolchain(
    spark=Spark(home="/s", version="4.3.0", scala="2.13", jars=("/s/jars/slf4j-api.jar", "/s/jars/a.jar")),
    java=Java(home="/j", version="17.0.1", build=""),
    python=Python(executable="/py", version="3.11"),
)


def with_conf(spec, **conf):
    return msgspec.structs.replace(spec, conf={key.replace("_", "."): value for key, value in conf.items()})


def test_the_profile_wins_over_the_holder_and_the_broker_over_both(machine, small):
    spec = with_conf(small(), spark_a="holder", spark_b="holder", spark_master="holder", spark_ui_enabled="true")
    request = machine.request("d1", spec, conf={"spark.b": "profile", "spark.driver.memory": "9g"})
    found = properties(request, Path("/x"), ())
    assert found["spark.a"] == "holder"
    assert found["spark.b"] == "profile"
    assert found["spark.master"] == "local[1]"
    assert found["spark.driver.memory"] == "1g"
    assert found["spark.ui.enabled"] == "false"
    assert found["spark.connect.grpc.binding.address"] == "127.0.0.1"


def test_executors_are_threads_and_heap_of_one_process_or_processes(machine, small):
    executors = ExecutorSpec(size=ContainerSize(cores=2, memory=1 << 30), min_count=1, max_count=3)
    spec = msgspec.structs.replace(small(), executors=executors)
    assert properties(machine.request("d1", spec), Path("/x"), ())["spark.master"] == "local[7]"
    assert "-Xmx4g" in jvm_arguments(machine.request("d1", spec), TOOLS, Path("/x"), (), ())
    found = properties(machine.request("d1", spec, master="spark://127.0.0.1:7077"), Path("/x"), ())
    assert found["spark.master"] == "spark://127.0.0.1:7077"
    assert (found["spark.cores.max"], found["spark.executor.cores"], found["spark.executor.memory"]) == ("6", "2", "1g")
    found = properties(machine.request("d1", spec, master="local-cluster"), Path("/x"), ())
    assert found["spark.master"] == "local-cluster[3,2,1024]"


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        ({"conf": {"hive.x": "1"}}, "spark.hadoop.hive.x"),
        ({"driver": ContainerSize(cores=1, memory=100 << 20)}, "at least 480m"),
    ],
)
def test_what_spark_would_drop_or_refuse_is_refused_before(machine, small, change, problem):
    spec = msgspec.structs.replace(small(), **change)
    with pytest.raises(ProvisionerFailed, match=problem) as refusal:
        jvm_arguments(machine.request("d1", spec), TOOLS, Path("/x"), (), ())
    assert refusal.value.misconfigured


def test_a_master_with_executors_needs_some(machine, small):
    with pytest.raises(ProvisionerFailed, match=r"executors: .*needs at least one"):
        properties(machine.request("d1", master="local-cluster"), Path("/x"), ())


def test_jars_stand_after_sparks_and_go_to_executors(machine, small):
    arguments = jvm_arguments(machine.request("d1"), TOOLS, Path("/x"), ("/b.jar",), ("-XX:archive",))
    assert arguments[arguments.index("-cp") + 1] == "/s/jars/slf4j-api.jar:/s/jars/a.jar:/b.jar"
    assert "-Dspark.jars=/b.jar" in arguments
    assert "-XX:archive" in arguments


def test_a_profiles_java_options_and_structured_logging_win_over_our_logging(machine, small):
    def arguments(**conf: str) -> list[str]:
        spec = msgspec.structs.replace(small(), conf={f"spark.{key}": value for key, value in conf.items()})
        return list(jvm_arguments(machine.request("d1", spec, conf={}), TOOLS, Path("/x"), (), ()))

    (ours,) = [each for each in arguments() if each.startswith("-Dlog4j2.")]
    assert Path(ours.rpartition(",file://")[2]).is_file()
    theirs = "-Dlog4j2.configurationFile=/mine"
    given = arguments(**{"driver.extraJavaOptions": theirs})
    assert given.index(ours) < given.index(theirs)
    assert ours not in arguments(**{"log.structuredLogging.enabled": "true"})
    both = arguments(**{"driver.extraJavaOptions": "-Da=1 '-Db=2 3'", "driver.defaultJavaOptions": "-Da=0"})
    assert both.index("-Da=0") < both.index("-Da=1") < both.index("-Db=2 3")
    with pytest.raises(ProvisionerFailed, match=r"spark\.driver\.extraJavaOptions.*No closing quotation"):
        arguments(**{"driver.extraJavaOptions": "'-Da"})


def test_a_profiles_native_libraries_come_before_the_brokers_own(machine, small, monkeypatch):
    def path(**conf: str) -> str | None:
        spec = msgspec.structs.replace(small(), conf={f"spark.{key}": value for key, value in conf.items()})
        place = Place(arguments=Path("/x/a"), scratch=Path("/x"))
        plan = SparkLauncher.plan_with(machine.request("d1", spec, conf={}), place, TOOLS, (), ())
        return plan.environment.get("LD_LIBRARY_PATH")

    monkeypatch.delenv("LD_LIBRARY_PATH", raising=False)
    assert path() is None
    assert path(**{"driver.extraLibraryPath": "/native"}) == "/native"
    monkeypatch.setenv("LD_LIBRARY_PATH", "/broker")
    assert path() == "/broker"
    assert path(**{"driver.extraLibraryPath": "/native"}) == "/native:/broker"


def test_an_argument_file_keeps_every_character():
    assert argument_file(('a "b" \\c', "d\ne")) == b'"a \\"b\\" \\\\c"\n"d\\ne"\n'


def test_missing_java_and_spark_say_what_would_help(tmp_path, monkeypatch):
    with pytest.raises(ProvisionerFailed, match=r"java_home .*install a JDK and set JAVA_HOME"):
        find_java(str(tmp_path))
    with pytest.raises(ProvisionerFailed, match=r"spark_home .*pip install 'sparkbroker"):
        find_spark(str(tmp_path))
    old = tmp_path / "bin" / "java"
    old.parent.mkdir()
    old.write_text("#!/bin/sh\necho 'openjdk version \"1.8.0_442\"' >&2\n")
    old.chmod(0o755)
    monkeypatch.setenv("JAVA_HOME", str(tmp_path / "."))
    find_java.__globals__["read_java"].cache_clear()
    with pytest.raises(ProvisionerFailed, match=r"is Java 1\.8\.0_442, and Spark needs 17"):
        find_java(None)


def test_a_log_is_bounded_and_its_offsets_stay(tmp_path):
    path = tmp_path / "driver.log"
    lines = b"".join(b"line %07d\n" % number for number in range(100_000))
    with path.open("wb", buffering=0) as file:
        file.write(lines)
        assert not _logfile.bound(str(path), len(lines) * 2)
        assert _logfile.bound(str(path), 100_000)
        file.write(b"after\n")
    assert path.stat().st_blocks * 512 < 120_000
    assert path.stat().st_size == len(lines) + 6
    data, end = _logfile.read(str(path), 0, 1 << 20)
    assert end == len(lines) + 6
    assert data == (lines + b"after\n")[-len(data) :]
    assert 40_000 < len(data) < 110_000
    assert _logfile.read(str(path), len(lines), 100) == (b"after\n", len(lines) + 6)


@pytest.mark.parametrize(
    ("text", "lines", "expected"),
    [
        (b"a\nb\nc\n", 2, b"b\nc\n"), (b"a\nb\nc", 2, b"b\nc"), (b"a\n", 5, b"a\n"), (b"", 3, b""), (b"\n\n", 1, b"\n"),
        (b"x" * 70_000 + b"\ny\n", 2, b"x" * 70_000 + b"\ny\n"),
    ],
)  # fmt: skip
def test_the_last_lines(tmp_path, text, lines, expected):
    path = tmp_path / "log"
    path.write_bytes(text)
    assert text[_logfile.tail_offset(str(path), lines, 1 << 20) :] == expected


def test_connect_urls():
    address = parse_url("sc://spark.example:443/;use_ssl=true;user_id=ann%20b")
    assert (address.target, address.user_id, address.use_tls) == ("spark.example:443", "ann b", True)
    assert parse_url("sc://[::1]").target == "[::1]:15002"
    for wrong in ("http://a", "sc://", "sc://a:99999", "sc://a/path"):
        with pytest.raises(ProvisionerFailed, match="not a Spark Connect URL"):
            parse_url(wrong)
    with pytest.raises(ProvisionerFailed, match="token_file") as refusal:
        parse_url("sc://a/;token=secret")
    assert "secret" not in refusal.value.message


def test_a_jar_with_a_special_path_is_named_as_a_uri():
    assert jar_uri("/a/b.jar") == "/a/b.jar"
    assert jar_uri("file:///a%20b.jar") == "file:///a%20b.jar"
    assert jar_uri("/a%20b #/c?.jar") == "file:///a%2520b%20%23/c%3F.jar"


def test_a_static_endpoint_at_localhost_is_called_by_its_number():
    assert as_number("localhost:15002") == as_number("LocalHost.:15002") == "127.0.0.1:15002"
    assert as_number("[::1]:15002") == "[::1]:15002"
    assert as_number("localhost.example:1") == "localhost.example:1"


def test_endpoints_are_lent_once_unless_shared(small):
    endpoints = tuple(StaticEndpoint(url=f"sc://{name}") for name in "ab")
    profile = Profile(name="p", provisioner="static", defaults=small(), endpoints=endpoints)
    assert choose(profile, []) == endpoints[0]
    assert choose(profile, ["sc://a"]) == endpoints[1]
    assert choose(profile, ["sc://a", "sc://b"]) is None
    shared = msgspec.structs.replace(profile, shared_endpoints=True)
    assert choose(shared, ["sc://a", "sc://b", "sc://a"]) == endpoints[1]


def test_the_ui_is_where_spark_says(tmp_path):
    log = tmp_path / "log"
    log.write_text("26/11/21 18:23:21 INFO JettyUtils: Start Jetty 127.0.0.1:0 for SparkUI\n")
    assert _logfile.find_ui(str(log)) == ""
    with log.open("a") as file:
        file.write("26/11/21 18:23:22 INFO Utils: Successfully started service 'SparkUI' on port 37221.\n")
    assert _logfile.find_ui(str(log)) == "127.0.0.1:37221"
