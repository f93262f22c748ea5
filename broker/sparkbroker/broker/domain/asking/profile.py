"""What ops define once, as the domain sees it: a resolved profile is stored with each lease and never changes under it."""

from hashlib import sha256

import msgspec

from sparkbroker.broker.domain.lease.driver import ProvisionerName
from sparkbroker.broker.domain.lease.lease import ContainerSize, LeaseMode, LeaseSpec
from sparkbroker.broker.domain.pods.settings import PodSettings


class StaticEndpoint(msgspec.Struct, frozen=True, kw_only=True):
    """An existing Connect server. ``token_file`` is read when a connection is asked for; the token is stored nowhere."""

    url: str
    token_file: str | None = None
    ca_file: str | None = None


class Limits(msgspec.Struct, frozen=True, kw_only=True):
    """Upper bounds on what a holder may ask for; None: the queue's quota is the only bound. Memory in bytes."""

    driver_cores: int | None = None
    driver_memory: int | None = None
    executor_count: int | None = None
    executor_cores: int | None = None
    executor_memory: int | None = None
    max_duration: float | None = None


class Profile(msgspec.Struct, frozen=True, kw_only=True):
    """One profile, resolved. ``defaults`` is complete: a request that names only the profile gets exactly it.

    ``conf`` is set on every driver and wins over the holder's; ``allowed_conf`` are exact keys, or prefixes ending
    in ``*``. ``master``: ``local``, ``local-cluster`` or ``spark://host:port`` (with the local provisioner).
    """

    name: str
    provisioner: ProvisionerName = "local"
    description: str = ""
    modes: tuple[LeaseMode, ...] = (LeaseMode.CONNECT, LeaseMode.LOCAL)
    defaults: LeaseSpec
    limits: Limits = Limits()
    conf: dict[str, str] = {}
    allowed_conf: tuple[str, ...] = ()
    allowed_pod: tuple[str, ...] = ()
    """Names of the pod settings that a holder may give; ``*``: any."""
    pod: PodSettings = PodSettings()
    """Of the provisioner ``kubernetes``: the settings that every pod has."""
    pod_bounds: dict[str, tuple[str, ...]] = {}
    """What a holder's pod settings may be: see ``domain.pods.bounds``."""
    allow_packages: bool = True
    queues: tuple[str, ...] = ()
    """Queues that may be used with it; empty: all."""
    pool: str = "local"
    """The capacity that it is charged to: ``local`` is this machine; others are named in the configuration."""
    master: str = "local"
    spark_home: str | None = None
    java_home: str | None = None
    python: str | None = None
    """The interpreter of the driver's Python workers; None: the broker's own."""
    ui: bool = False
    endpoints: tuple[StaticEndpoint, ...] = ()
    shared_endpoints: bool = False
    start_timeout: float = 120.0
    max_attempts: int = 2
    client_role: str = "sparkbroker-client"
    """Of the provisioner ``kubernetes``: the Role, in each namespace, that the account of a lease in mode CLIENT gets."""
    client_credential_ttl: float = 3600.0
    """Seconds that a credential of that account lasts."""

    @classmethod
    def unknown(cls, provisioner: ProvisionerName) -> "Profile":
        """Stands for the profile of a driver that nobody recorded: it can be looked at and ended, no more."""
        size = ContainerSize(cores=1, memory=1 << 20)
        return cls(name="", provisioner=provisioner, defaults=LeaseSpec(profile="", queue="", driver=size))

    @property
    def namespaces(self) -> tuple[str, ...]:
        """Where its pods may be, the default first; empty: it runs none."""
        if self.provisioner != "kubernetes":
            return ()
        return tuple(dict.fromkeys((self.pod.namespace or "default", *self.pod_bounds.get("namespace", ()))))

    def fingerprint(self) -> str:
        """Equal for equal profiles, in every process: what a lease stores, and what a warm driver must match."""
        return sha256(msgspec.json.encode(self, order="deterministic")).hexdigest()[:16]
