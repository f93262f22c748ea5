"""The cluster that these tests use."""

from collections.abc import AsyncIterator

import pytest

from tests.kubernetes.space import Space, check_needs
from tests.kubernetes.space import space as new_space


@pytest.fixture
async def space(need) -> AsyncIterator[Space]:
    """A namespace of this test alone."""
    check_needs(need)
    async with new_space() as made:
        yield made
