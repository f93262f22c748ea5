"""Decisions and values. No external calls, no I/O, no clock, no asyncio: ``now`` is an argument.

Promises: a state changes only as the transition tables say; what is charged never exceeds what is configured. Not
promised: durability (see ``ports.store``) or that the world agrees (see ``app.reconciler``).
"""
