"""Text that comes from outside: what isn't text is escaped, and in a sentence it is quoted and no longer than it may be."""


def escaped(text: str) -> str:
    """The same with a backslash escape for each lone surrogate, which neither gRPC nor the store can carry."""
    return text if text.isascii() else text.encode("utf-8", "backslashreplace").decode()


def shown(text: str, limit: int = 40) -> str:
    """Quoted, and cut to so many characters."""
    return repr(text if len(text) <= limit else text[: limit - 3] + "…")


def shown_value(value: object) -> str:
    """Any value as it may stand in a sentence: the beginning of how it is written."""
    text = repr(value)
    return text if len(text) <= 60 else text[:57] + "…"
