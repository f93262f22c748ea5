"""A real broker with small drivers, whose wall clock is shifted: ``python shifted_broker.py CONFIG FILE_WITH_SECONDS``.

The file is read at each look at the clock, so that the clock can be set while the broker runs.
"""

import asyncio
import os
import sys
import time
from pathlib import Path

from sparkbroker.broker import bootstrap
from sparkbroker.broker.adapters.local_provisioner import SmallLauncher
from sparkbroker.broker.adapters.system_clock import SystemClock
from sparkbroker.broker.config import load_config
from sparkbroker.broker.domain.units import WallTime

if __name__ == "__main__":
    shift = Path(sys.argv[2])

    class ShiftedClock(SystemClock):
        def wall(self) -> WallTime:
            return WallTime(time.time() + float(shift.read_text()))

    vars(bootstrap)["SystemClock"] = ShiftedClock
    asyncio.run(bootstrap.serve(load_config(Path(sys.argv[1]), os.environ), launcher=SmallLauncher()))
