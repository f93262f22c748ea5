"""The client's decisions: addresses, requests, schedules, retries, errors."""

import pickle
import sys
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import grpc
import pytest
from google.protobuf.any_pb2 import Any as ProtoAny
from google.protobuf.json_format import MessageToDict
from google.rpc import error_details_pb2, status_pb2
from hypothesis import given
from hypothesis import strategies as st

from sparkbroker import client
from sparkbroker.client._ask import acquire_request
from sparkbroker.client._retry import retry_delay
from sparkbroker.client._schedule import Answer, Beat, BeatState, answered, due, next_wake, overdue, unreachable
from sparkbroker.client._status import read_details, translate_status
from sparkbroker.client._values import ConnectConnection
from sparkbroker.v1 import broker_pb2 as pb


def address(url: str | None = None, folder: Path | None = None, **how: Any) -> client.Address:
    env = {"HOME": str(folder or "/nowhere")} | how.pop("env", {})
    return client.resolve_address(url, environ=env, **how)


def test_each_form_of_url() -> None:
    assert address("unix:///run/b.sock").target == "unix:/run/b.sock"
    assert (address("grpc://127.0.0.1:7077").target, address("grpc://127.0.0.1:7077").tls) == ("127.0.0.1:7077", False)
    assert address("grpcs://[::1]:7077").target == "[::1]:7077"
    assert address("grpcs://broker.example:7077").tls


@pytest.mark.parametrize("host", ["localhost", "LOCALHOST", "localhost.", "me.localhost"])
def test_this_machine_has_one_number_unless_the_broker_proves_its_name(host: str) -> None:
    assert address(f"grpc://{host}:7077", token="s3cret").target == "127.0.0.1:7077"
    assert address(f"grpcs://{host}:7077", token="s3cret").target == f"{host.lower()}:7077"


@pytest.mark.parametrize(
    "host", ["ip6-localhost", "localhost6", "0x7f.1", "127.1", "0.0.0.0", "localhost.example", "[::]"]
)
def test_a_name_that_may_be_another_machines_gets_no_token_in_the_clear(host: str) -> None:
    with pytest.raises(client.BadAddress, match=r"its IP address, such as 127\.0\.0\.1"):
        address(f"grpc://{host}:7077", token="s3cret")


@pytest.mark.parametrize(
    "url",
    [
        "http://x:1", "x:1", "grpc://", "grpc://host", "grpc://host:99999", "grpc://h:1/path", "unix://relative/x",
        "unix:relative", "unix:///" + "x" * 120, "grpc://h:1?token=s3cret", "grpc://s3cret@h:1", "ftp://u:s3cret@h:1?s3cret",
    ],
)  # fmt: skip
def test_a_bad_url_is_refused_with_its_source_and_without_its_secrets(url: str) -> None:
    with pytest.raises(client.BadAddress) as caught:
        address(env={"SPARKBROKER_URL": url})
    assert "SPARKBROKER_URL" in str(caught.value)
    assert "s3cret" not in str(caught.value)


def test_argument_before_environment_before_file_before_default(state_folder: Path) -> None:
    assert address(folder=state_folder).target == f"unix:{state_folder}/.local/state/sparkbroker/run/broker.sock"
    assert address(folder=state_folder, env={"XDG_STATE_HOME": "/s"}).target == "unix:/s/sparkbroker/run/broker.sock"
    file = state_folder / ".config/sparkbroker/client.toml"
    file.parent.mkdir(parents=True)
    file.write_text('url = "unix:///from/file"\ntoken = "t-file"')
    found = address(folder=state_folder)
    assert (found.url, found.token, found.source) == ("unix:///from/file", "t-file", str(file))
    env = {"SPARKBROKER_URL": "unix:///from/env"}
    assert address(folder=state_folder, env=env).url == "unix:///from/env"
    assert address("unix:///from/argument", state_folder, env=env).url == "unix:///from/argument"


@pytest.mark.parametrize(
    ("how", "origin"),
    [
        ({"ca_file": "/ca.pem"}, "the ca_file argument"),
        ({"env": {"SPARKBROKER_CA_FILE": "/ca.pem"}}, "SPARKBROKER_CA_FILE"),
    ],
)
def test_a_ca_file_without_tls_is_refused_with_its_source(how: dict[str, Any], origin: str) -> None:
    with pytest.raises(client.BadAddress) as caught:
        address("unix:///x", **how)
    assert str(caught.value).startswith(
        f"{origin} gives the CA file '/ca.pem', and 'unix:///x' (from the url argument)"
    )
    assert address("grpcs://h:1", **how).ca_file == Path("/ca.pem")


def test_a_ca_file_of_the_configuration_without_tls_is_refused(tmp_path: Path) -> None:
    file = tmp_path / ".config/sparkbroker/client.toml"
    file.parent.mkdir(parents=True)
    file.write_text('url = "unix:///from/file"\nca_file = "/ca.pem"')
    with pytest.raises(client.BadAddress, match="the configuration file gives the CA file"):
        address(folder=tmp_path)


def test_a_files_token_goes_to_no_other_url(tmp_path: Path) -> None:
    file = tmp_path / ".config/sparkbroker/client.toml"
    file.parent.mkdir(parents=True)
    file.write_text('url = "unix:///from/file"\ntoken = "t-file"')
    assert address("unix:///other", tmp_path).token == ""


@pytest.mark.parametrize(
    ("text", "word"),
    [("url = 1", "url"), ("nope", "TOML"), ('urll = "x"', "urll"), ('token = "x"', "url")],
)
def test_a_bad_file_is_named(tmp_path: Path, text: str, word: str) -> None:
    file = tmp_path / ".config/sparkbroker/client.toml"
    file.parent.mkdir(parents=True)
    file.write_text(text)
    with pytest.raises(client.BadAddress, match=word) as caught:
        address(folder=tmp_path)
    assert str(file) in str(caught.value)


def test_a_token_is_never_sent_in_the_clear_to_another_machine() -> None:
    with pytest.raises(client.BadAddress, match="unencrypted") as caught:
        address("grpc://broker.example:1", token="s3cret")
    assert "s3cret" not in str(caught.value)
    assert address("grpc://broker.example:1", token="s3cret", allow_plaintext=True).token == "s3cret"
    assert address("grpc://127.0.0.1:1", token="s3cret").token == "s3cret"


def test_token_and_token_file_together_and_bad_tokens_are_refused(tmp_path: Path) -> None:
    with pytest.raises(client.BadAddress, match="both"):
        address("unix:///x", token="a", token_file="/b")
    with pytest.raises(client.BadAddress, match="characters"):
        address("unix:///x", token="a\nb")
    with pytest.raises(client.BadAddress, match="can't be read"):
        address("unix:///x", token_file=tmp_path / "none").read_token()


def test_a_rotated_token_is_taken_up(tmp_path: Path) -> None:
    file = tmp_path / "token"
    file.write_text("one\n")
    found = address("unix:///x", token_file=file)
    assert found.read_token() == "one"
    file.write_text("two\n")
    assert found.read_token() == "two"


def test_nothing_shows_a_secret() -> None:
    found = address("unix:///x", token="s3cret")
    connection = ConnectConnection(
        endpoint="sc://127.0.0.1:1/", session_id="i", user_id="u", headers={"authorization": "Bearer s3cret"}
    )
    for shown in (found, connection, client.Broker(found), client.AsyncBroker(found)):
        assert "s3cret" not in repr(shown)
    assert connection.url() == "sc://127.0.0.1:1/;authorization=Bearer%20s3cret;user_id=u;session_id=i"


def test_a_request_has_what_was_asked_for() -> None:
    request = acquire_request(
        client.Ask(cores=2, memory="2g", executors=(1, 3), executor_cores=4, executor_memory="1g", mode="LOCAL",
             sharing="SHARED", conf={"a": "b"}, ttl=1.5, max_duration=timedelta(hours=1), key="k", on_existing="REATTACH",
             labels={"t": "x"}, priority=-3, packages=["g:a:v"], keep_when_holder_lost=True,
             pod={"image": "x", "tolerations": [{"key": "a"}]}),
        "id",
    )  # fmt: skip
    spec = request.spec
    assert (request.lease_key, request.on_existing, request.request_id) == ("k", pb.ON_EXISTING_REATTACH, "id")
    assert (spec.driver.cores, spec.driver.memory) == (2, "2g")
    assert (spec.executors.min_count, spec.executors.max_count, spec.executors.size.cores) == (1, 3, 4)
    assert (spec.mode, spec.sharing, spec.priority) == (pb.LEASE_MODE_LOCAL, pb.LEASE_SHARING_SHARED, -3)
    assert (spec.ttl.ToTimedelta(), spec.max_duration.seconds) == (timedelta(seconds=1.5), 3600)
    assert not spec.HasField("wait_ttl")
    assert MessageToDict(spec.pod) == {"image": "x", "tolerations": [{"key": "a"}]}
    assert acquire_request(client.Ask(), "id").spec == pb.LeaseSpec()


def test_conf_takes_what_people_write_as_spark_writes_it() -> None:
    conf: Any = {"a": 8, "b": True, "c": False, "d": 0.5, "e": "x", "f": -(2**70), "g": 1e-7}
    assert dict(acquire_request(client.Ask(conf=conf), "id").spec.conf) == {
        "a": "8", "b": "true", "c": "false", "d": "0.5", "e": "x", "f": "-1180591620717411303424", "g": "1e-07",
    }  # fmt: skip


def test_a_conf_of_none_goes_without_the_profiles_default() -> None:
    spec = acquire_request(client.Ask(conf={"a": "b", "c": None}), "id").spec
    assert (dict(spec.conf), list(spec.unset_conf)) == ({"a": "b"}, ["c"])


def test_a_program_may_name_its_request() -> None:
    assert acquire_request(client.Ask(request_id="mine"), "id").request_id == "mine"


def test_no_executors_is_not_the_same_as_unsaid() -> None:
    for ask in (client.Ask(executors=0), client.Ask(executors=(0, 0), executor_memory="2g")):
        spec = acquire_request(ask, "id").spec
        assert spec.HasField("executors")
        assert spec.executors == pb.ExecutorSpec()


def test_a_size_of_executors_alone_leaves_their_number_to_the_profile() -> None:
    spec = acquire_request(client.Ask(executor_memory="2g"), "id").spec
    assert spec.executors == pb.ExecutorSpec(size=pb.ContainerSize(memory="2g"))
    assert not acquire_request(client.Ask(), "id").spec.HasField("executors")


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("cores", 2**63), ("cores", 0), ("cores", -1), ("cores", True), ("cores", 1.5), ("cores", "2"), ("memory", 2), ("memory", ""),
        ("executors", (3, 1)), ("executors", (1, 2, 3)), ("executors", -1), ("mode", "CLUSTER"), ("ttl", float("nan")),
        ("ttl", -1), ("ttl", 1e99), ("conf", {"a": float("nan")}), ("conf", {"a": float("-inf")}), ("conf", {"a": [1]}), ("conf", {"a": b"1"}), ("conf", "a=b"), ("packages", "g:a:v"), ("labels", [("a", "b")]),
        ("key", 5), ("on_existing", "STEAL"), ("keep_when_holder_lost", "yes"), ("coers", 2),
        ("pod", "image"), ("pod", {"a": object()}), ("conf", {1: None}), ("request_id", 5),
    ],
)  # fmt: skip
def test_a_bad_argument_is_named(name: str, value: object) -> None:
    with pytest.raises(client.InvalidRequest) as caught:
        acquire_request({name: value}, "id")  # type: ignore[misc]
    assert caught.value.field == name
    assert str(caught.value).startswith(name)


BEAT = Beat(lease="leases/x", generation=1, ttl=30, sent=100)


@pytest.mark.promise(3)
def test_the_deadline_counts_from_when_the_renewal_was_sent() -> None:
    late = answered(BEAT, Answer(code=0, ttl=30), sent=110, now=125)
    assert late.deadline == 140
    assert overdue(late, 139.9).state is BeatState.ATTACHED
    assert overdue(late, 140).state is BeatState.SUSPECT
    # An answer that comes after its own deadline proves nothing about now.
    assert answered(BEAT, Answer(code=0, ttl=30), sent=110, now=141).state is BeatState.SUSPECT


def test_it_is_renewed_well_before_its_deadline_and_suspect_after() -> None:
    assert not due([BEAT], 109.9)
    assert due([BEAT], 110) == [BEAT]
    assert next_wake([BEAT], 105) == 5
    assert next_wake([], 0) is None
    assert unreachable(BEAT).state is BeatState.SUSPECT
    assert answered(unreachable(BEAT), Answer(code=0, ttl=30), 120, 121).state is BeatState.ATTACHED


@pytest.mark.parametrize(("code", "state"), [(5, BeatState.LOST), (9, BeatState.LOST), (14, BeatState.ATTACHED)])
def test_only_the_brokers_word_makes_it_lost(code: int, state: BeatState) -> None:
    beat = answered(BEAT, Answer(code=code, ttl=0), 110, 111)
    assert beat.state is state
    assert answered(beat, Answer(code=0, ttl=30), 112, 113).state is state, "nothing leads back from LOST"


@given(steps=st.lists(st.tuples(st.sampled_from([0, 14, 5]), st.floats(0, 50), st.floats(0, 50)), max_size=12))
def test_attached_means_renewed_within_ttl(steps: list[tuple[int, float, float]]) -> None:
    now, beat, confirmed, lost = 100.0, BEAT, 100.0, False
    for code, before, flight in steps:
        sent = now + before
        now = sent + flight
        beat = overdue(answered(beat, Answer(code=code, ttl=30), sent, now), now)
        lost = lost or code == 5
        confirmed = sent if code == 0 and not lost else confirmed
        assert (beat.state is BeatState.LOST) == lost
        if beat.state is BeatState.ATTACHED:
            assert now < confirmed + 30
        if not lost:
            assert next_wake([beat], now) is not None


@given(st.integers(1, 10_000), st.floats(0, 100), st.floats(0, 0.999))
def test_a_retry_fits_into_what_remains(attempt: int, remaining: float, jitter: float) -> None:
    delay = retry_delay(client.BrokerUnreachable("x"), attempt, remaining, jitter)
    assert delay is None or 0 < delay < remaining
    assert retry_delay(client.InvalidRequest("x"), attempt, remaining, jitter) is None
    hinted = retry_delay(client.TooManyRequests("x", retry_after=3.0), attempt, 10, jitter)
    assert hinted is not None
    assert hinted >= 3


def details(*messages: Any) -> list[tuple[str, bytes]]:
    status = status_pb2.Status(code=9, message="m")
    for message in messages:
        packed = ProtoAny()
        packed.Pack(message)
        status.details.append(packed)
    return [("grpc-status-details-bin", status.SerializeToString())]


def test_details_are_read_without_their_library() -> None:
    info = error_details_pb2.ErrorInfo(reason="NEVER_FITS", domain="d", metadata={"queue": "etl"})
    retry = error_details_pb2.RetryInfo()
    retry.retry_delay.FromMilliseconds(1500)
    bad = error_details_pb2.BadRequest(field_violations=[error_details_pb2.BadRequest.FieldViolation(field="spec.x")])
    read = read_details(details(info, retry, bad, error_details_pb2.DebugInfo(detail="ignored")))
    assert (read.reason, read.metadata, read.retry_after, read.bad_field) == (
        "NEVER_FITS",
        {"queue": "etl"},
        1.5,
        "spec.x",
    )
    assert read_details([("grpc-status-details-bin", b"\xff\xff")]).reason == ""
    assert read_details([]).reason == ""


def reasons_of_the_broker() -> list[tuple[str, type[client.SparkbrokerError]]]:
    return [
        ("INVALID_FIELD", client.InvalidRequest), ("REQUEST_ID_REUSED", client.RequestIdReused),
        ("NEVER_FITS", client.NeverFits), ("NOT_FOUND", client.LeaseNotFound), ("LEASE_KEY_IN_USE", client.LeaseKeyInUse),
        ("STALE_GENERATION", client.LeaseLost), ("LEASE_ENDED", client.LeaseEnded), ("LEASE_NOT_READY", client.LeaseNotReady),
        ("UNAUTHENTICATED", client.NotAuthenticated), ("FORBIDDEN", client.NotAllowed), ("TOO_MANY", client.TooManyRequests),
        ("COMPACTED", client.EventsCompacted), ("UNAVAILABLE", client.BrokerUnreachable), ("INTERNAL", client.BrokerFault),
    ]  # fmt: skip


@pytest.mark.parametrize(("reason", "kind"), reasons_of_the_broker())
def test_each_reason_has_its_error(reason: str, kind: type[client.SparkbrokerError]) -> None:
    trailers = details(error_details_pb2.ErrorInfo(reason=reason, metadata={"field": "spec.driver.cores"}))
    error = translate_status(grpc.StatusCode.UNKNOWN, "why", trailers, where="unix:///x", method="M")
    assert type(error) is kind
    assert "why" in str(error)
    again = pickle.loads(pickle.dumps(error))
    assert (type(again), str(again), again.reason) == (kind, str(error), reason)
    if isinstance(error, client.InvalidRequest):
        assert error.field == "spec.driver.cores"


@pytest.mark.parametrize(
    ("metadata", "kind"),
    [
        ({"field": "spec.profile"}, client.ProfileNotFound),
        ({"field": "spec.queue"}, client.QueueNotFound),
        ({"resource": "leases/1"}, client.LeaseNotFound),
        ({}, client.LeaseNotFound),
    ],
)
def test_what_is_not_found_is_told_apart(metadata: dict[str, str], kind: type[client.SparkbrokerError]) -> None:
    trailers = details(error_details_pb2.ErrorInfo(reason="NOT_FOUND", metadata=metadata))
    error = translate_status(grpc.StatusCode.NOT_FOUND, "why", trailers, where="unix:///x", method="M")
    assert type(error) is kind
    assert isinstance(error, client.NotFound)
    unexplained = translate_status(grpc.StatusCode.NOT_FOUND, "why", (), where="unix:///x", method="M")
    assert type(unexplained) is client.NotFound, "a lease is lost by the broker's word only"


def test_only_the_reason_says_that_a_lease_has_ended() -> None:
    trailers = details(error_details_pb2.ErrorInfo(reason="PROVISIONER_FAILED"))
    code = grpc.StatusCode.FAILED_PRECONDITION
    error = translate_status(code, "the token file is gone", trailers, where="unix:///x", method="GetConnection")
    assert type(error) is client.BrokerFault


def test_a_request_that_is_too_large_is_not_tried_again() -> None:
    text = "SERVER: Received message larger than max (10000062 vs. 262144)"
    error = translate_status(grpc.StatusCode.RESOURCE_EXHAUSTED, text, (), where="unix:///x", method="AcquireLease")
    assert type(error) is client.InvalidRequest
    assert text in str(error)
    busy = translate_status(
        grpc.StatusCode.RESOURCE_EXHAUSTED, "Concurrent RPC limit exceeded!", (), where="x", method="M"
    )
    assert type(busy) is client.TooManyRequests


def test_the_client_knows_every_reason_of_the_broker() -> None:
    errors = pytest.importorskip("sparkbroker.broker.domain.errors")
    internal = {"INTERNAL", "ILLEGAL_TRANSITION", "PROVISIONER_FAILED"}
    theirs = {kind.reason for kind in vars(errors).values() if isinstance(kind, type) and hasattr(kind, "reason")}
    assert theirs - internal <= {reason for reason, _ in reasons_of_the_broker()}


def test_importing_costs_nothing_that_is_not_used(script: Callable[..., Any]) -> None:
    done = script(
        "import sys, grpc\nbefore = set(sys.modules)\nimport sparkbroker.client\n"
        "new = {m for m in sys.modules if m not in before}\n"
        "print(*sorted(m for m in new if not m.startswith('sparkbroker')))"
    )
    assert done.stdout.split() == [], done.stderr


@pytest.mark.parametrize(
    "statement", ["import sparkbroker.client", "from sparkbroker.client import Broker; Broker('unix:///x')"]
)
def test_the_import_waits_with_grpc_until_it_is_used(script: Callable[..., Any], statement: str) -> None:
    """In modules, which can be counted: less than grpc's own import loads."""
    ours = script(f"import sys\n{statement}\nprint(*sys.modules)").stdout.split()
    peers = script("import sys, grpc\nprint(*sys.modules)").stdout.split()
    assert "sparkbroker.client" in ours
    assert not {"grpc", "google.protobuf", "asyncio", "pyspark"} & set(ours)
    assert len(ours) < len(peers)


def test_every_public_name_is_there() -> None:
    for name in client.__all__:
        assert getattr(client, name) is not None
    assert set(client.__all__) == set(dir(client))
    with pytest.raises(AttributeError, match="nope"):
        client.nope  # noqa: B018
    assert sys.modules["sparkbroker.client"].__doc__
