"""From the file's words to the domain's values."""

from collections.abc import Mapping
from typing import Final

from sparkbroker.broker.config.model import LOCAL_POOL, Config
from sparkbroker.broker.config.profiles import Profile as ProfileSection
from sparkbroker.broker.domain.asking.profile import Limits, Profile, StaticEndpoint
from sparkbroker.broker.domain.asking.sizing import ENDPOINT
from sparkbroker.broker.domain.capacity.queue import PriorityBounds, Queue
from sparkbroker.broker.domain.capacity.resources import CPU, MEMORY, Resources, total
from sparkbroker.broker.domain.lease.lease import ContainerSize, ExecutorSpec, LeaseMode, LeaseSpec
from sparkbroker.broker.domain.pods.settings import parse_pod
from sparkbroker.broker.domain.units import Seconds

STATIC_POOL: Final = "static:"
"""A static profile's endpoints are a pool of their own: no other profile's endpoint could stand in for one."""


def to_profiles(config: Config) -> dict[str, Profile]:
    """By name."""
    return {name: _profile(config, name, section) for name, section in config.profiles.items()}


def to_capacity(config: Config, discovered: Mapping[str, Resources]) -> dict[str, Resources]:
    """By pool: what is configured, else what the provisioners have found; static endpoints are counted."""
    pools = {name: discovered.get(name, Resources()) for name in (LOCAL_POOL, *config.capacity)}
    for name, section in config.capacity.items():
        found = pools[name]
        cpu = found[CPU] if section.cpu is None else section.cpu
        memory = found[MEMORY] if section.memory is None else section.memory
        pools[name] = Resources({CPU: cpu, MEMORY: memory})
    for name, profile in config.profiles.items():
        if profile.provisioner == "static":
            pools[STATIC_POOL + name] = Resources({ENDPOINT: len(profile.endpoints)})
    return pools


def to_queues(config: Config, capacity: Mapping[str, Resources]) -> dict[str, Queue]:
    """By name. A queue without a quota of cores or memory may use all of every pool; endpoints are never limited by a
    queue."""
    everything = total(capacity)
    return {
        name: Queue(
            name=name,
            nominal=Resources(
                {
                    CPU: everything[CPU] if section.cpu is None else section.cpu,
                    MEMORY: everything[MEMORY] if section.memory is None else section.memory,
                }
            ),
            priority_step=Seconds(section.priority_step),
            priority=PriorityBounds(**section.priority.model_dump()),
            bypass_budget=section.bypass_budget,
            users=section.users,
            max_queued=config.leases.max_queued if section.max_queued is None else section.max_queued,
        )
        for name, section in config.queues.items()
    }


def _profile(config: Config, name: str, section: ProfileSection) -> Profile:
    static = section.provisioner == "static"
    modes = section.modes or (("CONNECT",) if static else ("CONNECT", "LOCAL"))
    allowed = tuple(dict.fromkeys(section.allowed_conf + section.allowed_conf_extra))
    return Profile(
        name=name,
        provisioner=section.provisioner,
        description=section.description,
        modes=tuple(LeaseMode(mode) for mode in modes),
        defaults=_defaults(config, name, section, LeaseMode(modes[0])),
        limits=Limits(**section.limits.model_dump()),
        conf=dict(section.conf),
        allowed_conf=() if static else allowed,
        allowed_pod=section.allowed_pod,
        pod=parse_pod(section.pod, "pod"),
        pod_bounds=dict(section.pod_bounds),
        allow_packages=section.allow_packages and not static,
        queues=section.queues,
        pool=STATIC_POOL + name if static else section.pool,
        master=section.master,
        spark_home=_text(section.spark_home),
        java_home=_text(section.java_home),
        python=_text(section.python),
        ui=section.ui,
        endpoints=tuple(
            StaticEndpoint(url=item.url, token_file=_text(item.token_file), ca_file=_text(item.ca_file))
            for item in section.endpoints
        ),
        shared_endpoints=section.shared,
        start_timeout=section.start_timeout,
        max_attempts=section.max_attempts,
        client_role=section.client_role,
        client_credential_ttl=section.client_credential_ttl,
    )


def _defaults(config: Config, name: str, section: ProfileSection, mode: LeaseMode) -> LeaseSpec:
    leases, driver, executors = config.leases, section.driver, section.executors
    longest = section.limits.max_duration if leases.max_duration is None else leases.max_duration
    return LeaseSpec(
        profile=name,
        queue=config.profile_queue(name),
        mode=mode,
        driver=ContainerSize(cores=driver.cores, memory=driver.memory, overhead=driver.memory_overhead),
        executors=None
        if executors is None
        else ExecutorSpec(
            size=ContainerSize(cores=executors.cores, memory=executors.memory, overhead=executors.memory_overhead),
            min_count=executors.min_count,
            max_count=executors.max_count,
        ),
        conf=dict(section.default_conf),
        packages=section.packages,
        jars=section.jars,
        wait_ttl=Seconds(leases.wait_ttl),
        unattended_ttl=Seconds(leases.unattended_ttl),
        ttl=Seconds(leases.ttl),
        acquire_timeout=None if leases.acquire_timeout is None else Seconds(leases.acquire_timeout),
        max_duration=None if longest is None else Seconds(longest),
        keep_when_holder_lost=section.keep_when_holder_lost,
    )


def _text(path: object) -> str | None:
    return None if path is None else str(path)
