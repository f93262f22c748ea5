"""A lease that is left to whoever attaches next."""

from typing import Any

import pytest

from sparkbroker import client
from sparkbroker.client import AsyncBroker, Broker


async def test_detached_it_is_neither_renewed_nor_released(broker: Any) -> None:
    async with AsyncBroker(broker.url) as b:
        async with b.lease() as lease:
            await lease.detach()
            assert not lease.attached
            assert repr(lease).endswith("[READY, detached]>")
            with pytest.raises(client.LeaseEnded, match="detached by this program"):
                await lease.connection()
        assert await lease.release()
        assert repr(b) == f"<AsyncBroker {broker.url} [0 attached]>"
    assert broker.live() == [lease.name]
    assert not broker.called("ReleaseLease")


def test_the_next_one_attaches_to_it(broker: Any) -> None:
    with Broker(broker.url) as b:
        with b.lease(key="k") as lease:
            lease.detach()
        with b.lease(key="k", on_existing="REATTACH") as again:
            assert again.name == lease.name
            assert again.generation == 2
    assert broker.live() == []
