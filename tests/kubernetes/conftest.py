"""The cluster that these tests use."""

import shutil
from collections.abc import AsyncIterator, Iterator

import pytest

from tests.kubernetes.faults_table import FaultsTable
from tests.kubernetes.holder import Door, check_door_needs, door
from tests.kubernetes.policy import policy as chart_policy
from tests.kubernetes.space import Space, check_needs
from tests.kubernetes.space import space as new_space
from tools.cluster import layout


@pytest.fixture(scope="session")
def faults() -> Iterator[FaultsTable]:
    """The table of faults of this run."""
    table = FaultsTable()
    yield table
    table.write()


@pytest.fixture
async def space(need) -> AsyncIterator[Space]:
    """A namespace of this test alone."""
    check_needs(need)
    async with new_space() as made:
        yield made


@pytest.fixture
async def entry(space, tmp_path, need) -> Door:
    """How pods of ``space`` reach the test's broker; the rights that mode CLIENT needs are given."""
    check_door_needs(need)
    await space.give_client_rights()
    return await door(tmp_path, space)


@pytest.fixture
async def policy(space, need) -> AsyncIterator[str]:
    """The chart's admission policy is in force in ``space``: the owner's value of a broker that works under it."""
    own = layout.BIN / "helm"
    helm = str(own) if own.exists() else shutil.which("helm")
    need(helm, "helm (`python3 -m tools.cluster build` compiles it)")
    async with chart_policy(space, str(helm)) as owner:
        yield owner
