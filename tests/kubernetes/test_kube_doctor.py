"""``doctor`` asks a real cluster what it would refuse, and makes nothing."""

import asyncio
import json
import sys

import pytest

from tests.kubernetes.broker import KubeBroker

pytestmark = [pytest.mark.kubernetes, pytest.mark.timeout(180)]


async def doctor(space, folder, account="broker", modes='["CONNECT"]', **pod):
    """{what: [what was found]} of the cluster."""
    made = KubeBroker(folder, space.settings(**pod), modes=modes)
    await space.kubeconfig(account, folder / "kubeconfig")
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-P", "-m", "sparkbroker.broker", "doctor", "--config", str(folder / "broker.toml"), "-o", "json",
        env=made.env, stdout=asyncio.subprocess.PIPE,
    )  # fmt: skip
    out, _ = await process.communicate()
    found: dict[str, list[str]] = {}
    for finding in json.loads(out):
        if finding["what"].startswith("Kubernetes"):
            found.setdefault(finding["status"], []).append(finding["found"])
    assert await space.left() == []
    return found


async def test_a_profile_that_a_cluster_accepts(space, tmp_path):
    assert await doctor(space, tmp_path) == {"ok": ["the rights are there; a dry run of its pods is accepted"]}


async def test_the_rights_that_client_mode_needs(space, tmp_path):
    found = await doctor(space, tmp_path, modes='["CONNECT", "CLIENT"]')
    assert [text.partition(":")[0] for text in found["missing"]] == [
        "may not patch pods",
        "may not create serviceaccounts",
        "may not list serviceaccounts",
        "may not delete serviceaccounts",
        "may not create serviceaccounts/token",
        "may not create rolebindings.rbac.authorization.k8s.io",
        "may not list rolebindings.rbac.authorization.k8s.io",
        "may not delete rolebindings.rbac.authorization.k8s.io",
        "may not bind roles.rbac.authorization.k8s.io",
    ]
    await space.give_client_rights()
    assert set(await doctor(space, tmp_path, modes='["CONNECT", "CLIENT"]')) == {"ok"}


async def test_rights_and_fields_that_are_refused_are_named(space, tmp_path):
    found = await doctor(
        space, tmp_path, account="driver",
        driver_template={"spec": {"hostNetwork": True}}, executor_template={"spec": {"dnsPolicy": "Nonsense"}},
    )  # fmt: skip
    assert set(found) == {"missing"}
    lacking = [text.partition(":")[0] for text in found["missing"] if text.startswith("may not")]
    assert lacking == [
        "may not get pods/log",
        "may not create secrets",
        "may not delete secrets",
        "may not list events",
    ]
    driver, executor = [text for text in found["missing"] if not text.startswith("may not")]
    assert driver.startswith("the driver's pod: admission denied")
    assert "hostNetwork" in driver
    assert executor.startswith("the executor's pod: Kubernetes refuses")
    assert "spec.dnsPolicy" in executor


async def test_a_field_that_does_not_exist_is_named(space, tmp_path):
    (text,) = (await doctor(space, tmp_path, driver_template={"spec": {"hostNetwrok": True}}))["missing"]
    assert 'unknown field "spec.hostNetwrok"' in text


async def test_a_cluster_that_does_not_answer_is_one_finding(space, tmp_path):
    made = KubeBroker(tmp_path, space.settings())
    await space.kubeconfig("broker", tmp_path / "kubeconfig")
    path = tmp_path / "kubeconfig"
    config = json.loads(path.read_text())
    config["clusters"][0]["cluster"]["server"] = "https://127.0.0.1:1"
    path.write_text(json.dumps(config))
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-P", "-m", "sparkbroker.broker", "doctor", "--config", str(tmp_path / "broker.toml"), "-o", "json",
        env=made.env, stdout=asyncio.subprocess.PIPE,
    )  # fmt: skip
    out, _ = await process.communicate()
    (finding,) = [finding for finding in json.loads(out) if finding["what"] == "Kubernetes"]
    assert finding["status"] == "missing"
    assert "can't be reached" in finding["found"]
