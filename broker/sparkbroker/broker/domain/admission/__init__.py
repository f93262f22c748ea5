"""Which waiting lease is next, and why the others wait.

Promises: nothing is admitted that doesn't fit; a blocked queue delays no other; no lease that can fit waits for ever while
what runs ends. See ``cycle``, which has the rules.
"""
