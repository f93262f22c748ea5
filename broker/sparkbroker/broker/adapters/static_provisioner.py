"""Existing Spark Connect servers, as a profile lists them: lent, not started.

Promised: an endpoint has one driver at a time, unless its profile shares it; which one is recorded in a file before
``create`` returns, so that a broker which is killed lends it to nobody else. A driver is READY after a call with the
endpoint's token; the token is read from its file at each use and kept nowhere. A server that doesn't answer is doubted
for a while before it counts as ended. Nothing is ever ended but Spark sessions.

Not promised: that nobody else uses these servers, nor that a session's files and tables are gone when it ends.
"""

import asyncio
import re
from collections.abc import AsyncIterator, Iterable, Mapping
from pathlib import Path
from typing import Final
from urllib.parse import unquote

import msgspec

from sparkbroker.broker.adapters import spark_connect
from sparkbroker.broker.adapters.changes import Changes
from sparkbroker.broker.domain.asking.profile import Profile, StaticEndpoint
from sparkbroker.broker.domain.capacity.resources import Resources
from sparkbroker.broker.domain.errors import ProvisionerFailed
from sparkbroker.broker.domain.lease.driver import DriverExit
from sparkbroker.broker.domain.units import DriverId, WallTime
from sparkbroker.broker.ports.clock import Clock
from sparkbroker.broker.ports.provisioner import (
    ClientAccess,
    ConnectEndpoint,
    DriverRequest,
    Handle,
    LogChunk,
    Observation,
    Phase,
)
from sparkbroker.client.file_text import NotText, decode

USER_ID: Final = "sparkbroker"
DEFAULT_PORT: Final = 15002
LOOPBACK: Final = "127.0.0.1"
DOUBT: Final = 30.0
"""Seconds without an answer after which a server that has answered before counts as ended."""
_PROBE_TIMEOUT: Final = 5.0
_LOOK_EVERY: Final = 10.0
_URL: Final = re.compile(
    r"sc://(?P<host>\[[0-9A-Fa-f:.]+\]|[\w.-]+)(?::(?P<port>[0-9]{1,5}))?/?(?P<parameters>(?:;[^;]*)*)"
)
_EXPECTED: Final = "write it as sc://host:port/;use_ssl=true;user_id=name"
_REFUSED: Final = frozenset({"UNAUTHENTICATED", "PERMISSION_DENIED"})
_DRIVER_ID: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,99}")


class Loan(msgspec.Struct, frozen=True, kw_only=True):
    """An endpoint in use: the record that is kept."""

    driver_id: DriverId
    fingerprint: str
    url: str
    target: Resources
    made: WallTime


class Address(msgspec.Struct, frozen=True, kw_only=True):
    """A Connect URL taken apart."""

    target: str
    user_id: str
    use_tls: bool


def parse_url(url: str) -> Address:
    """Raise ProvisionerFailed (misconfigured), which tells no secret, unless it is a Connect URL without a token."""
    match = _URL.fullmatch(url)
    if match is None or not 0 < int(match["port"] or DEFAULT_PORT) < 65536:
        shown = url.partition(";")[0]
        raise _wrong(f"endpoint {shown!r} is not a Spark Connect URL; {_EXPECTED}")
    parameters = dict.fromkeys(("user_id", "use_ssl"), "")
    for part in filter(None, match["parameters"].split(";")):
        name, _, value = part.partition("=")
        if name not in parameters:
            raise _wrong(f"endpoint sc://{match['host']}: parameter {name!r} isn't known (a token has its token_file)")
        parameters[name] = unquote(value)
    return Address(
        target=f"{match['host']}:{match['port'] or DEFAULT_PORT}",
        user_id=parameters["user_id"] or USER_ID,
        use_tls=parameters["use_ssl"].lower() == "true",
    )


def as_number(target: str) -> str:
    """``localhost:15002`` as a number, for a token without TLS: at the same port of another address that the name
    resolves to, somebody else may listen."""
    host, _, port = target.rpartition(":")
    return f"{LOOPBACK}:{port}" if host.lower().removesuffix(".") == "localhost" else target


def choose(profile: Profile, used: Iterable[str]) -> StaticEndpoint | None:
    """The endpoint for the next driver: the first that is free or, if they are shared, the one least used."""
    counts = dict.fromkeys((endpoint.url for endpoint in profile.endpoints), 0)
    for url in used:
        counts[url] = counts.get(url, 0) + 1
    best = min(profile.endpoints, key=lambda endpoint: counts[endpoint.url], default=None)
    if best is None or (counts[best.url] and not profile.shared_endpoints):
        return None
    return best


class _State(msgspec.Struct, kw_only=True):
    """What has been seen of a driver in this process."""

    ready: WallTime | None = None
    silent_since: float | None = None
    lost: str = ""


class StaticProvisioner:
    """See the module. ``folder`` keeps the loans."""

    name = "static"
    always_confirms = "its endpoint is of the configuration, and is given back without a confirmation"

    def __init__(self, *, folder: Path, clock: Clock, doubt: float = DOUBT) -> None:
        self._folder = folder
        self._clock = clock
        self._doubt = doubt
        self._loans: dict[DriverId, Loan] = {}
        self._states: dict[DriverId, _State] = {}
        self._changes = Changes()

    def __repr__(self) -> str:
        return f"<StaticProvisioner [{len(self._loans)} endpoints lent]>"

    async def start(self) -> None:
        try:
            self._folder.mkdir(parents=True, exist_ok=True, mode=0o700)
            loans = [msgspec.json.decode(path.read_bytes(), type=Loan) for path in self._folder.glob("*.json")]
        except (OSError, msgspec.DecodeError) as error:
            raise ProvisionerFailed(
                f"the static provisioner's records can't be read: {error}", retryable=False
            ) from error
        self._loans = {loan.driver_id: loan for loan in loans}

    def capacity(self) -> dict[str, Resources]:
        return {}  # the profiles say how many endpoints there are: each is a pool of its own (``config.convert``)

    def unusable(self, profile: Profile) -> str:
        if not profile.endpoints:
            return f"profile {profile.name!r} lists no endpoints; add some to its endpoints"
        try:
            for endpoint in profile.endpoints:
                parse_url(endpoint.url)
                _read_secret(endpoint.token_file)
                _read_secret(endpoint.ca_file)
        except ProvisionerFailed as error:
            return error.message
        return ""

    async def inventory(self) -> list[Observation]:
        return [self._observation(loan, Phase.STARTING) for loan in self._loans.values()]

    async def create(self, request: DriverRequest) -> Observation:
        if _DRIVER_ID.fullmatch(request.driver_id) is None:
            raise ProvisionerFailed(f"{request.driver_id!r} is no driver id of ours", retryable=False)
        loan = self._loans.get(request.driver_id)
        if loan is not None and loan.fingerprint != request.profile_fingerprint:
            raise ProvisionerFailed(
                f"driver {request.driver_id} exists with the profile fingerprint {loan.fingerprint}", retryable=False
            )
        if loan is None:
            endpoint = choose(request.profile, (known.url for known in self._loans.values()))
            if endpoint is None:
                raise ProvisionerFailed(f"no endpoint of profile {request.profile.name!r} is free", retryable=True)
            loan = Loan(
                driver_id=request.driver_id,
                fingerprint=request.profile_fingerprint,
                url=endpoint.url,
                target=request.target,
                made=self._clock.wall(),
            )
            self._record(loan)
        self._changes.note(loan.driver_id)
        return self._observation(loan, Phase.STARTING)

    def _record(self, loan: Loan) -> None:
        path = self._folder / f"{loan.driver_id}.json"
        try:
            path.with_suffix(".new").write_bytes(msgspec.json.encode(loan))
            path.with_suffix(".new").replace(path)
        except OSError as error:
            raise ProvisionerFailed(f"the endpoint's record can't be written: {error}", retryable=True) from error
        self._loans[loan.driver_id] = loan

    async def observe(self, driver_id: DriverId, handle: Handle, profile: Profile) -> Observation:
        loan = self._loans.get(driver_id)
        if loan is None:
            return Observation(driver_id=driver_id, phase=Phase.ABSENT)
        state = self._states.setdefault(driver_id, _State())
        if not state.lost:
            await self._probe(loan, state, profile)
        return self._verdict(loan, state)

    async def _probe(self, loan: Loan, state: _State, profile: Profile) -> None:
        try:
            await spark_connect.probe(await self._server(loan, profile), _PROBE_TIMEOUT)
        except spark_connect.ConnectCallFailed as error:
            if error.code in _REFUSED and state.ready is None:
                raise _wrong(f"the endpoint {_shown(loan.url)} refuses the broker's token: {error}") from error
            now = self._clock.monotonic()
            state.silent_since = now if state.silent_since is None else state.silent_since
            if state.ready is None:
                return
            if now - state.silent_since < self._doubt:
                message = f"the endpoint {_shown(loan.url)} doesn't answer now: {error}"
                raise ProvisionerFailed(message, retryable=True) from error
            state.lost = f"the endpoint {_shown(loan.url)} has not answered for {self._doubt:g} s: {error}"
        else:
            state.silent_since = None
            state.ready = self._clock.wall() if state.ready is None else state.ready

    def _verdict(self, loan: Loan, state: _State) -> Observation:
        if state.lost:
            seen = self._observation(loan, Phase.EXITED)
            return msgspec.structs.replace(seen, exit=DriverExit(), message=state.lost)
        if state.ready is None:
            message = f"the endpoint {_shown(loan.url)} doesn't answer yet" if state.silent_since is not None else ""
            return msgspec.structs.replace(self._observation(loan, Phase.STARTING), message=message)
        return self._observation(loan, Phase.READY, state.ready)

    def _observation(self, loan: Loan, phase: Phase, ready: WallTime | None = None) -> Observation:
        return Observation(
            driver_id=loan.driver_id,
            phase=phase,
            handle={"endpoint": _shown(loan.url)},
            resources=loan.target if phase is not Phase.EXITED else Resources(),
            profile_fingerprint=loan.fingerprint,
            process_started=loan.made,
            port_open=ready,
            ready=ready,
        )

    async def delete(self, driver_id: DriverId, handle: Handle, *, force: bool) -> None:
        """Give the endpoint back: there is nothing of ours to end. Its sessions are ended one by one before."""
        await self.forget(driver_id)
        self._changes.note(driver_id)

    async def abandon(self, driver_id: DriverId, handle: Handle) -> str:
        raise ProvisionerFailed(self.always_confirms, retryable=False)

    async def forget(self, driver_id: DriverId) -> None:
        loan = self._loans.get(driver_id)
        if loan is None:
            return
        try:
            (self._folder / f"{driver_id}.json").unlink(missing_ok=True)
        except OSError as error:
            raise ProvisionerFailed(f"the endpoint's record can't be removed: {error}", retryable=True) from error
        self._loans.pop(driver_id, None)
        self._states.pop(driver_id, None)

    async def endpoint(self, driver_id: DriverId, handle: Handle, profile: Profile) -> ConnectEndpoint:
        loan = self._loans.get(driver_id)
        if loan is None:
            raise ProvisionerFailed(f"driver {driver_id} has no endpoint", retryable=False)
        server = await self._server(loan, profile)
        return ConnectEndpoint(
            endpoint=f"sc://{server.target}/",
            headers=server.headers,
            user_id=server.user_id,
            use_tls=server.use_tls,
            ca_certificate=server.ca.decode() if server.ca is not None else "",
        )

    async def _server(self, loan: Loan, profile: Profile) -> spark_connect.Server:
        listed = next((endpoint for endpoint in profile.endpoints if endpoint.url == loan.url), None)
        if listed is None:
            raise _wrong(f"profile {profile.name!r} no longer lists the endpoint {_shown(loan.url)}")
        address = parse_url(loan.url)
        token = await asyncio.to_thread(_read_secret, listed.token_file)
        ca = await asyncio.to_thread(_read_secret, listed.ca_file)
        use_tls = address.use_tls or bool(ca)
        return spark_connect.Server(
            target=address.target if use_tls else as_number(address.target),
            headers={"authorization": f"Bearer {token}"} if token else {},
            user_id=address.user_id,
            use_tls=use_tls,
            ca=ca.encode() if ca else None,
        )

    async def client_access(self, request: DriverRequest, handle: Handle) -> ClientAccess:
        raise ProvisionerFailed("the mode CLIENT needs a profile of the provisioner kubernetes", retryable=False)

    async def end_session(self, driver_id: DriverId, handle: Handle, profile: Profile, session_id: str) -> None:
        loan = self._loans.get(driver_id)
        if loan is None:
            return
        try:
            await spark_connect.end_session(await self._server(loan, profile), session_id, _PROBE_TIMEOUT)
        except spark_connect.ConnectCallFailed as error:
            raise ProvisionerFailed(
                f"a session on {_shown(loan.url)} can't be ended: {error}", retryable=True
            ) from error

    async def logs(
        self,
        driver_id: DriverId,
        handle: Handle,
        *,
        offset: int,
        tail_lines: int,
        follow: bool,
        executors: Mapping[str, int] | None = None,
    ) -> AsyncIterator[LogChunk]:
        """Not ours to read: empty."""
        nothing: tuple[LogChunk, ...] = ()
        for chunk in nothing:
            yield chunk

    async def wait_for_change(self) -> set[DriverId]:
        """Also, every some seconds, all that are lent: their servers end without telling us."""
        try:
            async with asyncio.timeout(_LOOK_EVERY):
                return await self._changes.wait()
        except TimeoutError:
            return set(self._loans)

    async def close(self) -> None:
        """The servers aren't ours: nothing ends."""


def _read_secret(path: str | None) -> str:
    """The file's content without its last newline; empty if there is none to read."""
    if path is None:
        return ""
    try:
        text = decode(Path(path).read_bytes()).strip()
    except OSError as error:
        raise _wrong(f"the file {path!r} of a static endpoint can't be read: {type(error).__name__}") from error
    except NotText as error:
        raise _wrong(f"the file {path!r} of a static endpoint {error}; save it as UTF-8") from error
    if not text:
        raise _wrong(f"the file {path!r} of a static endpoint is empty")
    return text


def _shown(url: str) -> str:
    return url.partition(";")[0]


def _wrong(message: str) -> ProvisionerFailed:
    return ProvisionerFailed(message, retryable=False, misconfigured=True)
