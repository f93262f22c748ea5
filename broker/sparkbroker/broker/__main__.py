"""``python -m sparkbroker.broker``: the same as the command ``sparkbroker``."""

from sparkbroker.broker.cli import main

if __name__ == "__main__":
    main()
