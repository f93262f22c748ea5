"""A profile of the provisioner kubernetes: checked when the broker starts, with the field's whole path in each sentence."""

import subprocess
import sys
import textwrap

import pytest

from sparkbroker.broker.adapters.kubernetes_provisioner import KubernetesProvisioner
from sparkbroker.broker.adapters.system_clock import SystemClock
from sparkbroker.broker.config import ConfigError, load_config, to_profiles
from sparkbroker.broker.domain.asking.profile import Profile
from sparkbroker.broker.domain.asking.sizing import charge
from sparkbroker.broker.domain.errors import ProvisionerFailed
from sparkbroker.broker.domain.lease.lease import ContainerSize, LeaseSpec
from sparkbroker.broker.domain.pods.settings import parse_pod
from sparkbroker.broker.domain.units import DriverId
from sparkbroker.broker.ports.provisioner import DriverRequest

GOOD = """
[capacity.cluster]
cpu = "8"
memory = "32g"
[queues.default]
[profiles.default]
[profiles.pods]
provisioner = "kubernetes"
pool = "cluster"
allowed_pod = ["env", "image"]
[profiles.pods.pod]
image = "registry/spark:1"
namespace = "spark"
env = {A = "1", B = {secretKeyRef = {name = "s", key = "k"}}}
[profiles.pods.pod_bounds]
image = ["registry/*"]
"""


@pytest.fixture
def load(tmp_path):
    def read(text):
        path = tmp_path / "broker.toml"
        path.write_text(textwrap.dedent(text))
        return load_config(path, {"HOME": "/nobody"})

    return read


def test_a_profile_with_pods(load):
    profile = to_profiles(load(GOOD))["pods"]
    assert profile.provisioner == "kubernetes"
    assert profile.namespaces == ("spark",)
    assert profile.pod.env["B"] == {"secretKeyRef": {"name": "s", "key": "k"}}
    assert profile.pod_bounds == {"image": ("registry/*",)}
    assert to_profiles(load(GOOD))["default"].namespaces == ()


@pytest.mark.parametrize(
    ("old", "new", "sentence"),
    [
        ('image = "registry/spark:1"', "", 'profiles.pods: provisioner is "kubernetes" and pod names no image'),
        ('namespace = "spark"', 'name_space = "spark"', "profiles.pods.pod.name_space: there is no such pod setting; known"),
        ('namespace = "spark"', 'namespace = "Spark"', "profiles.pods.pod.namespace: 'Spark' is not valid; write"),
        ('A = "1"', '"1A" = "1"', "profiles.pods.pod.env['1A']: is not the name of a variable; use"),
        ('A = "1"', "A = 1", "profiles.pods.pod.env[...]"),
        ('pool = "cluster"', "", 'profiles.pods: provisioner is "kubernetes" and pool is this machine; name'),
        ('pool = "cluster"', 'pool = "cluster"\nmaster = "local"', 'master is set and provisioner is "kubernetes"'),
        ('image = ["registry/*"]', 'imag = ["*"]', "profiles.pods.pod_bounds.imag: can't be bounded; known are"),
        ("[profiles.default]", '[profiles.default]\npod = {image = "x"}', "profiles.default: pod is set and"),
        ("[profiles.default]", '[profiles.default]\nmodes = ["CLIENT"]', "profiles.default: modes has CLIENT and"),
        ('pool = "cluster"', 'pool = "cluster"\nclient_role = "A B"', "profiles.pods.client_role"),
    ],
)  # fmt: skip
def test_what_is_wrong_names_its_field(load, old, new, sentence):
    assert old in GOOD
    with pytest.raises(ConfigError) as error:
        load(GOOD.replace(old, new))
    assert sentence in str(error.value)


SPEC = LeaseSpec(profile="p", queue="q", driver=ContainerSize(cores=1, memory=1 << 30))
PODS = Profile(
    name="p", provisioner="kubernetes", defaults=SPEC, pod=parse_pod({"image": "spark:1"}, "pod"), pool="cluster"
)


def provisioner(folder, **more):
    return KubernetesProvisioner(folder=folder / "pods", key=b"k" * 32, clock=SystemClock(), profiles=[PODS], **more)


async def test_without_the_extra_it_says_what_to_install(tmp_path, monkeypatch):
    for name in [name for name in sys.modules if name.partition(".")[0] == "kubernetes_asyncio"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "kubernetes_asyncio", None)
    tried = provisioner(tmp_path)
    assert "pip install 'sparkbroker[kubernetes]'" in tried.unusable(PODS)
    with pytest.raises(ProvisionerFailed, match=r"pip install 'sparkbroker\[kubernetes\]'") as error:
        await tried.start()
    assert error.value.misconfigured
    await tried.close()


@pytest.mark.timeout(120)
def test_a_broker_without_the_extra_says_it_in_one_line(tmp_path):
    config = tmp_path / "broker.toml"
    config.write_text(GOOD + f'[store]\nstate_folder = "{tmp_path / "state"}"\n')
    program = "import sys; sys.modules['kubernetes_asyncio'] = None; from sparkbroker.broker.cli import main; main()"
    done = subprocess.run(
        [sys.executable, "-P", "-c", program, "serve", "--config", str(config)],
        capture_output=True, text=True, timeout=60, check=False, stdin=subprocess.DEVNULL,
        env={"PATH": "/usr/bin:/bin", "HOME": str(tmp_path)},
    )  # fmt: skip
    assert done.returncode == 1, done
    assert "pip install 'sparkbroker[kubernetes]'" in done.stderr.splitlines()[-1]
    assert "Traceback" not in done.stderr


async def test_a_kubeconfig_that_isnt_there(tmp_path, monkeypatch):
    monkeypatch.setenv("KUBECONFIG", str(tmp_path / "none"))
    tried = provisioner(tmp_path)
    with pytest.raises(ProvisionerFailed, match="credentials for Kubernetes can't be read") as error:
        await tried.start()
    assert error.value.misconfigured
    await tried.close()


async def test_an_embedded_broker_starts_no_pods(tmp_path, monkeypatch):
    """It ends with its program, and nobody would be left to remove them."""
    monkeypatch.setenv("KUBECONFIG", str(tmp_path / "none"))
    tried = provisioner(tmp_path, embedded=True)
    await tried.start()
    assert await tried.inventory() == []
    assert "sparkbroker serve" in tried.unusable(PODS)
    request = DriverRequest(
        driver_id=DriverId("d1"), attempt=1, spec=SPEC, profile=PODS, profile_fingerprint=PODS.fingerprint(),
        target=charge(SPEC, PODS),
    )  # fmt: skip
    with pytest.raises(ProvisionerFailed, match="sparkbroker serve") as error:
        await tried.create(request)
    assert error.value.misconfigured
    await tried.close()
