"""What ``doctor`` asks the cluster of each kubernetes profile: rights and pods, without making anything."""

import asyncio
from collections.abc import Iterator
from typing import Final

from sparkbroker.broker.adapters.kubernetes_provisioner import examine
from sparkbroker.broker.adapters.system_clock import SystemClock
from sparkbroker.broker.cli.doctor_finding import Finding, Status
from sparkbroker.broker.config import Config, to_profiles
from sparkbroker.broker.domain.errors import ProvisionerFailed

LIMIT: Final = 60.0
"""Seconds for all of it."""
FINE: Final = "the rights are there; a dry run of its pods is accepted"


def of_cluster(config: Config) -> Iterator[Finding]:
    """A finding for each profile and namespace; one if the cluster can't be asked."""
    try:
        refusals = asyncio.run(asyncio.wait_for(examine(to_profiles(config).values(), SystemClock()), LIMIT))
    except ProvisionerFailed as error:
        yield Finding("Kubernetes", Status.MISSING, error.message, "mend KUBECONFIG, or run it where the broker runs")
        return
    except TimeoutError:
        yield Finding("Kubernetes", Status.MISSING, f"no answer within {LIMIT:g} s", "look after the API server")
        return
    for refusal in refusals:
        what = f"Kubernetes (profile {refusal.profile}, namespace {refusal.namespace})"
        if not refusal.troubles:
            yield Finding(what, Status.OK, FINE)
        for trouble in refusal.troubles:
            yield Finding(what, Status.MISSING, trouble, "mend the profile, or what the cluster lacks")
