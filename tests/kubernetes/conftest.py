"""The cluster that these tests use."""

from collections.abc import AsyncIterator, Iterator

import pytest

from tests.kubernetes.faults_table import FaultsTable
from tests.kubernetes.space import Space, check_needs
from tests.kubernetes.space import space as new_space


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
