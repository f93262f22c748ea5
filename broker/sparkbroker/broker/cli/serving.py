"""Runs a broker in this process: with its configuration, or embedded in another program."""

import asyncio
import os
import shutil
import signal
from collections.abc import Coroutine, Mapping
from pathlib import Path
from typing import Any

from sparkbroker.broker.config import Config, default_cache_folder, load_config, to_profiles

Overrides = dict[tuple[str, str], object]


def load(config: Path | None, env: Mapping[str, str], state_folder: Path | None, listen: list[str] | None) -> Config:
    """The configuration with the command line's values over it."""
    overrides: Overrides = {}
    if state_folder is not None:
        overrides["store", "state_folder"] = str(state_folder.absolute())
    if listen:
        overrides["server", "listen"] = listen
    return load_config(config, env, overrides=overrides)


def describe_config(
    config: Path | None, env: Mapping[str, str], state_folder: Path | None, listen: list[str] | None
) -> str:
    """Check everything that can be checked without starting; a short account of what it means."""
    from sparkbroker.broker.bootstrap import read_tokens

    loaded = load(config, env, state_folder, listen)
    read_tokens(loaded)
    profiles = to_profiles(loaded)
    lines = [
        f"{loaded.source}: it can be used",
        f"listens on {', '.join(loaded.listen)}",
        f"keeps its state in {loaded.store.state_folder} (not looked at)",
        f"queues: {', '.join(loaded.queues)}",
        f"profiles: {', '.join(f'{name} ({profile.provisioner})' for name, profile in profiles.items())}",
    ]
    return "\n".join(lines)


def serve(config: Path | None, env: Mapping[str, str], state_folder: Path | None, listen: list[str] | None) -> None:
    """Until SIGTERM or SIGINT. Raise BrokerError if it can't."""
    loaded = load(config, env, state_folder, listen)
    from sparkbroker.broker.bootstrap import serve as run_broker

    _run(run_broker(loaded))


def serve_embedded(config: Path | None, env: Mapping[str, str], folder: Path, parent_fd: int) -> None:
    """Until ``parent_fd`` ends (its writer has gone, however) or a signal; then the folder is removed.

    Queues and profiles are the configuration's; it listens only on the socket in its folder, and remembers nothing.
    """
    folder = folder.absolute()
    overrides: Overrides = {
        ("store", "state_folder"): str(folder),
        ("store", "kind"): "memory",
        ("server", "listen"): [f"unix:{folder}/run/broker.sock"],
        ("server", "metrics"): "",
    }
    cache = _shared_cache(env)
    if cache is not None:
        overrides["store", "cache_folder"] = str(cache)
    try:
        loaded = load_config(config, env, overrides=overrides)
        from sparkbroker.broker.bootstrap import serve as run_broker

        _run(run_broker(loaded, embedded=True, parent_fd=parent_fd))
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _run(broker: Coroutine[Any, Any, None]) -> None:
    """On uvloop: a call costs about a tenth less than on Python's own event loop."""
    import uvloop

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(_until_end(broker))


async def _until_end(broker: Coroutine[Any, Any, None]) -> None:
    """Then this process ends too, and another SIGTERM changes nothing. Ctrl-C still ends it, if a thread of it hangs."""
    try:
        await broker
    finally:
        for number in (signal.SIGTERM, signal.SIGHUP):
            signal.signal(number, signal.SIG_IGN)


def _shared_cache(env: Mapping[str, str]) -> Path | None:
    """A cache that outlives us, so that the next embedded broker starts its drivers faster. None: can't be had."""
    folder = default_cache_folder(env)
    if folder is None:
        return None
    try:
        for each in (*reversed(folder.parents), folder):  # a parent that is missing would get the umask's mode
            if not each.exists():
                each.mkdir(mode=0o700, exist_ok=True)
    except OSError:
        return None
    return folder if os.access(folder, os.W_OK | os.X_OK) else None
