"""Pods that hold leases of mode CLIENT: a test's program in a pod of its own, with the client, and without any rights."""

import asyncio
import base64
import getpass
import io
import json
import shutil
import socket
import subprocess
import sys
import uuid
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import sparkbroker.client
import sparkbroker.v1
from sparkbroker.broker.domain.lease.lease import HolderPod
from tests.kubernetes.space import IMAGE, Space

GIVEN: Final = "/given"
MEMORY: Final = "1280Mi"
"""Of a holder's pod: heap and overhead of ``SIZE``."""
SIZE: Final[dict[str, Any]] = {"cores": 1, "memory": "512m", "memory_overhead": "768m"}
PREAMBLE: Final = '''
import json, os, sys, time
import zipfile
zipfile.ZipFile("/given/client.zip").extractall("/tmp/client")
sys.path.insert(0, "/tmp/client")
from sparkbroker.client import Broker

def tell(**words):
    print("TOLD " + json.dumps(words), flush=True)

def connect():
    return Broker(os.environ["BROKER"], token=os.environ["TOKEN"], ca_file="/given/ca.pem")

ASK = dict(mode="CLIENT", cores=1, memory="512m", memory_overhead="768m", executors=2)

def where(number):
    import socket, time
    time.sleep(0.05)
    return socket.gethostname()

def hosts_of(spark):
    """The executors that have computed a part of one job, and how many parts each."""
    return spark.sparkContext.parallelize(range(64), 16).map(where).countByValue()
'''
MODES: Final = '["CONNECT", "LOCAL", "CLIENT"]'
"""Of the profile of a broker for them."""


class Door:
    """How pods reach the test's broker: an address, a certificate and a token. ``settings`` are the broker's."""

    def __init__(self, folder: Path, host: str) -> None:
        with socket.create_server((host, 0)) as free:
            self.url = f"grpcs://{host}:{free.getsockname()[1]}"
        self.certificate, key = folder / "cert.pem", folder / "key.pem"
        subprocess.run(
            ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", "/CN=broker",
             "-addext", f"subjectAltName=IP:{host}", "-keyout", key, "-out", self.certificate],
            check=True, capture_output=True, timeout=60,
        )  # fmt: skip
        self._tokens = tokens = folder / "tokens.toml"
        self.principal = getpass.getuser()
        self.token = self.new_token(self.principal)
        self.stranger = self.new_token("stranger")
        listen = [f'"unix:{folder}/state/run/broker.sock"', f'"tcp://{self.url.removeprefix("grpcs://")}"']
        self.server = (
            f'listen = [{", ".join(listen)}]\ntls_cert = "{self.certificate}"\ntls_key = "{key}"\ntokens = "{tokens}"'
        )

    def new_token(self, principal: str) -> str:
        """For a broker that isn't started yet."""
        command = [sys.executable, "-m", "sparkbroker.broker", "token", "new", principal, "--append", str(self._tokens)]
        return subprocess.run(command, check=True, capture_output=True, text=True, timeout=120).stdout.strip()


def check_door_needs(need: Callable[[object, str], None]) -> None:
    """What a door's certificate is made with."""
    need(shutil.which("openssl"), "openssl")


async def door(folder: Path, space: Space) -> Door:
    """One on the address at which the cluster's nodes reach this machine."""
    nodes = (await space.get("/api/v1/nodes"))["items"]
    address = next(a["address"] for a in nodes[0]["status"]["addresses"] if a["type"] == "InternalIP")
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        probe.connect((address, 9))
        host = probe.getsockname()[0]
    return await asyncio.to_thread(Door, folder, host)


class Holder:
    """A pod whose container runs a program after ``PREAMBLE``, which tells by ``tell(key=value)``."""

    def __init__(self, space: Space, door: Door, program: str, **options: Any) -> None:
        self.space = space
        self.name = options.get("name") or f"holder-{uuid.uuid4().hex[:6]}"
        self._door = door
        self._program = PREAMBLE + program
        self._options = options
        self.uid = ""

    async def start(self) -> None:
        await self.space.post(f"{self.space.path}/configmaps", self._files())
        made = await self.space.post(f"{self.space.path}/pods", self._pod())
        self.uid = made["metadata"]["uid"]

    @property
    def own(self) -> tuple[str, str]:
        """What is the test's own of all that is in the namespace."""
        return f"pods/{self.name}", f"configmaps/{self.name}"

    def _files(self) -> dict[str, Any]:
        return {
            "metadata": {"name": self.name},
            "data": {"main.py": self._program, "ca.pem": self._door.certificate.read_text()},
            "binaryData": {"client.zip": base64.b64encode(_client()).decode()},
        }

    def _pod(self) -> dict[str, Any]:
        path = "metadata.{}"
        env: list[dict[str, Any]] = [
            {"name": f"SPARKBROKER_POD_{part.upper()}", "valueFrom": {"fieldRef": {"fieldPath": path.format(part)}}}
            for part in ("namespace", "name", "uid")
        ]
        env += [{"name": "BROKER", "value": self._door.url}, {"name": "TOKEN", "value": self._door.token}]
        env += [{"name": "HOME", "value": "/tmp"}]
        container = {
            "name": "main", "image": IMAGE, "imagePullPolicy": "IfNotPresent", "env": env,
            "command": ["python3", "-u", f"{GIVEN}/main.py"],
            "volumeMounts": [{"name": "given", "mountPath": GIVEN}],
            "resources": self._options.get(
                "resources", {"requests": {"cpu": "100m", "memory": MEMORY}, "limits": {"memory": MEMORY}}
            ),
            "securityContext": {"allowPrivilegeEscalation": False, "capabilities": {"drop": ["ALL"]}},
        }  # fmt: skip
        annotations = self._options.get("annotations", {"sparkbroker.io/principal": self._door.principal})
        return {
            "metadata": {"name": self.name, "annotations": annotations, "labels": {"app": "holder"}},
            "spec": {
                "restartPolicy": "Never", "automountServiceAccountToken": False, "terminationGracePeriodSeconds": 2,
                "securityContext": {
                    "runAsNonRoot": True, "runAsUser": 185, "seccompProfile": {"type": "RuntimeDefault"},
                },
                "containers": [container],
                "volumes": [{"name": "given", "configMap": {"name": self.name}}],
                **self._options.get("spec", {}),
            },
        }  # fmt: skip

    async def log(self) -> str:
        async with self.space.cluster.log(self.space.name, self.name, "main", follow=False) as reader:
            return bytes(await reader.read()).decode(errors="replace")

    async def seen(self) -> dict[str, Any]:
        found: dict[str, Any] = await self.space.get(f"{self.space.path}/pods/{self.name}")
        return found

    async def told(self, key: str, seconds: float = 240.0) -> Any:
        """What the program has told under this key; it is waited for."""
        log = ""
        try:
            async with asyncio.timeout(seconds):
                while True:
                    phase = (await self.seen())["status"].get("phase")
                    if phase != "Pending":
                        log = await self.log()
                        for line in log.splitlines():
                            if line.startswith("TOLD ") and key in (words := json.loads(line[5:])):
                                return words[key]
                    assert phase not in ("Failed", "Succeeded"), f"it ended ({phase}): {log[-6000:]}"
                    await asyncio.sleep(0.5)
        except TimeoutError:
            raise AssertionError(f"it never told {key}: {log[-6000:]}") from None

    async def remove(self, grace: int | None = None) -> None:
        await self.space.delete(f"{self.space.path}/pods/{self.name}", grace)


def _client() -> bytes:
    """The thin client, as a zip of its packages."""
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w", zipfile.ZIP_DEFLATED) as archive:
        for package in (sparkbroker.client, sparkbroker.v1):
            folder = Path(next(iter(package.__path__)))
            for path in sorted(folder.glob("*.py")):
                archive.write(path, f"sparkbroker/{folder.name}/{path.name}")
    return content.getvalue()


def idle_pod(name: str, principal: str) -> dict[str, Any]:
    """A pod of that principal's that does nothing; it requests what the settings of ``space`` charge a driver of ``SIZE``."""
    container = {
        "name": "main", "image": IMAGE, "imagePullPolicy": "IfNotPresent", "command": ["sleep", "infinity"],
        "resources": {"requests": {"cpu": "100m", "memory": MEMORY}},
        "securityContext": {"allowPrivilegeEscalation": False, "capabilities": {"drop": ["ALL"]}},
    }  # fmt: skip
    security = {"runAsNonRoot": True, "runAsUser": 185, "seccompProfile": {"type": "RuntimeDefault"}}
    return {
        "metadata": {"name": name, "annotations": {"sparkbroker.io/principal": principal}},
        "spec": {"containers": [container], "securityContext": security, "terminationGracePeriodSeconds": 0},
    }


async def idle(space: Space, principal: str) -> HolderPod:
    """Such a pod on the cluster, once it has an address."""
    name = f"idle-{uuid.uuid4().hex[:6]}"
    made = await space.post(f"{space.path}/pods", idle_pod(name, principal))
    async with asyncio.timeout(120):
        while not (await space.get(f"{space.path}/pods/{name}"))["status"].get("podIP"):
            await asyncio.sleep(0.2)
    return HolderPod(namespace=space.name, name=name, uid=made["metadata"]["uid"])
