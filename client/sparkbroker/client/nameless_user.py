"""A JVM for a user without a name: a uid that the system's user database doesn't know, as OpenShift gives to containers.

Hadoop asks Java for the user's name when it first opens a file, Java asks the database, and the login fails with "invalid null
input: name". No setting keeps it from asking. So the JVM gets another ``com.sun.security.auth.module.UnixSystem``, the class
that asks, with the answers in it. Nothing else of Java uses that class. Its methods are the same in Java 8 to 25.
"""

import os
import pwd
import shlex
import struct
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final

_DEFAULTS: Final = "spark.driver.defaultJavaOptions"
_MODULE: Final = "jdk.security.auth"
_CLASS: Final = "com/sun/security/auth/module/UnixSystem"
_PUBLIC: Final = 1
_JAVA_8: Final = 52
_MOST_STACK: Final = 2


def user_name(uid: int) -> str | None:
    """What the system calls this user. None: nothing."""
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return None


def java_options(folder: Path, environ: Mapping[str, str]) -> tuple[str, ...]:
    """The options of a JVM that is started with this environment by this process: none for a user with a name.

    What they need is written below ``folder``, which has to last as long as the JVM. A JVM with them uses no class archive.
    Raise OSError.
    """
    uid = os.getuid()
    if user_name(uid) is not None:
        return ()
    name = f"uid-{uid}"
    patch = folder / "java-user"
    file = patch / f"{_CLASS}.class"
    file.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    file.write_bytes(unix_system(name, uid, os.getgid()))
    # Java knows neither: it would say "?", and put files into a folder of this name.
    home = environ.get("HOME") or str(folder)
    return (f"--patch-module={_MODULE}={patch}", f"-Duser.name={name}", f"-Duser.home={home}")


def with_java_options(conf: Mapping[str, str], options: Sequence[str], key: str = _DEFAULTS) -> dict[str, str]:
    """Spark's configuration for a JVM that its launcher starts, with these options before those that it has."""
    if not options:
        return dict(conf)
    return {**conf, key: " ".join(filter(None, [shlex.join(options), conf.get(key, "")]))}


def unix_system(name: str, uid: int, gid: int) -> bytes:
    """The class file."""
    pool = _Pool()
    this, parent = pool.class_(_CLASS), pool.class_("java/lang/Object")
    init = pool.add(
        10, struct.pack(">HH", parent, pool.add(12, struct.pack(">HH", pool.utf8("<init>"), pool.utf8("()V"))))
    )
    text = pool.add(8, struct.pack(">H", pool.utf8(name)))
    methods = [
        _method(pool, "<init>", "()V", b"\x2a\xb7" + struct.pack(">H", init) + b"\xb1"),
        _method(pool, "getUsername", "()Ljava/lang/String;", b"\x13" + struct.pack(">H", text) + b"\xb0"),
        _method(pool, "getUid", "()J", b"\x14" + struct.pack(">H", pool.long(uid)) + b"\xad"),
        _method(pool, "getGid", "()J", b"\x14" + struct.pack(">H", pool.long(gid)) + b"\xad"),
        _method(pool, "getGroups", "()[J", b"\x03\xbc\x0b\xb0"),  # new long[0]
    ]
    head = struct.pack(">IHHH", 0xCAFEBABE, 0, _JAVA_8, pool.size) + pool.content
    head += struct.pack(">HHHHHH", _PUBLIC | 0x20, this, parent, 0, 0, len(methods))
    return head + b"".join(methods) + struct.pack(">H", 0)


def _method(pool: "_Pool", name: str, kind: str, code: bytes) -> bytes:
    body = struct.pack(">HHI", _MOST_STACK, 1, len(code)) + code + struct.pack(">HH", 0, 0)
    attribute = struct.pack(">HI", pool.utf8("Code"), len(body)) + body
    return struct.pack(">HHHH", _PUBLIC, pool.utf8(name), pool.utf8(kind), 1) + attribute


class _Pool:
    """The constants of a class file, numbered from 1."""

    def __init__(self) -> None:
        self.content = b""
        self.size = 1

    def add(self, tag: int, data: bytes) -> int:
        number = self.size
        self.content += bytes([tag]) + data
        self.size += 1
        return number

    def utf8(self, text: str) -> int:
        return self.add(1, struct.pack(">H", len(text)) + text.encode("ascii"))

    def class_(self, name: str) -> int:
        return self.add(7, struct.pack(">H", self.utf8(name)))

    def long(self, value: int) -> int:
        number = self.add(5, struct.pack(">q", value))
        self.size += 1  # it takes two numbers
        return number
