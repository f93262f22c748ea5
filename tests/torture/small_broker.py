"""A real broker whose drivers are small processes instead of JVMs: ``python small_broker.py CONFIG``."""

import asyncio
import os
import sys
from pathlib import Path

from sparkbroker.broker.adapters.local_provisioner import SmallLauncher
from sparkbroker.broker.bootstrap import serve
from sparkbroker.broker.config import load_config

if __name__ == "__main__":
    asyncio.run(serve(load_config(Path(sys.argv[1]), os.environ), launcher=SmallLauncher()))
