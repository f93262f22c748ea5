"""A field of a request is known everywhere that a request passes: protocol, client, parser, domain, command line, provider.

A new field fails here until each of them has it, or says in one of the lists below why it doesn't. CONTRIBUTING names the files.
"""

from typing import Any, get_args, get_type_hints

import msgspec
import pytest
from google.protobuf.message import Message
from typer.testing import CliRunner

from sparkbroker.airflow_provider import request as task_request
from sparkbroker.broker.cli import run as running
from sparkbroker.broker.cli.main import app
from sparkbroker.broker.cli.properties import LIFTED
from sparkbroker.broker.rpc import convert, parse
from sparkbroker.client import Ask, ask_text
from sparkbroker.client._ask import acquire_request
from sparkbroker.v1 import broker_pb2 as pb

ARGUMENTS = set(Ask.__annotations__)
EVERYTHING: Ask = {
    "profile": "p", "queue": "q", "mode": "CLIENT", "sharing": "SHARED", "cores": 1, "memory": "1g", "memory_overhead": "1g",
    "holder_pod": {"namespace": "n", "name": "n", "uid": "u"}, "executors": (1, 2), "executor_cores": 1,
    "executor_memory": "1g", "executor_memory_overhead": "1g", "conf": {"spark.a": "b", "spark.unset": None},
    "pod": {"image": "i"}, "packages": ["a:b:1"], "jars": ["/a.jar"], "priority": 1, "labels": {"a": "b"}, "wait_ttl": 1,
    "unattended_ttl": 1, "ttl": 1, "acquire_timeout": 1, "max_duration": 1, "keep_when_holder_lost": True, "key": "k",
    "on_existing": "REPLACE", "request_id": "a",
}  # fmt: skip
RESOLVED = {"unset_conf"}
"""Fields of a spec as asked that a complete one no longer has."""
NOT_WRITTEN = {
    "sharing": "the operator's kind says it",
    "holder_pod": "the worker's own pod",
    "wait_ttl": "a task watches while it waits",
    "ttl": "a task renews while it runs",
    "keep_when_holder_lost": "follows from on_retry",
    "key": "lease_key, which concerns the task too",
    "on_existing": "follows from on_retry",
    "request_id": "the task instance's own",
}
"""Arguments of an Ask that nobody writes as a task's argument."""
NOT_OPTIONS = {
    "memory_overhead": "--conf spark.driver.memoryOverhead",
    "executor_memory_overhead": "--conf spark.executor.memoryOverhead",
    "sharing": "a command is one user",
    "holder_pod": "--mode client is refused",
    "pod": "the profile's",
    "wait_ttl": "the command watches while it waits",
    "unattended_ttl": "the command attaches at once",
    "ttl": "the command renews while it runs",
    "keep_when_holder_lost": "the lease ends with its command",
    "request_id": "each command is a request of its own",
}
"""Those that ``run`` has no option for."""
OPTIONS = {"conf": "spark.a=b", "label": "a=b", "mode": "connect", "on_existing": "fail", "executors": "1:2", "cores": "1",
           "executor_cores": "1", "priority": "1", "acquire_timeout": "1s", "max_duration": "1s"}  # fmt: skip


def unset(message: Message, path: str = "") -> list[str]:
    """The fields of a message, and of those within it, that have no value."""
    told = {field.name for field, _ in message.ListFields()}
    found = [f"{path}{name}" for name in message.DESCRIPTOR.fields_by_name if name not in told]
    for field, value in message.ListFields():
        if isinstance(value, Message) and type(value).__module__ == pb.__name__:
            found += unset(value, f"{path}{field.name}.")
    return found


def names(kind: Any) -> set[str]:
    return {field.name for field in msgspec.structs.fields(kind)}


def spec_type() -> Any:
    return get_type_hints(convert.lease_spec)["spec"]


def test_every_argument_is_asked_for_here():
    assert set(EVERYTHING) == ARGUMENTS


def test_the_client_can_fill_every_field_of_the_protocol():
    assert not unset(acquire_request(EVERYTHING, "unused"))


def test_the_parser_reads_every_field_of_the_protocol():
    nothing = parse.spec_request(pb.LeaseSpec())
    everything = parse.spec_request(acquire_request(EVERYTHING, "unused").spec)
    assert names(type(everything)) == set(pb.LeaseSpec.DESCRIPTOR.fields_by_name)
    forgotten = {name for name in names(type(everything)) if getattr(everything, name) == getattr(nothing, name)}
    assert not forgotten


def test_the_domain_has_every_field_and_the_protocol_tells_it():
    assert names(spec_type()) == set(pb.LeaseSpec.DESCRIPTOR.fields_by_name) - RESOLVED
    size = {"cores": 1, "memory": 1 << 30, "overhead": 1 << 30}
    complete = msgspec.convert(
        {
            "profile": "p", "queue": "q", "mode": "CLIENT", "sharing": "SHARED", "driver": size,
            "executors": {"size": size, "min_count": 1, "max_count": 2}, "conf": {"a": "b"}, "packages": ["a:b:1"],
            "jars": ["/a.jar"], "pod": {"image": "i"}, "holder_pod": {"namespace": "n", "name": "n", "uid": "u"},
            "priority": 1, "labels": {"a": "b"}, "wait_ttl": 1.0, "unattended_ttl": 1.0, "ttl": 1.0,
            "acquire_timeout": 1.0, "max_duration": 1.0, "keep_when_holder_lost": True,
        },
        spec_type(),
    )  # fmt: skip
    assert set(unset(convert.lease_spec(complete))) == RESOLVED


def test_a_task_has_every_argument_or_it_is_said_why_not():
    assert set(ask_text.READERS) == ARGUMENTS - set(NOT_WRITTEN)
    assert len(task_request.BROKER_ARGUMENTS) == len(ask_text.READERS)
    assert set(task_request.READERS) == set(task_request.LEASE_ARGUMENTS)


def test_modes_and_keys_of_sparks_are_the_same_everywhere():
    modes = {name.removeprefix("LEASE_MODE_") for name in pb.LeaseMode.keys()} - {"UNSPECIFIED"}  # noqa: SIM118  an enum
    assert set(get_args(get_type_hints(Ask)["mode"])) == modes
    assert {ask_text.READERS["mode"](mode.lower(), "mode") for mode in modes} == modes
    assert {key: name for key, name in LIFTED.items() if name in ARGUMENTS} == ask_text.SPARK_KEYS


def test_the_command_line_has_every_argument_or_it_is_said_why_not(monkeypatch: pytest.MonkeyPatch):
    seen: list[Any] = []

    def run(options: Any) -> int:
        seen.append(options)
        return 0

    monkeypatch.setattr(running, "run", run)
    options = {name: name for name in ARGUMENTS - set(NOT_OPTIONS) - {"labels"}} | OPTIONS
    given = [text for name, value in options.items() for text in (f"--{name.replace('_', '-')}", value)]
    done = CliRunner().invoke(app, ["run", *given, "--", "true"])
    assert seen, done.output or done.exception
    assert set(seen[0].ask) == ARGUMENTS - set(NOT_OPTIONS)
