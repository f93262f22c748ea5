"""The sparkbroker service: leases, admission, drivers, their store and their API.

Dependencies run one way: ``rpc | adapters -> app -> ports -> domain``; ``bootstrap`` composes them from ``config``. The
contracts in ``pyproject.toml`` hold it there.
"""
