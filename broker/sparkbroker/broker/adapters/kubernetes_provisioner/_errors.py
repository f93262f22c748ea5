"""From what the API server answers to the broker's own error, in one place. Pure."""

import re
from collections.abc import Iterable
from http import HTTPStatus
from typing import Final

import msgspec

from sparkbroker.broker.adapters.kubernetes_provisioner._pods import API_STATUS, ApiStatus
from sparkbroker.broker.domain.errors import ProvisionerFailed

_LONGEST: Final = 500
_LONGEST_LINE: Final = 8000
"""Of a log, as far as it is looked at."""
_MISSING_ACCOUNT: Final = re.compile(r"error looking up service account (?P<account>\S+):")
_RIGHTS: Final = re.compile(r'User "(?P<user>[^"]+)" cannot (?P<verb>\w+) resource "(?P<resource>[^"]+)"')
_CODE: Final = re.compile(r"\bcode=(\d{3})\b")
_AGAIN: Final = frozenset({408, 409, 429, 500, 502, 503, 504})


class Call(msgspec.Struct, frozen=True, kw_only=True):
    """What was asked, as RBAC names it: ``create`` ``pods`` in a namespace; and by whom, for people."""

    verb: str
    resource: str
    namespace: str
    by: str = "the broker"

    def __str__(self) -> str:
        return f"{self.verb} {self.resource} in namespace {self.namespace!r}"


class ApiFailed(ProvisionerFailed):
    """An answer other than success. ``code``: HTTP's; 0: there was none."""

    def __init__(self, message: str, *, code: int, retryable: bool, misconfigured: bool = False) -> None:
        super().__init__(message, retryable=retryable, misconfigured=misconfigured)
        self.code = code


def unanswered(call: Call, why: str) -> ApiFailed:
    """No answer came; whether the call had an effect isn't known."""
    return ApiFailed(f"the Kubernetes API server can't be reached ({call}): {_short(why)}", code=0, retryable=True)


def failure(call: Call, code: int, body: bytes) -> ApiFailed:
    """The error for an answer."""
    status = _status(body)
    text = status.message or HTTPStatus(code).phrase if code in HTTPStatus._value2member_map_ else status.message
    message, misconfigured = _explain(call, code, text)
    return ApiFailed(message, code=code, retryable=code in _AGAIN or not misconfigured, misconfigured=misconfigured)


def refusal(lines: Iterable[str], namespace: str) -> str:
    """Why Spark can't make executors, by what its Kubernetes client (fabric8: KubernetesClientException) has last written to a
    driver's log; empty: it has written nothing of the kind.

    Anybody's code may have written there: a line takes no longer than its length, and no more than its beginning is looked at.
    """
    last = ""
    for line in lines:
        called, found, said = line[:_LONGEST_LINE].partition("Failure executing: POST at: ")[2].partition(". Message: ")
        if found and called.endswith("/pods"):
            last = said
    if not last:
        return ""
    text, _, status = last.partition(". Received status: ")
    code = _CODE.search(status)
    asked = Call(verb="create", resource="pods", namespace=namespace, by="the driver")
    shown = "".join(filter(str.isprintable, text))
    return _explain(asked, int(code[1]) if code else HTTPStatus.FORBIDDEN.value, shown)[0]


def _status(body: bytes) -> ApiStatus:
    try:
        return API_STATUS.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError):
        return ApiStatus(message=body[:_LONGEST].decode(errors="replace"))


def _explain(call: Call, code: int, text: str) -> tuple[str, bool]:
    """The sentence, and whether only a change of the profile or the cluster helps."""
    if code == HTTPStatus.UNAUTHORIZED:
        return f"the Kubernetes API server doesn't accept {call.by}'s credentials ({call}): {_short(text)}", False
    if code == HTTPStatus.FORBIDDEN:
        return _forbidden(call, text)
    if code == HTTPStatus.NOT_FOUND and text.startswith("namespaces "):
        return (
            f"namespace {call.namespace!r} does not exist; create it, or name another in the profile's pod.namespace",
            True,
        )
    if code == HTTPStatus.UNPROCESSABLE_ENTITY or (code == HTTPStatus.BAD_REQUEST and call.verb == "create"):
        return f"Kubernetes refuses to {call}: {_short(text)}", True
    return f"Kubernetes could not {call} ({code}): {_short(text)}", False


def _forbidden(call: Call, text: str) -> tuple[str, bool]:
    name, asked, used, limited = _quota(text)
    if limited:
        return (
            f"the quota {name!r} of namespace {call.namespace!r} is full: this takes {asked}, {used} of {limited} is used"
        ), False
    rights = _RIGHTS.search(text)
    if rights is not None:
        user, verb, resource = map(_short, rights.group("user", "verb", "resource"))
        return (
            f"403: {user} may not {verb} {resource} in namespace {call.namespace!r}; "
            f"give that account this verb by a Role there"
        ), True
    account = _MISSING_ACCOUNT.search(text)
    if account is not None:
        return (
            f"the service account {_short(account['account'])} does not exist; create it, or name another in the profile's "
            f"pod settings"
        ), True
    reason = text.partition(" is forbidden: ")[2] or text
    return f"admission denied in namespace {call.namespace!r}: {_short(reason)}", True


def _quota(text: str) -> tuple[str, ...]:
    """Its name, what was asked for, used and limited; the last is empty if the text is about something else."""
    parts, rest = [], text.partition("exceeded quota: ")[2]
    for border in (", requested: ", ", used: ", ", limited: "):
        part, _, rest = rest.partition(border)
        parts.append(_short(part))
    return (*parts, _short(rest))


def _short(text: str) -> str:
    line = " ".join(text.split())
    return line if len(line) <= _LONGEST else line[: _LONGEST - 1] + "…"
