"""How sections agree with each other. Each problem names both fields."""

from collections.abc import Collection, Mapping

from sparkbroker.broker.config.default_requests import default_requests
from sparkbroker.broker.config.fields import MAX_SOCKET_PATH
from sparkbroker.broker.config.model import LOCAL_POOL, Config
from sparkbroker.broker.config.problems import ConfigError, Problem, dotted, suggest
from sparkbroker.broker.domain.capacity.resources import CPU, MEMORY, Resources, describe_quantity


def cross_problems(config: Config) -> list[Problem]:
    """Everything that is inconsistent between sections."""
    problems = [*_socket(config), *_durations(config), *_defaults(config), *_pools(config), *_profiles(config)]
    # What names something unknown would be told twice.
    return problems or default_requests(config)


def check_principals(config: Config, users: Collection[str]) -> None:
    """Raise ConfigError if several principals would share local drivers without ``shared_trust``.

    ``users`` are all who may acquire: the principals with the role ``user`` in the token file, and who calls over a unix
    socket.
    """
    local = sorted(name for name, profile in config.profiles.items() if profile.provisioner == "local")
    if config.shared_trust or not local or len(set(users)) < 2:
        return
    field = dotted(("profiles", local[0]))
    named = sorted(set(users))
    who = ", ".join(named[:10]) + (f" and {len(named) - 10} more" if len(named) > 10 else "")
    problem = (
        f'{len(named)} principals may acquire leases ({who}) and {field} has provisioner = "local": whoever runs code'
        " in a local driver can read what the others' drivers know"
    )
    raise ConfigError(
        config.source, [Problem("shared_trust", problem, "set shared_trust = true if they trust each other")]
    )


def capacity_warnings(config: Config, capacity: Mapping[str, Resources]) -> list[str]:
    """What works, and may surprise: quotas that are larger than all capacity, and a cluster charged to this machine."""
    warnings = []
    for name, queue in config.queues.items():
        for quantity, quota in ((CPU, queue.cpu), (MEMORY, queue.memory)):
            total = sum(pool[quantity] for pool in capacity.values())
            if quota is not None and quota > total:
                key = dotted(("queues", name, quantity))
                has = describe_quantity(quantity, total)
                warnings.append(f"{key} is {describe_quantity(quantity, quota)}, and all pools together have {has}")
    for name, profile in config.profiles.items():
        if profile.master.startswith("spark://") and profile.pool == LOCAL_POOL:
            key = dotted(("profiles", name))
            warnings.append(
                f'{key}.master is a cluster and {key}.pool is "local": its executors are charged to this machine; '
                f"name the cluster's size in [capacity.NAME] and set {key}.pool"
            )
    return warnings


def _socket(config: Config) -> list[Problem]:
    length = len(str(config.socket).encode())
    if config.server.listen or length <= MAX_SOCKET_PATH:
        return []
    problem = (
        f"store.state_folder makes the default socket's path {length} bytes long; a unix socket's has at most"
        f" {MAX_SOCKET_PATH}"
    )
    return [Problem("store.state_folder", problem, 'set server.listen = ["unix:/a/shorter/path.sock"]')]


def _durations(config: Config) -> list[Problem]:
    leases, problems = config.leases, []
    if config.store.request_age < leases.wait_ttl:
        problem = (
            f"store.request_age ({config.store.request_age:g}s) is less than leases.wait_ttl ({leases.wait_ttl:g}s): a"
            " request that is repeated while its lease waits would be a new one"
        )
        problems.append(Problem("store.request_age", problem, "store.request_age must be at least leases.wait_ttl"))
    for name, profile in config.profiles.items():
        limit = profile.limits.max_duration
        if limit is not None and leases.max_duration is not None and leases.max_duration > limit:
            field = dotted(("profiles", name, "limits", "max_duration"))
            problem = f"leases.max_duration ({leases.max_duration:g}s) is greater than {field} ({limit:g}s)"
            problems.append(Problem(field, problem, f"leases.max_duration must be at most {field}"))
    return problems


def _defaults(config: Config) -> list[Problem]:
    problems = []
    pairs = (
        ("profile", config.leases.default_profile, config.profiles),
        ("queue", config.leases.default_queue, config.queues),
    )
    for kind, named, known in pairs:
        if named is not None and named not in known:
            problems.append(
                Problem(f"leases.default_{kind}", f'"{named}" is no {kind} in [{kind}s]', suggest(named, known))
            )
    if not config.default_queue and any(not profile.queues for profile in config.profiles.values()):
        without = next(name for name, profile in config.profiles.items() if not profile.queues)
        problem = f'there are several queues, none is called "default", and {dotted(("profiles", without))} names none'
        problems.append(
            Problem("leases.default_queue", problem, "set it to one of " + ", ".join(sorted(config.queues)))
        )
    return problems


def _pools(config: Config) -> list[Problem]:
    problems = []
    for name, pool in config.capacity.items():
        missing = [key for key in (CPU, MEMORY) if getattr(pool, key) is None]
        if name != LOCAL_POOL and missing:
            problems.append(
                Problem(dotted(("capacity", name, missing[0])), "it is missing", "only the pool local has a default")
            )
    return problems


def _profiles(config: Config) -> list[Problem]:
    problems = []
    pools = {LOCAL_POOL, *config.capacity}
    owners: dict[str, str] = {}
    for name, profile in config.profiles.items():
        for index, queue in enumerate(profile.queues):
            if queue not in config.queues:
                field = dotted(("profiles", name, "queues", index))
                problems.append(Problem(field, f'"{queue}" is no queue in [queues]', suggest(queue, config.queues)))
        if profile.pool not in pools:
            field = dotted(("profiles", name, "pool"))
            problems.append(Problem(field, f'"{profile.pool}" is no pool in [capacity]', suggest(profile.pool, pools)))
        for endpoint in profile.endpoints:
            owner = owners.setdefault(endpoint.url, name)
            if owner != name:
                field = dotted(("profiles", name, "endpoints"))
                problem = f"{endpoint.url} is also in {dotted(('profiles', owner, 'endpoints'))}"
                problems.append(Problem(field, problem, "an endpoint belongs to one profile"))
    return problems
