"""``import sparkbroker.client`` against ``import grpc``, each in a process of its own, in turns.

The package loads its parts (and grpc) when they are first named; so the import of ``Broker`` itself is measured too.

    python benchmarks/imports.py [--quick] [--pairs 15]
"""

import argparse
import statistics
import subprocess
import sys

from servers import load, row, spread

CODE = "import time; begun = time.perf_counter(); {}; print(time.perf_counter() - begun)"
PEER = "import grpc"
OURS = ("import sparkbroker.client", "from sparkbroker.client import Broker")


def seconds(statement: str) -> float:
    """Measured inside: the interpreter's own start is neither's."""
    command = [sys.executable, "-c", CODE.format(statement)]
    return float(subprocess.run(command, check=True, capture_output=True, text=True).stdout)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="three pairs")
    parser.add_argument("--pairs", type=int, default=15)
    arguments = parser.parse_args()
    for statement in OURS:
        seconds(statement)  # writes the bytecode, if that is missing
        count = 3 if arguments.quick else arguments.pairs
        pairs = [(seconds(statement), seconds(PEER)) for _ in range(count)]
        ours, peer = (statistics.median(column) for column in zip(*pairs, strict=True))
        ratios = spread([one / other for one, other in pairs])
        row(f"`{statement}`", f"{ours * 1e3:.0f} ms", f"`{PEER}` {peer * 1e3:.0f} ms", ratios, "<= 1.3")
    print(load())


if __name__ == "__main__":
    main()
