"""The kinds of time and identity that must not be mixed."""

from typing import NewType

LeaseId = NewType("LeaseId", str)
DriverId = NewType("DriverId", str)
Principal = NewType("Principal", str)
SpecId = NewType("SpecId", str)
"""Equal for equal specs: a digest."""

Seconds = NewType("Seconds", float)
"""A duration."""

WallTime = NewType("WallTime", float)
"""Unix seconds by the wall clock: for people and records, never for a deadline."""

ServingTime = NewType("ServingTime", float)
"""Seconds for which a broker has served this store: every deadline. It stands still while no broker serves."""

Revision = NewType("Revision", int)
"""Counts committed changes over all rows, from 1."""

Epoch = NewType("Epoch", int)
"""Counts leaderships of a store, from 1."""

Generation = NewType("Generation", int)
"""The fencing token of an attachment; grows with every attach of its lease, from 1."""
