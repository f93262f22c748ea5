"""Whether a request that names only a profile gets a lease spec: what the profile gives must be inside its own bounds."""

from typing import Final

import msgspec

from sparkbroker.broker.config.convert import to_profiles
from sparkbroker.broker.config.model import Config
from sparkbroker.broker.config.problems import Problem, dotted
from sparkbroker.broker.domain.asking.conf import check_jars, check_packages
from sparkbroker.broker.domain.asking.profile import Profile
from sparkbroker.broker.domain.asking.request import SpecRequest, resolve
from sparkbroker.broker.domain.errors import InvalidField

_OF_LEASES: Final = frozenset({"wait_ttl", "unattended_ttl", "ttl", "acquire_timeout", "max_duration"})
_RENAMED: Final = {"queue": "queues", "mode": "modes", "conf": "default_conf"}


def default_requests(config: Config) -> list[Problem]:
    """One problem for each profile whose own values would be refused, named as the file names the field."""
    problems = []
    for name, profile in to_profiles(config).items():
        try:
            _ask(config, profile)
        except InvalidField as error:
            problems.append(Problem(_field(name, error.field), error.problem, error.expected))
    return problems


def _ask(config: Config, profile: Profile) -> None:
    resolve(SpecRequest(profile=profile.name), profile, queues=config.queues.keys(), default_queue=config.default_queue)
    # The profile's own have the form of a holder's, and need no leave.
    open_to_all = msgspec.structs.replace(profile, allow_packages=True)
    check_packages(profile.defaults.packages, open_to_all)
    check_jars(profile.defaults.jars, open_to_all)


def _field(profile: str, field: str) -> str:
    """``spec.executors.size.memory`` -> ``profiles.NAME.executors.memory``; what no profile sets is of ``leases``."""
    first, *rest = field.removeprefix("spec.").split(".")
    if first in _OF_LEASES:
        return dotted(("leases", first))
    return dotted(("profiles", profile, _RENAMED.get(first, first), *(part for part in rest if part != "size")))
