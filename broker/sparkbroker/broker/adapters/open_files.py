"""How many files, sockets included, this process may have open."""

import resource
from typing import Final

ENOUGH: Final = 65_536
"""More is not asked for: what goes over all descriptors takes its time."""
OWN: Final = 400
"""For the store, the drivers' pipes and logs, the metrics and what libraries open."""


def raise_open_files() -> int:
    """Raise the soft limit as far as the hard one, and ENOUGH, allow, and return it."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = ENOUGH if hard == resource.RLIM_INFINITY else min(hard, ENOUGH)
    if soft == resource.RLIM_INFINITY or soft >= wanted:
        return ENOUGH if soft == resource.RLIM_INFINITY else soft
    resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
    return wanted


def connections_for(files: int, *, listeners: int) -> int:
    """So many connections leave the process enough files for itself, even if each listener has as many. Pure.

    A listener may for a moment have those that nobody has authenticated on beside them: see ``rpc.limits``.
    """
    return max(16, (files - min(OWN, files // 2)) // (2 * listeners))
