"""A real broker whose drivers are small processes instead of JVMs: ``python small_broker.py CONFIG``."""

import asyncio
import os
import sys
from pathlib import Path

import uvloop

from sparkbroker.broker.adapters.local_provisioner import Jars, SmallLauncher
from sparkbroker.broker.bootstrap import serve
from sparkbroker.broker.config import load_config

if __name__ == "__main__":
    config = load_config(Path(sys.argv[1]), os.environ)
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:  # as the command does
        runner.run(serve(config, launcher=SmallLauncher(Jars(config.store.state_folder / "cache"))))
