"""Leases and their drivers: values, states, and the next step of each.

Promises: a state changes only as the transition tables say; every deadline counts serving time. Not promised: that a step
is carried out (see ``app``).
"""
