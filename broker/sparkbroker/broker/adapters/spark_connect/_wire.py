"""The bytes of the requests (spark/connect/base.proto of Spark 4: the field numbers beside each)."""

from typing import Final

_LENGTH_DELIMITED: Final = 2
_VARINT: Final = 0
INTERRUPT_TYPE_ALL: Final = 1


def release_session(session_id: str, user_id: str) -> bytes:
    """ReleaseSessionRequest: 1 session_id, 2 user_context."""
    return _text(1, session_id) + _user_context(user_id)


def interrupt_all(session_id: str, user_id: str) -> bytes:
    """InterruptRequest: 1 session_id, 2 user_context, 4 interrupt_type."""
    return _text(1, session_id) + _user_context(user_id) + _key(4, _VARINT) + _varint(INTERRUPT_TYPE_ALL)


def _user_context(user_id: str) -> bytes:
    """Field 2, UserContext: 1 user_id."""
    return _bytes(2, _text(1, user_id))


def _text(number: int, value: str) -> bytes:
    return _bytes(number, value.encode())


def _bytes(number: int, value: bytes) -> bytes:
    return _key(number, _LENGTH_DELIMITED) + _varint(len(value)) + value


def _key(number: int, kind: int) -> bytes:
    return _varint(number << 3 | kind)


def _varint(value: int) -> bytes:
    result = bytearray()
    while value > 0x7F:
        result.append(value & 0x7F | 0x80)
        value >>= 7
    result.append(value)
    return bytes(result)
