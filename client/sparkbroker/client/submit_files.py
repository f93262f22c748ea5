"""Files of this machine as spark-submit takes them: in lists with commas, where it reads each item as a URL and as a pattern.

It follows links, and reads the path of what they lead to in the same way. So a path with special characters can't be
written in any form that it reads back: the file has to be given under another path.
"""

import re
import shutil
import tempfile
from pathlib import Path
from typing import Final

_SPECIAL: Final = re.compile(r"[%#?*,:;\[\]{}\\\x00-\x1f]")


def special_character(path: str) -> str:
    """The first character that spark-submit reads as other than a part of the path; empty: there is none."""
    found = _SPECIAL.search(path)
    return found[0] if found else ""


def listable(path: str, folder: Path) -> str:
    """An absolute path that spark-submit reads as this file (or folder): the path itself, or that of a copy below ``folder``.

    The copy has the same name. Raise ValueError if the name itself has a special character.
    """
    if not special_character(path):
        return path
    original = Path(path)
    if found := special_character(original.name):
        raise ValueError(
            f"spark-submit can't be given a file whose name has {found!r} in it ({original.name!r}); rename it"
        )
    copy = Path(tempfile.mkdtemp(dir=folder)) / original.name
    (shutil.copytree if original.is_dir() else shutil.copyfile)(original, copy)
    return str(copy)
