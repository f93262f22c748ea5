"""When the token file is looked at, in virtual time."""

import asyncio
from contextlib import asynccontextmanager

import pytest

from sparkbroker.broker.adapters.static_tokens import StaticTokens, new_token
from sparkbroker.broker.adapters.token_follower import CHECK_PERIOD, SETTLE, SETTLE_LOOKS, TokenFollower
from sparkbroker.broker.domain.errors import Unauthenticated


def valid(tokens: StaticTokens, token: str) -> bool:
    try:
        tokens.authenticate({"authorization": f"Bearer {token}"})
    except Unauthenticated:
        return False
    return True


@pytest.fixture
def path(tmp_path):
    path = tmp_path / "tokens"
    path.touch(mode=0o600)
    return path


@asynccontextmanager
async def following(tokens: StaticTokens):
    async with asyncio.TaskGroup() as group:
        task = group.create_task(TokenFollower(tokens).run())
        yield
        task.cancel()
    assert task.cancelled()


async def test_a_change_is_in_force_within_a_period(path):
    # Of other lengths: virtual time doesn't move the clock of the file system.
    (old, old_entry), (new, new_entry) = new_token("ann"), new_token("cleo")
    path.write_text(old_entry)
    tokens = StaticTokens(path)
    async with following(tokens):
        await asyncio.sleep(CHECK_PERIOD * 3.5)
        path.write_text(new_entry)
        await asyncio.sleep(CHECK_PERIOD + SETTLE)
        assert (valid(tokens, old), valid(tokens, new)) == (False, True)


async def test_a_file_that_is_being_written_shuts_nobody_out(path):
    token, entry = new_token("ann")
    path.write_text(entry)
    tokens = StaticTokens(path)
    async with following(tokens):
        loop = asyncio.get_running_loop()
        loop.call_later(CHECK_PERIOD - SETTLE / 4, path.write_text, "")
        loop.call_later(CHECK_PERIOD + SETTLE / 2, path.write_text, entry + "# the same again\n")
        for _ in range(int(CHECK_PERIOD / SETTLE) * 8):
            await asyncio.sleep(SETTLE / 4)
            assert valid(tokens, token)


async def test_a_file_that_is_written_all_the_time_is_read_all_the_same(path):
    token, entry = new_token("ann")
    path.write_text(entry)
    tokens = StaticTokens(path)

    async def write():
        lines = ""
        while True:
            lines += "#\n"
            path.write_text(lines)
            await asyncio.sleep(SETTLE / 2)

    async with following(tokens), asyncio.TaskGroup() as group:
        writing = group.create_task(write())
        await asyncio.sleep(CHECK_PERIOD + SETTLE * (SETTLE_LOOKS + 1))
        assert not valid(tokens, token)
        writing.cancel()
