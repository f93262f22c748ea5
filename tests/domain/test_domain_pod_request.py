"""What a pod takes is what Kubernetes says, written down as it says it: resource by resource, and not as one running sum."""

from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from sparkbroker.broker.domain.pods.quantities import pod_request

Box = tuple[dict[str, int], bool]
SIZES = st.dictionaries(st.sampled_from(["cpu", "memory"]), st.integers(0, 9))
BOXES = st.lists(st.tuples(SIZES, st.booleans()), max_size=6)


def container(sizes: dict[str, int], *, always: bool = False, as_limit: bool = False) -> dict[str, Any]:
    written = {name: f"{amount}m" if name == "cpu" else str(amount) for name, amount in sizes.items()}
    # A limit without a request is one.
    return {
        "resources": {"limits" if as_limit else "requests": written},
        **({"restartPolicy": "Always"} if always else {}),
    }


def by_kubernetes(mains: list[Box], inits: list[Box], name: str) -> int:
    """KEP-753: max(max over init containers of it and the sidecars before it, all containers and all sidecars)."""
    starting = [
        sizes.get(name, 0) + sum(before.get(name, 0) for before, always in inits[:index] if always)
        for index, (sizes, _) in enumerate(inits)
    ]
    running = sum(sizes.get(name, 0) for sizes, _ in mains) + sum(
        sizes.get(name, 0) for sizes, always in inits if always
    )
    return max([running, *starting])


@pytest.mark.promise(1)
@given(mains=BOXES, inits=BOXES)
@example(mains=[({"cpu": 1}, False)], inits=[({"cpu": 2}, True), ({"cpu": 4}, False)])
@example(mains=[({"cpu": 1}, False)], inits=[({"cpu": 4}, False), ({"cpu": 2}, True)])
def test_a_pod_takes_what_kubernetes_counts(mains, inits):
    pod = {
        "containers": [container(sizes, as_limit=as_limit) for sizes, as_limit in mains],
        "initContainers": [container(sizes, always=always) for sizes, always in inits],
    }
    taken = pod_request(pod)
    assert [taken[name] for name in ("cpu", "memory")] == [
        by_kubernetes(mains, inits, name) for name in ("cpu", "memory")
    ]
