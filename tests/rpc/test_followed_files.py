"""Certificates and tokens are replaced while the broker serves; nobody restarts it or sends a signal."""

import os
from pathlib import Path
from uuid import uuid4

import grpc
import pytest
import trustme
from structlog.testing import capture_logs

from sparkbroker.broker.adapters.static_tokens import StaticTokens, new_token
from sparkbroker.broker.adapters.token_follower import TokenFollower
from sparkbroker.broker.domain.errors import Unauthenticated
from sparkbroker.broker.file_changes import LastRead
from sparkbroker.broker.rpc.certificates import Tls
from sparkbroker.broker.rpc.listeners import TcpListener
from sparkbroker.v1 import broker_pb2 as pb
from sparkbroker.v1 import broker_pb2_grpc


class MountedSecret:
    """A folder as Kubernetes makes it: names lead through ``..data``, which is turned to a new folder in one step."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        folder.mkdir()

    def replace(self, **files: str | bytes) -> None:
        """Have these files, and no others."""
        target = self.folder / f"..{uuid4()}"
        target.mkdir()
        for name, content in files.items():
            path = target / name
            path.write_bytes(content if isinstance(content, bytes) else content.encode())
            path.chmod(0o440)
            link = self.folder / name
            if not link.is_symlink():
                link.symlink_to(f"..data/{name}")
        turned = self.folder / "..data_tmp"
        turned.symlink_to(target.name)
        turned.rename(self.folder / "..data")


@pytest.fixture
def mounted(tmp_path):
    def mounted(name, **files):
        secret = MountedSecret(tmp_path / name)
        secret.replace(**files)
        return secret

    return mounted


class Issued:
    """A certificate by an authority of its own: who trusts that one tells it from every other."""

    def __init__(self) -> None:
        authority = trustme.CA()
        certificate = authority.issue_cert("localhost", "127.0.0.1")
        self.trust = grpc.ssl_channel_credentials(authority.cert_pem.bytes())
        self.pem = certificate.cert_chain_pems[0].bytes()
        self.key = certificate.private_key_pem.bytes()

    @property
    def files(self):
        return {"crt": self.pem, "pem": self.key}


@pytest.fixture
def issue():
    return Issued


@pytest.fixture
def listen(serve, tcp):
    """A server with the certificate of a Secret, and what connects to it anew."""

    async def listen(secret, tokens=tcp.authenticator):
        tls = Tls(secret.folder / "crt", secret.folder / "pem")
        served = await serve(listeners=[TcpListener("127.0.0.1", 0, tokens, tls)])

        async def connect(issued):
            return broker_pb2_grpc.BrokerServiceStub(await served.channel(credentials=issued.trust))

        return connect

    return listen


async def code(stub, token):
    """How a call ends that asks for nothing but who calls."""
    try:
        await stub.ListQueues(pb.ListQueuesRequest(), metadata=(("authorization", f"Bearer {token}"),))
    except grpc.aio.AioRpcError as error:
        return error.code().name
    return "OK"


def of(told, event):
    return [entry for entry in told if entry["event"] == event]


# -- certificates


async def test_a_renewed_certificate_is_served_while_an_open_stream_goes_on(listen, mounted, issue, token_file):
    token, before, renewed = token_file[1]["ann"], issue(), issue()
    secret = mounted("tls", **before.files)
    connect = await listen(secret)
    stream = (await connect(before)).KeepAlive(metadata=(("authorization", f"Bearer {token}"),))
    await stream.write(pb.KeepAliveRequest())
    await stream.read()
    with capture_logs() as told:
        secret.replace(**renewed.files)
        assert await code(await connect(renewed), token) == "OK"
        assert await code(await connect(renewed), token) == "OK"
        assert await code(await connect(before), token) == "UNAVAILABLE", "whoever trusts the old one alone"
    await stream.write(pb.KeepAliveRequest())
    assert isinstance(await stream.read(), pb.KeepAliveResponse)
    assert [entry["certificate"] for entry in of(told, "tls.renewed")] == [str(secret.folder / "crt")]


@pytest.mark.parametrize(
    ("broken", "why"),
    [
        (lambda before, renewed: {"crt": renewed.pem, "pem": before.key}, "KEY_VALUES_MISMATCH"),
        (lambda before, renewed: {"crt": before.pem, "pem": renewed.key}, "KEY_VALUES_MISMATCH"),
        (lambda before, renewed: renewed.files | {"crt": renewed.pem[:-30]}, "can't be used"),
        (lambda before, renewed: renewed.files | {"pem": b""}, "can't be used"),
        (lambda before, renewed: {"crt": renewed.pem}, "can't be read: No such file"),
    ],
    ids=["certificate first", "key first", "half a certificate", "empty key", "no key"],
)
async def test_files_that_are_no_pair_leave_the_old_one_until_they_are(listen, mounted, issue, token_file, broken, why):
    token, before, renewed = token_file[1]["ann"], issue(), issue()
    secret = mounted("tls", **before.files)
    connect = await listen(secret)
    with capture_logs() as told:
        secret.replace(**broken(before, renewed))
        for _ in range(2):
            assert await code(await connect(before), token) == "OK"
        (problem,) = of(told, "tls.not_renewed")
        assert problem["log_level"] == "error"
        assert why in problem["message"]
        assert str(secret.folder) in problem["message"]
        assert not of(told, "tls.renewed")
        secret.replace(**renewed.files)
        assert await code(await connect(renewed), token) == "OK"
        assert len(of(told, "tls.renewed")) == 1


async def test_each_change_that_is_no_pair_is_told_once(listen, mounted, issue, token_file):
    token, before = token_file[1]["ann"], issue()
    secret = mounted("tls", **before.files)
    connect = await listen(secret)
    with capture_logs() as told:
        for _ in range(2):
            secret.replace(crt=before.pem, pem=issue().key)
            for _ in range(2):
                assert await code(await connect(before), token) == "OK"
    assert len(of(told, "tls.not_renewed")) == 2


def test_what_could_not_be_used_is_read_again_though_nothing_shows_a_change():
    stamps = ((1, 2, 3),)
    assert not LastRead(stamps).due(stamps)
    assert LastRead(stamps, "Too many open files").due(stamps)
    assert LastRead(stamps).due(((1, 2, 4),))


# -- tokens


async def test_a_revoked_token_stops_working_and_a_new_one_works(listen, mounted, issue):
    issued = issue()
    (revoked, old_entry), (kept, kept_entry), (added, new_entry) = (new_token(name) for name in ("ann", "bob", "cleo"))
    secret = mounted("tokens", tokens=old_entry + kept_entry)
    tokens = StaticTokens(secret.folder / "tokens")
    follower = TokenFollower(tokens)
    stub = await (await listen(mounted("tls", **issued.files), tokens))(issued)
    assert [await code(stub, token) for token in (revoked, kept, added)] == ["OK", "OK", "UNAUTHENTICATED"]
    stream = stub.KeepAlive(metadata=(("authorization", f"Bearer {revoked}"),))
    await stream.write(pb.KeepAliveRequest())
    await stream.read()
    secret.replace(tokens=kept_entry + new_entry)
    with capture_logs() as told:
        follower.look()
        follower.look()
    assert [await code(stub, token) for token in (revoked, kept, added)] == ["UNAUTHENTICATED", "OK", "OK"]
    await stream.write(pb.KeepAliveRequest())
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await stream.read()
    assert caught.value.code() is grpc.StatusCode.UNAUTHENTICATED
    assert [entry["count"] for entry in of(told, "tokens.reloaded")] == [2]


@pytest.mark.parametrize(
    ("content", "why"),
    [
        ("[[token]\n", "is not valid TOML"),
        ("x = " + "[" * 100_000, "is not valid TOML"),
        ("x = 1" + "0" * 5000, "is not valid TOML"),
        (b"\xff", "is not UTF-8 (byte 0)"),
        ('[[token]]\nprincipal = "ann"\nsha256 = "0"\n', "entry 1 (ann): sha256 must be the 64 hexadecimal digits"),
        (None, "can't be read: No such file"),
    ],
    ids=["no TOML", "too deep", "a number too long", "no text", "no hash", "gone"],
)
async def test_a_broken_token_file_keeps_the_tokens(listen, mounted, issue, content, why):
    issued = issue()
    (token, entry), (added, new_entry) = new_token("ann"), new_token("bob")
    secret = mounted("tokens", tokens=entry)
    tokens = StaticTokens(secret.folder / "tokens")
    follower = TokenFollower(tokens)
    stub = await (await listen(mounted("tls", **issued.files), tokens))(issued)
    secret.replace(**({} if content is None else {"tokens": content}))
    with capture_logs() as told:
        follower.look()
        follower.look()
        (problem,) = of(told, "tokens.not_reloaded")
        assert (problem["log_level"], problem["file"]) == ("error", str(secret.folder / "tokens"))
        assert why in problem["message"]
        assert "mend the file" in problem["hint"]
        assert await code(stub, token) == "OK"
        follower.reload()
        assert len(of(told, "tokens.not_reloaded")) == 2, "whoever asks is told again"
        secret.replace(tokens=new_entry)
        follower.look()
    assert [await code(stub, each) for each in (token, added)] == ["UNAUTHENTICATED", "OK"]


def test_a_file_whose_rights_are_mended_is_read_again(mounted):
    token, entry = new_token("ann")
    secret = mounted("tokens", tokens="")
    tokens = StaticTokens(secret.folder / "tokens")
    follower = TokenFollower(tokens)
    secret.replace(tokens=entry)
    path = (secret.folder / "tokens").resolve()
    path.chmod(0o644)
    with capture_logs() as told:
        follower.look()
        path.chmod(0o440)
        follower.look()
    assert [entry["event"] for entry in told] == ["tokens.not_reloaded", "tokens.reloaded"]
    assert tokens.authenticate({"authorization": f"Bearer {token}"}).principal == "ann"


def test_a_copy_that_keeps_size_and_time_is_a_change(tmp_path):
    path = tmp_path / "tokens"
    path.touch(mode=0o600)
    (revoked, old_entry), (added, new_entry) = new_token("ann"), new_token("ann")
    path.write_text(old_entry)
    tokens = StaticTokens(path)
    before = path.stat()
    path.write_text(new_entry)
    # The file system's clock ticks every few milliseconds; within one there is nothing to tell them apart by.
    while path.stat().st_ctime_ns == before.st_ctime_ns:
        path.write_text(new_entry)
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert path.stat().st_size == before.st_size
    TokenFollower(tokens).look()
    assert tokens.authenticate({"authorization": f"Bearer {added}"}).principal == "ann"
    with pytest.raises(Unauthenticated):
        tokens.authenticate({"authorization": f"Bearer {revoked}"})
