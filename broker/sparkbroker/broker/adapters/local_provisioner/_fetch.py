"""The process that downloads one jar. The first line of its standard input says what, as JSON: ``url`` (it may hold a secret,
and ``ps`` shows arguments), ``path``, and ``largest``, in bytes. The process ends with its standard input.

A process, since nothing else can be ended at a deadline: a name server that doesn't answer holds a thread for as long as it
likes. What went wrong is a line of JSON on its standard output: ``lasting`` (the same would come again) and ``message``.

The broker runs this file without the package around it: only the standard library here.
"""

import http.client
import json
import os
import sys
import threading
import urllib.error
import urllib.request
import zipfile

SLOW_SECONDS = 30.0
SLOW_BYTES = 32 << 10
"""A server that sends less than this within SLOW_SECONDS is given up."""
_BLOCK = 1 << 20
_SILENCE = 30.0
_LASTING = frozenset({*range(300, 400), 400, 401, 403, 404, 410})
"""Answers of a server that won't differ the next time."""
_SCHEMES = ("http:", "https:")


class _Wrong(Exception):
    """What is there is not what was asked for."""


class _Redirects(urllib.request.HTTPRedirectHandler):
    """Only to where a URL may lead in the first place."""

    max_redirections = 5

    def redirect_request(self, *args):  # type: ignore[no-untyped-def]  # noqa: ANN002, ANN202 - as the library's
        if not args[-1].lower().startswith(_SCHEMES):
            raise _Wrong(f"it leads to {args[-1][:200]!r}, which is neither http: nor https:")
        return super().redirect_request(*args)


class _Progress:
    """How much has come. ``watch`` ends the process if that is too little."""

    def __init__(self) -> None:
        self.bytes = 0

    def watch(self) -> None:
        while True:
            before = self.bytes
            threading.Event().wait(SLOW_SECONDS)
            if self.bytes - before < SLOW_BYTES:
                _tell(f"it sent {self.bytes - before} bytes in {SLOW_SECONDS:g} s", lasting=False)
                os._exit(1)


def main() -> int:
    plan = json.loads(sys.stdin.buffer.readline())
    path = plan["path"]
    progress = _Progress()
    for body in (_end_with_input, progress.watch):
        threading.Thread(target=body, daemon=True).start()
    try:
        _copy(plan["url"], path, plan["largest"], progress)
        _check(path)
    except _Wrong as error:
        _tell(str(error), lasting=True)
    except urllib.error.HTTPError as error:
        with error:
            _tell(str(error), lasting=error.code in _LASTING)
    except (OSError, ValueError, http.client.HTTPException) as error:
        _tell(str(error), lasting=False)
    else:
        return 0
    return 1


def _check(path: str) -> None:
    if not zipfile.is_zipfile(path):  # an error page, which must not stay in the cache
        raise _Wrong("it is not a jar: it isn't in the zip format")


def _end_with_input() -> None:
    while os.read(0, 4096):
        pass
    os._exit(1)


def _tell(message: str, *, lasting: bool) -> None:
    os.write(1, json.dumps({"message": message[:500], "lasting": lasting}).encode() + b"\n")


def _copy(url: str, path: str, largest: int, progress: _Progress) -> None:
    """All of it: a connection that ends early is an error, which ``read`` with a size doesn't tell."""
    opener = urllib.request.build_opener(_Redirects)
    with opener.open(url, timeout=_SILENCE) as response, open(path, "wb") as file:  # noqa: PTH123 - quick to import
        expected = response.headers.get("Content-Length")
        while block := response.read1(_BLOCK):
            file.write(block)
            progress.bytes += len(block)
            if progress.bytes > largest:
                raise _Wrong(f"it is larger than {largest} bytes")
    if expected is not None and progress.bytes != int(expected):
        raise OSError(f"it ended after {progress.bytes} of {expected} bytes")


if __name__ == "__main__":
    sys.exit(main())
