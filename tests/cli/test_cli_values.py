"""The pure parts of the command line."""

import io
from pathlib import Path
from urllib.parse import quote

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console

from sparkbroker.broker.cli import python_files
from sparkbroker.broker.cli.exit_codes import EXIT_CODES, Exit
from sparkbroker.broker.cli.following import _show
from sparkbroker.broker.cli.output import lease_details
from sparkbroker.broker.cli.progress import sentence
from sparkbroker.broker.cli.properties import lift, parse_assignments, parse_properties
from sparkbroker.broker.cli.run_options import make_ask
from sparkbroker.broker.cli.spark_environment import command_environment
from sparkbroker.client import Progress
from sparkbroker.v1 import broker_pb2 as pb


def test_properties_are_read_as_java_does():
    text = "# a comment\n! another\n\nspark.a   one two \nspark.b=1\n  spark.c : x=y\nspark.d = long \\\n    line\nspark.e\\:f = a\\tb\\u00e9\\\\\nspark.g"
    assert parse_properties(text) == {
        "spark.a": "one two",
        "spark.b": "1",
        "spark.c": "x=y",
        "spark.d": "long line",
        "spark.e:f": "a\tbé\\",
        "spark.g": "",
    }


@given(st.dictionaries(st.from_regex(r"spark\.[a-zA-Z.]{1,20}", fullmatch=True), st.text("abc =:#!1", max_size=9)))
def test_what_is_written_is_read(conf):
    text = "".join(f"{key}={value}\n" for key, value in conf.items())
    assert parse_properties(text) == {key: value.strip() for key, value in conf.items()}


@given(st.text(max_size=200))
def test_no_text_is_too_strange_for_properties(text):
    assert isinstance(parse_properties(text), dict)


def test_sizes_in_the_configuration_become_the_request():
    arguments, rest = lift(
        {"spark.driver.memory": "2g", "spark.executor.instances": "3", "spark.jars": "/a,/b", "spark.x": "1"}
    )
    assert arguments == {"memory": "2g", "executors": 3, "jars": ["/a", "/b"]}
    assert rest == {"spark.x": "1"}
    with pytest.raises(Exit, match=r"spark\.driver\.cores: 'two' is not a whole number"):
        lift({"spark.driver.cores": "two"})


def test_options_win_over_conf_and_conf_over_the_file(tmp_path):
    file = tmp_path / "spark.conf"
    file.write_text("spark.driver.memory 1g\nspark.driver.cores 2\nspark.a file\nspark.b file\n")
    given_options = {"memory": "3g", "mode": "local", "packages": ["a:b:1,c:d:2"], "executors": "2:8", "queue": None}
    conf = ["spark.driver.cores=4", "spark.b=conf=x"]
    ask, files = make_ask(given_options, conf=conf, labels=["team=etl"], properties_file=file)
    assert ask == {
        "memory": "3g",
        "cores": 4,
        "mode": "LOCAL",
        "packages": ["a:b:1", "c:d:2"],
        "executors": (2, 8),
        "conf": {"spark.a": "file", "spark.b": "conf=x"},
        "labels": {"team": "etl"},
    }
    assert files == ()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"mode": "remote"}, "--mode: 'remote' is none of connect, local"),
        ({"mode": "Client"}, "--mode: 'client' makes the pod of the program that asks"),
        (
            {"mode": "client"},
            "give --mode connect, or --mode local for the classic API; or ask in the program itself, with ",
        ),
        ({"executors": "x"}, "--executors: 'x' is no number"),
        ({"acquire_timeout": "soon"}, "--acquire-timeout: 'soon' is not a duration"),
        ({"on_existing": "steal"}, "--on-existing: 'steal' is none of fail, reattach, replace"),
    ],
)
def test_a_wrong_option_is_named(options, message):
    with pytest.raises(Exit, match=message) as caught:
        make_ask(options, conf=[], labels=[], properties_file=None)
    assert caught.value.code == 2


def test_a_wrong_assignment_is_shown():
    with pytest.raises(Exit, match=r"--conf: 'spark\.x' is not K=V"):
        parse_assignments(["spark.x"])


def test_the_command_gets_what_it_had_and_what_makes_its_session():
    base = {"SPARK_CONNECT_AUTHENTICATE_TOKEN": "t", "PYTHONPATH": "/mine", "KEPT": "1"}
    variables = {"SPARK_REMOTE": "sc://x"}
    environment = command_environment(
        base, variables, broker_url="unix:///s", lease="leases/a", python_path=["/x.zip", "/y"]
    )
    assert environment.pop("PYTHONPATH").split(":")[1:] == ["/x.zip", "/y", "/mine"]
    assert environment == {
        "KEPT": "1",
        "SPARK_REMOTE": "sc://x",
        "SPARKBROKER_URL": "unix:///s",
        "SPARKBROKER_LEASE": "leases/a",
    }


@pytest.mark.parametrize(
    ("progress", "text"),
    [
        (
            {"state": "QUEUED", "position": 2, "queue_length": 5, "message": "needs 4 cores, 1 core is free"},
            "queued 2 of 5: needs 4 cores, 1 core is free",
        ),
        ({"state": "QUEUED", "attempt": 2, "reason": "RETRYING"}, "queued (attempt 2): RETRYING"),
        ({"state": "PROVISIONING", "attempt": 1}, "starting: the driver is being created"),
        ({"state": "READY"}, "ready"),
        (
            {"state": "QUEUED", "broker_unreachable": True, "message": "no route"},
            "the broker is away, waiting for it: no route",
        ),
    ],
)
def test_progress_in_a_sentence(progress, text):
    assert sentence(Progress(lease="leases/a", **progress)) == text


def test_a_lease_shows_the_phases_of_its_start_in_their_order():
    lease = pb.Lease(name="leases/a")
    names = ("queued", "admitted", "pod_scheduled", "sandbox_ready", "process_started", "port_open", "ready")
    for name in reversed(names):
        getattr(lease.timings, f"{name}_time").FromSeconds(1_700_000_000)
    shown = io.StringIO()
    Console(width=100, file=shown).print(lease_details(lease))
    lines = [line.partition("  ")[0] for line in shown.getvalue().splitlines()]
    assert [line for line in lines if line.replace(" ", "_") in names] == [name.replace("_", " ") for name in names]


def test_exit_codes_are_documented():
    assert {"0", "1", "2", "3", "4", "5", "6", "126", "127", "128+n"} == EXIT_CODES.keys()


def test_a_watch_shows_a_place_only_of_what_has_one(capsys):
    _show(pb.WatchLeaseResponse(progress=pb.Progress(position=2, queue_length=5, message="the queue is full")))
    _show(
        pb.WatchLeaseResponse(progress=pb.Progress(message="the driver is being created: a quota is full; tried again"))
    )
    shown = capsys.readouterr().out.splitlines()
    assert shown[0] == "  2 of 5: the queue is full"
    assert shown[1].startswith("  the driver is being created: ")


FOLDER = "a%20b #?é;:"


def test_py_files_are_paths_whatever_they_look_like(tmp_path):
    folder = tmp_path / FOLDER
    folder.mkdir()
    module, archive = folder / "m.py", folder / "x y.zip"
    module.write_text("")
    archive.write_text("")
    url = f"file://{quote(str(module))}"
    assert python_files.check([str(module), str(archive), url], connect=False) == (module, archive, module)
    with pytest.raises(Exit, match=r"--py-files: 'file:.*more than a path"):
        python_files.check([f"file://{tmp_path}/a#b/m.py"], connect=False)
    with pytest.raises(Exit, match="is not a file on this machine"):
        python_files.check([quote(str(module))], connect=False)


def test_staged_files_have_names_that_lists_and_urls_can_have(tmp_path):
    folder = tmp_path / FOLDER
    folder.mkdir()
    module, archive = folder / "m.py", folder / "x,y.zip"
    module.write_text("1")
    archive.write_text("2")
    staged = python_files.stage([archive, module], tmp_path / "run")
    assert staged.python_path == (f"{tmp_path}/run/modules", f"{tmp_path}/run/archives/0.zip")
    assert staged.files == (f"{tmp_path}/run/archives/0.zip", f"{tmp_path}/run/modules/m.py")
    assert [Path(file).read_text() for file in staged.files] == ["2", "1"]
    assert python_files.stage([], tmp_path / "other") == python_files.Staged()


@pytest.mark.parametrize("name", ["a%b.py", "a#.py", "a,b.py"])
def test_a_module_by_whose_name_nothing_is_imported_is_refused(tmp_path, name):
    (tmp_path / name).write_text("")
    with pytest.raises(Exit, match="by which no module is imported"):
        python_files.check([str(tmp_path / name)], connect=False)
