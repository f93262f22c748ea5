"""Run in a driver's container by a test: what its credential lets it do. Prints the status of each attempt, as JSON."""

import json
import os
import ssl
import urllib.error
import urllib.request
from pathlib import Path

ACCOUNT = Path("/var/run/secrets/kubernetes.io/serviceaccount")
HOST, PORT = os.environ["KUBERNETES_SERVICE_HOST"], os.environ["KUBERNETES_SERVICE_PORT"]
NAMESPACE = f"/api/v1/namespaces/{(ACCOUNT / 'namespace').read_text()}"
ROGUE = {
    "metadata": {"name": "rogue"},
    "spec": {
        "securityContext": {"runAsNonRoot": True, "runAsUser": 185, "seccompProfile": {"type": "RuntimeDefault"}},
        "containers": [
            {
                "name": "rogue",
                "image": "sparkbroker.test/none:1",
                "securityContext": {"allowPrivilegeEscalation": False, "capabilities": {"drop": ["ALL"]}},
            }
        ],
    },
}


def call(method: str, path: str, body: object = None) -> int:
    request = urllib.request.Request(
        f"https://{HOST}:{PORT}{NAMESPACE}{path}",
        method=method,
        data=json.dumps(body).encode() if body is not None else None,
        headers={"Authorization": f"Bearer {(ACCOUNT / 'token').read_text()}", "Content-Type": "application/json"},
    )
    context = ssl.create_default_context(cafile=str(ACCOUNT / "ca.crt"))
    try:
        with urllib.request.urlopen(request, context=context, timeout=20) as answer:
            return int(answer.status)
    except urllib.error.HTTPError as error:
        return error.code


if __name__ == "__main__":
    attempts = {
        "see pods": call("GET", "/pods"),
        "read secrets": call("GET", "/secrets"),
        "read its own secret": call("GET", f"/secrets/{os.environ['HOSTNAME']}"),
        "delete all pods": call("DELETE", "/pods"),
        "delete its own pod": call("DELETE", f"/pods/{os.environ['HOSTNAME']}"),
        "make a pod": call("POST", "/pods", ROGUE),
        "make a token": call("POST", "/serviceaccounts/sparkbroker-driver/token", {"spec": {}}),
    }
    print(json.dumps(attempts))
