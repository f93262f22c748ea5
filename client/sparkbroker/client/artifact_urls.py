"""How a file of this machine is named to pyspark's ``addArtifacts``. Pure.

It takes a path for a URL: ``%20`` in it for a space, and what follows ``#``, ``?`` or ``;`` for no part of the file's name.
"""

import os
from pathlib import Path
from typing import Final
from urllib.parse import unquote, urlsplit

_HERE: Final = ("", "localhost")


def artifact_url(path: str | os.PathLike[str]) -> str:
    """What ``addArtifacts`` of a Connect session reads as exactly this file. Raise ValueError for a name that isn't UTF-8.

    ``path`` is a path, whatever it looks like: one that is relative is in the working folder. For a URL of the user's there is
    ``path_of``; for an archive, ``archive_url``.
    """
    absolute = os.path.abspath(path)  # noqa: PTH100  Path keeps two slashes at the beginning, which a URL has for a host
    try:
        absolute.encode()
    except UnicodeEncodeError as error:
        raise ValueError(f"{absolute!r} has a name that isn't UTF-8, which Spark can't be told; rename it") from error
    return Path("/" + absolute.lstrip("/")).as_uri()


def archive_url(path: str | os.PathLike[str], name: str = "") -> str:
    """The same for an archive, which is unpacked into a folder of that name; empty: of the file's. Raise ValueError for what
    Spark would read otherwise."""
    if "#" in (os.path.abspath(path) if name else Path(path).name):  # noqa: PTH100  as above
        raise ValueError(
            f"{os.fspath(path)!r}: Spark takes what follows a # in an archive's path for a folder; rename it"
        )
    if not name:
        return artifact_url(path)
    if not all(character.isalnum() or character in "._-" for character in name) or name in (".", ".."):
        raise ValueError(f"an archive can't be unpacked as {name!r}; give letters, digits and . _ - only")
    return f"{artifact_url(path)}#{name}"


def classic_py_file(path: str | os.PathLike[str]) -> str:
    """What ``addPyFile`` of a classic session reads as exactly this file. Raise ValueError for a name that it can't have.

    It finds the file by the text's last part as it is, so that a path is better than a URL. Only ``#`` is none of a path's.
    """
    absolute = os.path.abspath(path)  # noqa: PTH100  as above
    if "#" not in absolute:
        return absolute
    url = artifact_url(absolute)
    if not absolute.endswith(".py") and Path(url).name != Path(absolute).name:
        raise ValueError(
            f"{absolute!r}: a classic session can't find a package of this name in a path with #; rename it"
        )
    return url


def path_of(url: str) -> str:
    """The path of a ``file:`` URL. Raise ValueError for one that names no file of this machine, or more than a file."""
    if not url.isprintable() or " " in url:
        raise ValueError(
            f"{url!r} has characters that a URL can't have; write %20 for a space, or give the path itself"
        )
    parts = urlsplit(url)
    if parts.scheme != "file":
        raise ValueError(f"{url!r} is not a file: URL")
    if parts.netloc not in _HERE:
        raise ValueError(f"{url!r} names a file of the machine {parts.netloc!r}; write file:///path")
    if "?" in url or "#" in url:
        raise ValueError(
            f"{url!r} has more than a path; in a URL write %3F for ? and %23 for #, or give the path itself"
        )
    path = unquote(parts.path, errors="surrogateescape")
    if not path.startswith("/") or "\0" in path:
        raise ValueError(f"{url!r} names no absolute path; write file:///path")
    return path
