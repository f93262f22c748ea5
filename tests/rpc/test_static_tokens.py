"""The token file: what is read, what is refused and how that is said."""

from hashlib import sha256

import pytest

from sparkbroker.broker.adapters.local_user import LocalUser
from sparkbroker.broker.adapters.static_tokens import StaticTokens, TokenFileInvalid, new_token
from sparkbroker.broker.domain.errors import Unauthenticated
from sparkbroker.broker.ports.authenticator import Role

HASH = sha256(b"x").hexdigest()


@pytest.fixture
def write(tmp_path):
    def write(text, mode=0o600):
        path = tmp_path / "tokens.toml"
        path.write_text(text)
        path.chmod(mode)
        return path

    return write


def test_a_new_token_works_and_is_not_in_the_file(write):
    token, entry = new_token("ann", [Role.OPERATOR, Role.USER])
    assert token not in entry
    caller = StaticTokens(write(entry)).authenticate({"authorization": f"Bearer {token}"})
    assert caller.principal == "ann"
    assert caller.roles == {Role.USER, Role.OPERATOR}
    assert new_token("ann")[0] != token


def test_roles_default_to_user(write):
    tokens = StaticTokens(write(f'[[token]]\nprincipal = "ann"\nsha256 = "{HASH.upper()}"'))
    assert tokens.authenticate({"authorization": "Bearer x"}).roles == {Role.USER}


def test_the_hash_is_not_the_token(write):
    tokens = StaticTokens(write(f'[[token]]\nprincipal = "ann"\nsha256 = "{HASH}"'))
    with pytest.raises(Unauthenticated) as caught:
        tokens.authenticate({"authorization": f"Bearer {HASH}"})
    assert HASH not in caught.value.message
    assert HASH not in repr(tokens)


GOOD = f'[[token]]\nprincipal = "ann"\nsha256 = "{HASH}"\n'


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("[[token", "is not valid TOML"),
        ("tokens = 1", r"unknown \['tokens'\]"),
        ("token = 1", r"must be written as \[\[token\]\]"),
        (GOOD + '[[token]]\nprincipal = "bob"\n', r"entry 2 \(bob\): sha256 must be"),
        (GOOD + GOOD, "entry 2: this sha256 stands there twice"),
        (f'[[token]]\nsha256 = "{HASH}"', "entry 1: principal must be"),
        (f'[[token]]\nprincipal = "a b"\nsha256 = "{HASH}"', "entry 1: principal must be"),
        ('[[token]]\nprincipal = "ann"\nsha256 = "12"', "64 hexadecimal digits"),
        (GOOD + 'roles = ["root"]', "user or operator"),
        (GOOD + "roles = []", "at least one"),
        (GOOD + "roles = 1", "must be a list"),
        (GOOD + "roles = [[1]]", "must be a list"),
        (GOOD + 'token = "x"', r"unknown \['token'\]"),
        ("#" * (1 << 20) + "\n", "larger than"),
    ],
)
def test_a_bad_file_is_refused_with_its_entry(write, text, problem):
    path = write(text)
    with pytest.raises(TokenFileInvalid, match=problem) as caught:
        StaticTokens(path)
    assert str(path) in caught.value.message
    assert HASH not in caught.value.message


@pytest.mark.parametrize("mode", [0o604, 0o644, 0o620, 0o602])
def test_a_file_that_others_can_read_or_change_is_refused(write, mode):
    with pytest.raises(TokenFileInvalid, match=f"mode {mode:04o}.*chmod 600"):
        StaticTokens(write(GOOD, mode))


def test_a_group_may_read_it(write):
    assert StaticTokens(write(GOOD, 0o640)).authenticate({"authorization": "Bearer x"}).principal == "ann"


def test_a_file_that_is_missing_or_no_file_is_said(tmp_path):
    with pytest.raises(TokenFileInvalid, match="No such file"):
        StaticTokens(tmp_path / "none")
    with pytest.raises(TokenFileInvalid, match="Is a directory"):
        StaticTokens(tmp_path)


def test_a_bad_reload_keeps_what_was(write):
    tokens = StaticTokens(write(GOOD))
    write("nonsense")
    with pytest.raises(TokenFileInvalid):
        tokens.reload()
    assert tokens.authenticate({"authorization": "Bearer x"}).principal == "ann"
    write("")
    assert tokens.reload() == 0
    with pytest.raises(Unauthenticated):
        tokens.authenticate({"authorization": "Bearer x"})


def test_a_token_needs_a_proper_name():
    with pytest.raises(TokenFileInvalid, match="principal must be"):
        new_token('ann"\nroles = ["operator"]')


def test_the_local_user_is_who_runs_the_broker():
    caller = LocalUser().authenticate({})
    assert caller.principal
    assert caller.operator
