"""What editors of other systems put into a file is taken off, or said: everywhere that a file of the user's is read."""

import codecs

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sparkbroker import client
from sparkbroker.broker.adapters import static_provisioner, static_tokens
from sparkbroker.broker.adapters.static_tokens import new_token
from sparkbroker.broker.cli.properties import read_properties
from sparkbroker.broker.config.load import load_config
from sparkbroker.broker.domain.units import Principal
from sparkbroker.client import file_text, resolve_address

TEXT = st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), max_size=50)


@given(text=TEXT.filter(lambda text: not text.startswith("\ufeff")), mark=st.booleans())
def test_a_mark_is_no_part_of_the_text(text, mark):
    assert file_text.decode(text.encode("utf-8-sig" if mark else "utf-8")) == text


@given(text=TEXT, encoding=st.sampled_from(["UTF-16", "UTF-32"]), big=st.booleans())
def test_another_encoding_is_named(text, encoding, big):
    content = ("\ufeff" + text).encode(f"{encoding}-{'be' if big else 'le'}")
    with pytest.raises(file_text.NotText, match=rf"^is {encoding}, by its byte order mark, and not UTF-8$"):
        file_text.decode(content)


@pytest.mark.parametrize(
    ("content", "why"),
    [(b"ab\xff", r"is not UTF-8 \(byte 2\)"), ("ab".encode("utf-16-le"), r"byte 1 is NUL, as in UTF-16")],
)
def test_what_is_no_text_says_where(content, why):
    with pytest.raises(file_text.NotText, match=why):
        file_text.decode(content)


def _client(file):
    return resolve_address(environ={"XDG_CONFIG_HOME": str(file.parent.parent)}).url


def _client_token(file):
    return resolve_address("unix:///x", token_file=file, environ={}).read_token()


def _principals(file):
    return {caller.principal for caller in static_tokens.load(file).values()}


READERS = {
    "broker.toml": (
        lambda file: load_config(file, {}).server.metrics,
        '[server]\nmetrics = "127.0.0.1:1"\n',
        "127.0.0.1:1",
    ),
    "spark.conf": (read_properties, "spark.a b\n", {"spark.a": "b"}),
    "tokens.toml": (_principals, new_token("ann")[1], {Principal("ann")}),
    "sparkbroker/client.toml": (_client, 'url = "unix:///x"', "unix:///x"),
    "token": (_client_token, "s3cret\n", "s3cret"),
    "server.token": (lambda file: static_provisioner._read_secret(str(file)), "s3cret\n", "s3cret"),
}


@pytest.mark.parametrize(("name", "reader"), READERS.items(), ids=READERS)
def test_each_file_may_begin_with_a_mark_and_is_named_if_it_is_utf_16(tmp_path, name, reader):
    read, text, expected = reader
    file = tmp_path / name
    file.parent.mkdir(exist_ok=True)
    file.touch(mode=0o600)
    file.write_bytes(text.encode("utf-8-sig"))
    assert read(file) == expected
    for encoding in ("utf-16", "utf-16-le"):
        file.write_bytes(text.encode(encoding))
        with pytest.raises(Exception, match="UTF-16") as caught:
            read(file)
        assert str(file) in str(caught.value)
        assert "s3cret" not in str(caught.value)


def test_a_token_of_the_environment_and_a_ca_file_may_begin_with_one(tmp_path):
    found = resolve_address("unix:///x", token="\ufeffs3cret", environ={})
    assert found.read_token() == "s3cret"
    ca = tmp_path / "ca.pem"
    ca.write_bytes(codecs.BOM_UTF8 + b"-----BEGIN")
    assert resolve_address("grpcs://h:1", ca_file=ca, environ={}).read_ca() == b"-----BEGIN"
    with pytest.raises(client.BadAddress, match="characters"):
        resolve_address("unix:///x", token="s3\ufeffcret", environ={})
