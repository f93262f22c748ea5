"""Use cases and loops: a thin async shell around ``domain``, over ``ports``.

Promises: every reply tells only what is committed; one worker per driver at a time; every task has an owner. Not
promised: a transport (``rpc``) or a way to run Spark (``adapters``).
"""
