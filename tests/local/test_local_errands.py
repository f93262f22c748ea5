"""What is brought before a driver starts: it outlives the call that asked for it, and holds up nobody else's."""

import asyncio

import pytest

from sparkbroker.broker.adapters.local_provisioner import _errands
from sparkbroker.broker.adapters.local_provisioner._errands import Errands
from sparkbroker.broker.domain.errors import ProvisionerFailed
from sparkbroker.broker.domain.units import Principal

ANN, BOB = Principal("ann"), Principal("bob")


class Work:
    """Takes until it is let go. ``begun`` and ``over`` count."""

    def __init__(self, error: Exception | None = None) -> None:
        self.go, self.began, self.error = asyncio.Event(), asyncio.Event(), error
        self.begun = self.over = 0

    async def __call__(self) -> int:
        self.begun += 1
        self.began.set()
        try:
            await self.go.wait()
        finally:
            self.over += 1
        if self.error is not None:
            raise self.error
        return 7


@pytest.fixture(autouse=True)
def patience(monkeypatch):
    monkeypatch.setattr(_errands, "PATIENCE", 0.01)


async def asked(errands, principal, name, work, done=lambda: None):
    with pytest.raises(ProvisionerFailed, match=f"{name} is being brought") as refusal:
        await errands.run(principal, name, work, done)
    assert refusal.value.retryable


@pytest.mark.parametrize("error", [None, ProvisionerFailed("no such thing", retryable=False)])
async def test_it_goes_on_after_the_call_and_its_end_is_told(error):
    errands: Errands[int] = Errands(4, 2, lambda: None)
    work, told = Work(error), asyncio.Event()
    for _ in range(3):
        await asked(errands, ANN, "x", work, told.set)
    work.go.set()
    await asyncio.wait_for(told.wait(), 5)
    if error is None:
        assert await errands.run(ANN, "x", work, told.set) == 7
    else:
        with pytest.raises(ProvisionerFailed, match="no such thing"):
            await errands.run(ANN, "x", work, told.set)
    assert (work.begun, work.over) == (1, 1)
    assert repr(errands) == "<Errands [0 under way]>"


async def test_one_principal_has_a_share_and_is_counted_when_it_wants_more():
    limited = []
    errands: Errands[int] = Errands(4, 2, lambda: limited.append(1))
    works = [Work() for _ in range(5)]
    for number, work in enumerate(works):
        await asked(errands, ANN, f"a{number}", work)
    theirs = Work()
    await asked(errands, BOB, "b", theirs)
    assert [work.begun for work in works] == [1, 1, 0, 0, 0]
    assert theirs.begun == 1
    assert len(limited) == 3
    works[0].go.set()
    await asyncio.wait_for(works[2].began.wait(), 5)
    await errands.close()
    assert [work.over for work in (*works, theirs)] == [1, 1, 1, 0, 0, 1]


async def test_what_nobody_asks_for_any_more_ends(monkeypatch):
    monkeypatch.setattr(_errands, "LINGER", 0.02)
    errands: Errands[int] = Errands(1, 1, lambda: None)
    left, wanted = Work(), Work()
    await asked(errands, ANN, "left", left)
    while not wanted.begun:
        await asked(errands, BOB, "wanted", wanted)
    assert left.over == 1
    wanted.go.set()
    await errands.close()
