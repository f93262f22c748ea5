"""Amounts of capacity, and who holds which.

Promises: what the ledger charges never exceeds what is configured, and nothing else takes capacity. Not promised: who gets
what becomes free (see ``admission``).
"""
