"""Text that comes from outside: paths, log lines and messages may hold bytes that are no text."""


def escaped(text: str) -> str:
    """The same with a backslash escape for each lone surrogate, which neither gRPC nor the store can carry."""
    return text if text.isascii() else text.encode("utf-8", "backslashreplace").decode()
