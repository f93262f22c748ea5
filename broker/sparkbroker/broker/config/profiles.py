"""``[profiles.NAME]``: what ops define once and holders name."""

import re
from typing import Annotated, Any, Final, Literal, Self

from pydantic import AfterValidator, BeforeValidator, Field, model_validator
from pydantic_core import PydanticCustomError

from sparkbroker.broker.config.allowed_conf import DEFAULT_ALLOWED_CONF, OWNED_CONF, too_wide
from sparkbroker.broker.config.fields import (
    AbsolutePath,
    ConfKey,
    Cores,
    Duration,
    Memory,
    Name,
    check_conf_key,
    flatten_conf,
    wrong,
)
from sparkbroker.broker.config.sections import Section
from sparkbroker.broker.domain.asking.request import MAX_EXECUTORS
from sparkbroker.broker.domain.errors import InvalidField
from sparkbroker.broker.domain.pods.bounds import check_bounds
from sparkbroker.broker.domain.pods.settings import parse_pod
from sparkbroker.broker.domain.text import shown_value

_STANDALONE: Final = re.compile(r"spark://[^\s/:]+:[0-9]{1,5}(?:,[^\s/:]+:[0-9]{1,5})*")
_CONNECT_URL: Final = re.compile(r"sc://(?:\[[0-9a-fA-F:.]+\]|[^\s/:;\[\]]+)(?::[0-9]{1,5})?/?(?P<parameters>;.*)?")
_SPARK_ONLY: Final = (
    "conf", "default_conf", "allowed_conf", "allowed_conf_extra", "allow_packages", "packages", "jars", "master",
    "spark_home", "java_home", "python", "ui", "pool",
)  # fmt: skip
_OF_THIS_MACHINE: Final = ("master", "spark_home", "java_home", "python")
_OF_PODS: Final = ("pod", "pod_bounds")
_OF_STATIC: Final = ("endpoints", "shared")


def _check_master(value: str) -> str:
    if value in {"local", "local-cluster"} or _STANDALONE.fullmatch(value):
        return value
    if value.startswith("local-cluster["):
        raise wrong(
            f"{shown_value(value)} fixes the sizes", 'write "local-cluster": they are those of the lease\'s executors'
        )
    if value.startswith("local["):
        raise wrong(f"{shown_value(value)} fixes the threads", 'write "local": they are the lease\'s cores')
    raise wrong(f"{shown_value(value)} is not a master", 'write "local", "local-cluster" or "spark://host:port"')


def _check_allowed(value: str) -> str:
    if too_wide(value):
        raise wrong(
            f"{shown_value(value)} lets through keys that load code, name credentials or belong to the broker",
            'list exact keys, or a narrow prefix such as "spark.sql.adaptive.*"',
        )
    key = check_conf_key(value.removesuffix("*").removesuffix(".") if value.endswith("*") else value)
    if key in OWNED_CONF and not value.endswith("*"):
        raise wrong(f"{shown_value(value)} can't be a holder's", OWNED_CONF[key])
    return value


def _check_own(value: str) -> str:
    if value in OWNED_CONF:
        raise wrong(f"{shown_value(value)} is not yours to set here", OWNED_CONF[value])
    return value


def _check_url(value: str) -> str:
    match = _CONNECT_URL.fullmatch(value)
    if match is None:
        raise wrong(f"{shown_value(value)} is not a Spark Connect URL", 'write it as "sc://host:15002/"')
    if re.search(r";(?:token|authorization)=", match["parameters"] or "", re.IGNORECASE):
        raise wrong("the URL holds a secret", "put the token into a file and name it as token_file")
    return value


def _inside(field: str, error: InvalidField) -> PydanticCustomError:
    return wrong(error.problem, error.expected, within=error.field.removeprefix(field))


def _check_pod(value: dict[str, Any]) -> dict[str, Any]:
    try:
        parse_pod(value, "pod")
    except InvalidField as error:
        raise _inside("pod", error) from error
    return value


def _check_pod_bounds(value: dict[str, tuple[str, ...]]) -> dict[str, tuple[str, ...]]:
    try:
        check_bounds(value, "pod_bounds")
    except InvalidField as error:
        raise _inside("pod_bounds", error) from error
    return value


Master = Annotated[str, AfterValidator(_check_master)]
AllowedKey = Annotated[str, AfterValidator(_check_allowed)]
OwnKey = Annotated[ConfKey, AfterValidator(_check_own)]
KubernetesName = Annotated[str, Field(pattern=r"^[a-z0-9]([a-z0-9.-]{0,251}[a-z0-9])?$")]
ConnectUrl = Annotated[str, AfterValidator(_check_url)]


class DriverSize(Section):
    """``driver``: the size that a request gets when it says nothing."""

    cores: Cores = 1
    memory: Memory = 1 << 30
    memory_overhead: Memory | None = None
    """Unset: Spark's formula, max(trunc(0.1 * memory), 384 MiB)."""


class Executors(Section):
    """``executors``: those that a request gets when it says nothing. ``max_count`` are charged."""

    cores: Cores = 1
    memory: Memory = 1 << 30
    memory_overhead: Memory | None = None
    min_count: int = Field(default=1, ge=1, le=MAX_EXECUTORS)
    max_count: int = Field(default=1, ge=1, le=MAX_EXECUTORS)

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if self.max_count < self.min_count:
            raise wrong(
                f"max_count ({self.max_count}) is less than min_count ({self.min_count})",
                "max_count must be at least min_count",
            )
        return self


class Limits(Section):
    """``limits``: upper bounds for requests. Unset: the queue's quota is the only bound."""

    driver_cores: Cores | None = None
    driver_memory: Memory | None = None
    executor_count: int | None = Field(default=None, ge=0, le=MAX_EXECUTORS)
    executor_cores: Cores | None = None
    executor_memory: Memory | None = None
    max_duration: Duration | None = None


class Endpoint(Section):
    """``endpoints``: an existing Connect server."""

    url: ConnectUrl
    token_file: AbsolutePath | None = None
    """Read when a connection is asked for; the token is stored nowhere."""
    ca_file: AbsolutePath | None = None


class Profile(Section):
    """A profile. ``conf`` is set on every driver and wins over the holder's."""

    provisioner: Literal["local", "static", "kubernetes"] = "local"
    description: str = ""
    modes: tuple[Literal["CONNECT", "LOCAL", "CLIENT"], ...] = Field(default=(), max_length=3)
    """What a holder may ask for. Default: CONNECT and LOCAL; of a static profile: CONNECT. CLIENT: with ``kubernetes``."""
    driver: DriverSize = DriverSize()
    executors: Executors | None = None
    limits: Limits = Limits()
    conf: Annotated[dict[OwnKey, str], BeforeValidator(flatten_conf)] = {}
    default_conf: Annotated[dict[OwnKey, str], BeforeValidator(flatten_conf)] = {}
    """Set unless the holder, who must be allowed to, sets it otherwise."""
    packages: tuple[str, ...] = Field(default=(), max_length=100)
    """Maven coordinates, ``group:artifact:version``, that every driver has."""
    jars: tuple[str, ...] = Field(default=(), max_length=100)
    """Absolute paths or URLs of jars that every driver has."""
    keep_when_holder_lost: bool = False
    """Keep a lease for ``unattended_ttl`` when its holder is lost, so that a retry can reattach."""
    allowed_conf: tuple[AllowedKey, ...] = DEFAULT_ALLOWED_CONF
    """All keys that a holder may set; a trailing ``*`` is a prefix."""
    allowed_conf_extra: tuple[AllowedKey, ...] = ()
    """More of them, beside ``allowed_conf``."""
    allowed_pod: tuple[Annotated[str, Field(pattern=r"^(\*|[a-z][a-z0-9_]{0,62})$")], ...] = Field(
        default=(), max_length=100
    )
    """Pod settings that a holder may give; ``*`` is all. A profile that runs no pods takes them without effect."""
    pod: Annotated[dict[str, Any], AfterValidator(_check_pod)] = Field(default={}, max_length=100)
    """With ``kubernetes``: settings of the driver's and the executors' pods, ``image`` and ``namespace`` among them."""
    pod_bounds: Annotated[dict[str, tuple[str, ...]], AfterValidator(_check_pod_bounds)] = Field(
        default={}, max_length=100
    )
    """Patterns that the values of a holder's pod settings, and what they refer to, have to match; ``namespace``: which it may
    choose from."""
    allow_packages: bool = True
    """Whether a holder may name Maven packages and jars."""
    queues: tuple[Name, ...] = ()
    """Queues that may be used with it, the default first. Empty: all."""
    pool: Name = "local"
    """The capacity that it is charged to."""
    master: Master = "local"
    spark_home: AbsolutePath | None = None
    """The Spark of the broker's drivers. A session of mode LOCAL has its program's own Spark, Java and Python."""
    java_home: AbsolutePath | None = None
    """The Java of the broker's drivers."""
    python: AbsolutePath | None = None
    """The interpreter of their Python workers. Unset: the broker's own."""
    ui: bool = False
    endpoints: tuple[Endpoint, ...] = Field(default=(), max_length=1_000)
    shared: bool = False
    """Static endpoints serve any number of leases at a time."""
    start_timeout: Duration = 120.0
    """A driver that isn't ready by then is ended, and another is tried."""
    max_attempts: int = Field(default=2, ge=1, le=100)
    client_role: KubernetesName = "sparkbroker-client"
    """With mode CLIENT: the Role, in the pods' namespaces, that the account of each lease gets; the chart makes it."""
    client_credential_ttl: Duration = Field(default=3600.0, ge=600.0, le=86_400.0)
    """With mode CLIENT: how long a credential lasts; the client renews it at half of that. Kubernetes makes none for less than
    10 minutes."""

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if self.provisioner == "static":
            self._check_static()
        elif self.provisioner == "kubernetes":
            self._check_kubernetes()
        self._check_belongs(_OF_STATIC, "static")
        self._check_belongs(_OF_PODS, "kubernetes")
        if "CLIENT" in self.modes and self.provisioner != "kubernetes":
            problem = f'modes has CLIENT and provisioner is "{self.provisioner}"'
            raise wrong(
                problem, 'the holder\'s own pod is the driver: set provisioner = "kubernetes", or remove CLIENT'
            )
        both = sorted(self.conf.keys() & self.default_conf.keys())
        if both:
            raise wrong(f"{both[0]} is in conf and in default_conf", "conf always wins: keep one of them")
        self._check_limits()
        return self

    def _check_belongs(self, names: tuple[str, ...], provisioner: str) -> None:
        for name in names:
            if self.provisioner != provisioner and getattr(self, name):
                problem = f'{name} is set and provisioner is "{self.provisioner}"'
                raise wrong(problem, f'set provisioner = "{provisioner}"')

    def _check_kubernetes(self) -> None:
        if self.pool == "local":
            problem = 'provisioner is "kubernetes" and pool is this machine'
            raise wrong(problem, "name the broker's share of the cluster in [capacity.NAME], and set pool")
        if not self.pod.get("image"):
            problem = 'provisioner is "kubernetes" and pod names no image'
            raise wrong(problem, 'set pod.image = "registry/spark:tag"')
        for name in _OF_THIS_MACHINE:
            if name in self.model_fields_set:
                raise wrong(f'{name} is set and provisioner is "kubernetes"', f"remove {name}: the image has it")

    def _check_static(self) -> None:
        if not self.endpoints:
            raise wrong('provisioner is "static" and endpoints is empty', 'add one: [{ url = "sc://host:15002/" }]')
        if "LOCAL" in self.modes:
            raise wrong('modes has LOCAL and provisioner is "static"', 'modes must be ["CONNECT"]')
        for name in _SPARK_ONLY:
            if name in self.model_fields_set:
                raise wrong(
                    f'{name} is set and provisioner is "static": the broker doesn\'t start its servers',
                    f"remove {name}",
                )
        urls = [endpoint.url for endpoint in self.endpoints]
        doubled = sorted({url for url in urls if urls.count(url) > 1})
        if doubled:
            raise wrong(f"endpoints has {doubled[0]} twice", "name each server once")

    def _check_limits(self) -> None:
        sizes: dict[str, int | None] = {
            "driver_cores": self.driver.cores,
            "driver_memory": self.driver.memory,
        }
        if self.executors is not None:
            sizes["executor_count"] = self.executors.max_count
            sizes["executor_cores"] = self.executors.cores
            sizes["executor_memory"] = self.executors.memory
        names = {"executor_count": "executors.max_count"}
        for name, size in sizes.items():
            limit = getattr(self.limits, name)
            if limit is not None and size is not None and size > limit:
                own = names.get(name, name.replace("driver_", "driver.").replace("executor_", "executors."))
                raise wrong(
                    f"{own} ({size}) is more than limits.{name} ({limit})", f"limits.{name} must be at least {own}"
                )
