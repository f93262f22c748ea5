"""The folder that one broker owns."""

import os
import stat
import subprocess
import sys

import pytest

from sparkbroker.broker.adapters.sql_store import Ballast, StateFolder
from sparkbroker.broker.ports.store import StoreUnusable

SMALL = 64 << 10


def mode(path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def refusal(path) -> str:
    with pytest.raises(StoreUnusable) as caught:
        StateFolder(path, ballast_size=SMALL).open()
    return caught.value.message


def test_it_is_made_for_its_owner_alone(tmp_path):
    before = os.umask(0)
    try:
        with StateFolder(tmp_path / "state", ballast_size=SMALL) as state:
            assert {mode(state.path), mode(state.drivers), mode(state.cache)} == {0o700}
            assert {mode(state.path / name) for name in ("lock", "key", "ballast")} == {0o600}
            assert state.ballast.held >= SMALL
            assert "taken" in repr(state)
    finally:
        os.umask(before)
    assert "not taken" in repr(state)


def test_the_key_is_random_and_stays(tmp_path):
    with StateFolder(tmp_path / "one", ballast_size=0) as one, StateFolder(tmp_path / "two", ballast_size=0) as two:
        assert len(one.key) == 32
        assert one.key != two.key
        key = one.key
    with StateFolder(tmp_path / "one", ballast_size=0) as one:
        assert one.key == key
    with pytest.raises(RuntimeError, match=r"call open\(\) first"):
        _ = one.key


def test_a_damaged_or_public_key_is_refused(tmp_path):
    with StateFolder(tmp_path / "state", ballast_size=0) as state:
        key = state.path / "key"
    key.chmod(0o640)
    assert "chmod 600" in refusal(state.path)
    key.chmod(0o600)
    key.write_bytes(b"short")
    assert "has 5 bytes, and a key has 32" in refusal(state.path)
    key.unlink()
    with state:
        assert len(state.key) == 32


def test_a_second_broker_refuses_and_names_the_first(tmp_path):
    program = "import sys, pathlib\nfrom sparkbroker.broker.adapters.sql_store import StateFolder\n"
    program += (
        "StateFolder(pathlib.Path(sys.argv[1]), ballast_size=0).open()\nprint('taken', flush=True)\nsys.stdin.read()\n"
    )
    arguments = [sys.executable, "-c", program, str(tmp_path / "state")]
    with subprocess.Popen(arguments, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as first:
        assert first.stdout is not None
        assert first.stdout.readline() == "taken\n"
        message = refusal(tmp_path / "state")
        assert f"another broker (pid {first.pid}, since " in message
        assert f"uses {tmp_path / 'state'}; stop it or give this one another state folder" in message
        first.kill()
    with StateFolder(tmp_path / "state", ballast_size=0):
        assert f"pid {os.getpid()}" in refusal(tmp_path / "state")


def test_a_child_process_does_not_keep_it(tmp_path):
    state = StateFolder(tmp_path / "state", ballast_size=0)
    with state, subprocess.Popen(["cat"], stdin=subprocess.PIPE, close_fds=False) as child:
        state.close()
        with StateFolder(tmp_path / "state", ballast_size=0):
            assert child.poll() is None
        assert child.stdin is not None
        child.stdin.close()


def test_a_missing_parent_is_said_or_made(tmp_path):
    assert f"{tmp_path / 'a' / 'b'} doesn't exist; create that" in refusal(tmp_path / "a" / "b" / "state")
    with StateFolder(tmp_path / "a" / "b" / "state", ballast_size=0, create_parents=True) as state:
        assert mode(state.path) == 0o700


def test_a_folder_that_others_can_read_is_refused(tmp_path):
    folder = tmp_path / "state"
    folder.mkdir(mode=0o755)
    folder.chmod(0o755)
    assert (
        f"has mode 0755: others may look into it, and it holds the broker's key; run `chmod 700 {folder}`"
        in refusal(folder)
    )


def test_another_user_s_folder_is_refused(need, tmp_path):
    need(os.geteuid() == 0, "root, to give a folder away")
    folder = tmp_path / "state"
    folder.mkdir(mode=0o700)
    os.chown(folder, 12345, 12345)
    assert "belongs to user 12345, and this is user 0" in refusal(folder)


def test_a_file_is_no_folder(tmp_path):
    (tmp_path / "state").write_text("")
    assert "is not a folder" in refusal(tmp_path / "state")
    assert "can't be used" in refusal(tmp_path / "state" / "below")


def test_nothing_stays_taken_after_a_refusal(tmp_path):
    folder = tmp_path / "state"
    folder.mkdir(mode=0o700)
    (folder / "drivers").write_text("a file where a folder is to be")
    for _ in range(2):
        assert "another broker" not in refusal(folder)
    (folder / "drivers").unlink()
    with StateFolder(folder, ballast_size=0):
        pass


def test_the_ballast_is_freed_once_and_filled_again(tmp_path):
    ballast = Ballast(tmp_path / "ballast", SMALL)
    assert not ballast.free()
    assert ballast.fill()
    assert ballast.fill()
    assert ballast.held >= SMALL
    assert ballast.free()
    assert ballast.held == 0
    assert not ballast.free()
    assert ballast.fill()
    assert ballast.held >= SMALL
    with pytest.raises(ValueError, match="size: -1"):
        Ballast(tmp_path / "ballast", -1)


def test_ballast_is_given_back_in_small_steps_and_half_of_it_is_for_ends(tmp_path):
    """Whatever else fills the disk takes all that is left of a step."""
    ballast = Ballast(tmp_path / "ballast", 4 << 20)
    assert ballast.fill()
    assert ballast.free()
    assert ballast.held >= (4 << 20) - (256 << 10)
    assert ballast.free((4 << 20) - (256 << 10) - (2 << 20))
    scarce = [ballast.scarce, ballast.free() and ballast.scarce]
    assert scarce == [False, True]
    assert ballast.free(1 << 40)
    assert not ballast.free()
