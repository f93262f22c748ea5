"""What bears this broker's labels and can't be its own: told, and left alone.

Labels can be read by whoever may list pods, and copied by whoever may make one. Nothing of that kind stops the broker's
look at what is its own.
"""

from typing import Final

import structlog

from sparkbroker.broker.adapters.kubernetes_provisioner._pods import Metadata

log = structlog.get_logger()

TOLD: Final = 100
"""Of one broker's life: who can make one can make many."""


class Strays:
    """Each is told once. ``<Strays [2 told]>``."""

    def __init__(self) -> None:
        self._told: set[str] = set()

    def __repr__(self) -> str:
        return f"<Strays [{len(self._told)} told]>"

    def tell(self, kind: str, metadata: Metadata, why: str) -> None:
        """``why`` says which of its labels can't be true."""
        if metadata.uid in self._told or len(self._told) == TOLD:
            return
        self._told.add(metadata.uid)
        log.warning("kubernetes.stray", kind=kind, namespace=metadata.namespace, name=metadata.name, why=why)
        if len(self._told) == TOLD:
            log.warning("kubernetes.strays_many", told=TOLD, message="further ones aren't told")
