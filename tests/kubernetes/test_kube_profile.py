"""What a profile gives its pods, as code sees it in a driver and in an executor: on a real cluster."""

import json

import pytest

from sparkbroker.v1 import broker_pb2 as pb
from tests.kubernetes.broker import broker
from tests.kubernetes.space import IMAGE

pytestmark = [pytest.mark.kubernetes, pytest.mark.timeout(600)]
SMALL = {"requests": {"cpu": "10m", "memory": "16Mi"}, "limits": {"memory": "64Mi"}}
KINDS = ("secret", "config", "claim", "scratch")
OURS = ("configmaps/settings", "persistentvolumeclaims/data", "secrets/lake")
POD = {
    "env": {"PLAIN": "said", "HIDDEN": {"secretKeyRef": {"name": "lake", "key": "password"}}},
    "labels": {"team": "a"},
    "annotations": {"example.org/cost": "b"},
    "volumes": [
        {"name": "secret", "secret": {"secretName": "lake"}},
        {"name": "config", "configMap": {"name": "settings"}},
        {"name": "claim", "persistentVolumeClaim": {"claimName": "data"}},
        {"name": "scratch", "emptyDir": {}},
    ],
    "volume_mounts": [{"name": kind, "mountPath": f"/given/{kind}"} for kind in KINDS],
    "init_containers": [
        {
            "name": "first", "image": IMAGE, "resources": SMALL,
            "command": ["sh", "-c", "echo made > /given/scratch/file"],
            "volumeMounts": [{"name": "scratch", "mountPath": "/given/scratch"}],
        }
    ],
    "sidecars": [{"name": "beside", "image": IMAGE, "resources": SMALL, "command": ["sleep", "infinity"]}],
}  # fmt: skip
CONF = '{ "spark.eventLog.enabled" = "true", "spark.eventLog.compress" = "false", "spark.eventLog.dir" = "file:/given/scratch" }'

STARTED = """value like '{"Event":"SparkListenerApplicationStart"%'"""


@pytest.fixture
async def given(space):
    """What the profile refers to, with a volume that the cluster has already."""
    name = f"{space.name}-data"
    await space.post(f"{space.path}/secrets", {"metadata": {"name": "lake"}, "stringData": {"password": "secret"}})
    await space.post(f"{space.path}/configmaps", {"metadata": {"name": "settings"}, "data": {"key": "value"}})
    size = {"storage": "1Mi"}
    claim = {
        "storageClassName": "",
        "volumeName": name,
        "accessModes": ["ReadWriteMany"],
        "resources": {"requests": size},
    }
    volume = {
        "storageClassName": "", "capacity": size, "accessModes": ["ReadWriteMany"],
        "hostPath": {"path": f"/tmp/{name}", "type": "DirectoryOrCreate"},
    }  # fmt: skip
    await space.post("/api/v1/persistentvolumes", {"metadata": {"name": name}, "spec": volume})
    try:
        await space.post(f"{space.path}/persistentvolumeclaims", {"metadata": {"name": "data"}, "spec": claim})
        yield
    finally:
        await space.delete(f"/api/v1/persistentvolumes/{name}")


def look(spark):
    """What a Python UDF sees where it runs."""
    from pyspark.sql.functions import udf

    @udf("string")
    def see(_number):
        import os
        from pathlib import Path

        files = ("secret/password", "config/key", "scratch/file")
        found = {name: Path("/given", name).read_text().strip() for name in files}
        mounted = os.path.ismount("/given/claim")
        return json.dumps({**found, "claim": mounted, "PLAIN": os.environ["PLAIN"], "HIDDEN": os.environ["HIDDEN"]})

    return json.loads(spark.range(1).select(see("id")).collect()[0][0])


@pytest.mark.parametrize(
    "executors", [pytest.param(0, id="driver", marks=pytest.mark.long), pytest.param(1, id="executor")]
)
async def test_pods_have_what_their_profile_says(space, tmp_path, given, executors):
    def use(client):
        with client.session(api="connect", executors=executors) as spark:
            seen = look(spark)
            (lease,) = client.list("live=true")
            if executors:
                return seen, None, lease  # the driver's own files are its own
            log = spark.read.option("recursiveFileLookup", "true").text("file:/given/scratch")
            return seen, log.filter(STARTED).count(), lease

    async with broker(tmp_path, space, pod=POD, conf=CONF) as running:
        seen, started, lease = await running.ask(use)
        assert seen == {
            "secret/password": "secret", "config/key": "value", "scratch/file": "made", "claim": True,
            "PLAIN": "said", "HIDDEN": "secret",
        }  # fmt: skip
        assert started == (None if executors else 1)
        assert (lease.state, lease.message) == (pb.LEASE_STATE_READY, "the session can be opened")
        await running.until_free(space, but=OURS)
