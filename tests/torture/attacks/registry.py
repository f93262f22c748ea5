"""The attacks by name. ``python -m tests.torture.attacks.registry`` is the attacker's process: it attacks until SIGTERM, and
says then what it has achieved."""

import asyncio
import signal
import sys
from collections import Counter
from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path
from typing import Final

from tests.torture.attacks import held_up, refused_calls, unread, without_token
from tests.torture.attacks.victim import Victim

ATTACKS: Final[Mapping[str, Callable[[Victim], Awaitable[None]]]] = {
    "refused_calls": refused_calls.attack,
    "headers_only": without_token.headers_only,
    "headers_only_again": without_token.headers_only_again,
    "health_headers_only": without_token.health_headers_only,
    "unfinished_requests": without_token.unfinished_requests,
    "unfinished_health_requests": without_token.unfinished_health_requests,
    "silent_connections": without_token.silent_connections,
    "silent_metrics_connections": without_token.silent_metrics_connections,
    "unread_answers": unread.unread_answers,
    "unread_watches": unread.unread_watches,
    "rapid_reset": unread.rapid_reset,
    "slow_jars": held_up.slow_jars,
    "followed_logs": held_up.followed_logs,
    "shared_heartbeats": held_up.shared_heartbeats,
    "watches_of_nothing": held_up.watches_of_nothing,
    "watched_churn": held_up.watched_churn,
}
SETTINGS: Final[Mapping[str, Mapping[str, str]]] = {}
"""Lines of the broker's configuration that an attack needs: ``server`` and ``profile``."""


def main(name: str, folder: str, port: str, metrics_port: str, pid: str, *tokens: str) -> None:
    known = dict(item.split("=", 1) for item in tokens)
    victim = Victim(Path(folder), int(port), int(metrics_port), int(pid), known, Counter())
    asyncio.run(_attack(name, victim))


async def _attack(name: str, victim: Victim) -> None:
    stopped = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stopped.set)
    attack = asyncio.ensure_future(ATTACKS[name](victim))
    ended = asyncio.ensure_future(stopped.wait())
    await asyncio.wait({attack, ended}, return_when=asyncio.FIRST_COMPLETED)
    if attack.done():
        attack.result()  # An attack never ends by itself: raise what ended it.
    attack.cancel()
    await asyncio.wait({attack})
    print(", ".join(f"{count:,} {what}" for what, count in sorted(victim.achieved.items())) or "nothing")


if __name__ == "__main__":
    main(*sys.argv[1:])
