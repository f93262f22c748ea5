"""From what the API server answers to the broker's own error, in one place. Pure."""

import re
from http import HTTPStatus
from typing import Final

import msgspec

from sparkbroker.broker.adapters.kubernetes_provisioner._pods import API_STATUS, ApiStatus
from sparkbroker.broker.domain.errors import ProvisionerFailed

_LONGEST: Final = 500
_QUOTA: Final = re.compile(
    r"exceeded quota: (?P<name>[^,]+), requested: (?P<asked>.+?), used: (?P<used>.+?), limited: (?P<limited>.+)"
)
_MISSING_ACCOUNT: Final = re.compile(r"error looking up service account (?P<account>\S+):")
_RIGHTS: Final = re.compile(r'User "(?P<user>[^"]+)" cannot (?P<verb>\w+) resource "(?P<resource>[^"]+)"')
_AGAIN: Final = frozenset({408, 409, 429, 500, 502, 503, 504})


class Call(msgspec.Struct, frozen=True, kw_only=True):
    """What was asked, as RBAC names it: ``create`` ``pods`` in a namespace."""

    verb: str
    resource: str
    namespace: str

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


def _status(body: bytes) -> ApiStatus:
    try:
        return API_STATUS.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError):
        return ApiStatus(message=body[:_LONGEST].decode(errors="replace"))


def _explain(call: Call, code: int, text: str) -> tuple[str, bool]:
    """The sentence, and whether only a change of the profile or the cluster helps."""
    if code == HTTPStatus.UNAUTHORIZED:
        return f"the Kubernetes API server doesn't accept the broker's credentials ({call}): {_short(text)}", False
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
    quota = _QUOTA.search(text)
    if quota is not None:
        return (
            f"the quota {quota['name']!r} of namespace {call.namespace!r} is full: this takes {quota['asked']}, "
            f"{quota['used']} of {quota['limited']} is used"
        ), False
    rights = _RIGHTS.search(text)
    if rights is not None:
        return (
            f"403: {rights['user']} may not {rights['verb']} {rights['resource']} in namespace {call.namespace!r}; "
            f"give the broker's account this verb by a Role there"
        ), True
    account = _MISSING_ACCOUNT.search(text)
    if account is not None:
        return (
            f"the service account {account['account']} does not exist; create it, or name another in the profile's "
            f"pod.service_account"
        ), True
    reason = text.partition(" is forbidden: ")[2] or text
    return f"admission denied in namespace {call.namespace!r}: {_short(reason)}", True


def _short(text: str) -> str:
    line = " ".join(text.split())
    return line if len(line) <= _LONGEST else line[: _LONGEST - 1] + "…"
