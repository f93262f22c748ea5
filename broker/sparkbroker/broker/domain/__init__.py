"""Decisions and values. No external calls, no I/O, no clock, no asyncio: ``now`` is an argument.

Five packages in layers, ``asking | admission`` over ``lease | pods`` over ``capacity``; beside them is what all of them use.
Promises: a state changes only as the transition tables say; what is charged never exceeds what is configured. Not
promised: durability (see ``ports.store``) or that the world agrees (see ``app.reconciler``).
"""
