"""A real broker with small drivers, whose clocks are shifted: ``python shifted_broker.py CONFIG WALL [BOOTTIME]``.

WALL and BOOTTIME are files with seconds, read at each look at the clock, so that it can be set while the broker runs:
the wall clock, as somebody sets it, and the one that counts the machine's sleep, as a sleep moves it.
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
    wall, boottime = Path(sys.argv[2]), Path(sys.argv[-1])

    class ShiftedClock(SystemClock):
        def wall(self) -> WallTime:
            return WallTime(time.time() + float(wall.read_text()))

        def monotonic(self) -> float:
            slept = float(boottime.read_text()) if boottime != wall else 0.0
            return super().monotonic() + slept

    vars(bootstrap)["SystemClock"] = ShiftedClock
    asyncio.run(bootstrap.serve(load_config(Path(sys.argv[1]), os.environ), launcher=SmallLauncher()))
