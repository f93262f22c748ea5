"""What code in one lease's driver can do to another lease: from a Python UDF and from SQL, under the chart's admission policy.

The lease that attacks has no executors of its own, so that its UDFs run in its driver's pod, where the credential is.
"""

import asyncio
import base64
import json
import sys

import pytest

from sparkbroker.broker.adapters.kubernetes_provisioner._api import MERGE_PATCH
from sparkbroker.v1 import broker_pb2 as pb
from tests.kubernetes.broker import broker
from tests.kubernetes.space import ADMIN

pytestmark = [pytest.mark.kubernetes, pytest.mark.timeout(600)]


@pytest.fixture
async def owner(space, policy):
    """The policy's. Nothing else keeps pods from what they want, so that what is refused is the policy's doing."""
    labels = {"pod-security.kubernetes.io/enforce": "privileged"}
    await space.api.call(ADMIN, "PATCH", space.path, body={"metadata": {"labels": labels}}, kind=MERGE_PATCH)
    return policy


def attack(victim):
    """Runs in the attacker's driver. ``victim``: the name of another lease's driver pod, and of its Secret. What each
    attempt was answered, as JSON."""
    import json
    import os
    import ssl
    import urllib.error
    import urllib.request
    from pathlib import Path

    account = Path("/var/run/secrets/kubernetes.io/serviceaccount")
    host, port = os.environ["KUBERNETES_SERVICE_HOST"], os.environ["KUBERNETES_SERVICE_PORT"]
    namespace = f"/api/v1/namespaces/{(account / 'namespace').read_text()}"
    context = ssl.create_default_context(cafile=str(account / "ca.crt"))
    token = (account / "token").read_text()
    own = os.environ["HOSTNAME"]

    def call(method, path, body=None, query=""):
        request = urllib.request.Request(
            f"https://{host}:{port}{namespace}{path}{query}",
            method=method,
            data=json.dumps(body).encode() if body is not None else None,
            headers={"Authorization": f"Bearer {token}", "Content-Type": "application/json"},
        )
        try:
            with urllib.request.urlopen(request, context=context, timeout=20) as answer:
                content = json.loads(answer.read())
                return answer.status, content if content.get("kind") == "Pod" else ""
        except urllib.error.HTTPError as error:
            return error.code, json.loads(error.read()).get("message", "")

    _, me = call("GET", f"/pods/{own}")
    labels = me["metadata"]["labels"]
    driver = labels["sparkbroker.io/driver"]
    itself = {"apiVersion": "v1", "kind": "Pod", "name": own, "uid": me["metadata"]["uid"], "controller": True}

    def pod(number, **changes):
        container = {
            "name": "spark-kubernetes-executor",
            "image": "sparkbroker.test/none:1",
            "resources": {"requests": {"cpu": "100m", "memory": "64Mi"}, "limits": {"memory": "64Mi"}},
            "securityContext": {"allowPrivilegeEscalation": False, "capabilities": {"drop": ["ALL"]}},
            **changes.pop("container", {}),
        }
        return {
            "metadata": {
                "name": f"{own}-exec-{number}",
                "labels": {
                    "sparkbroker.io/driver": changes.pop("driver", driver),
                    "sparkbroker.io/role": changes.pop("role", "executor"),
                    "sparkbroker.io/owner": changes.pop("broker", labels["sparkbroker.io/owner"]),
                },
                "ownerReferences": [itself, *changes.pop("beside", ())],
            },
            "spec": {
                "serviceAccountName": "executor",
                "automountServiceAccountToken": False,
                "restartPolicy": "Never",
                "securityContext": {
                    "runAsNonRoot": True, "runAsUser": 185, "seccompProfile": {"type": "RuntimeDefault"},
                },
                "containers": [container],
                **changes,
            },
        }  # fmt: skip

    secret = {"secretKeyRef": {"name": victim, "key": "token"}}
    dry = "?dryRun=All"
    other = victim.removeprefix("sparkbroker-")
    _, them = call("GET", f"/pods/{victim}")
    longer = {"apiVersion": "v1", "kind": "Pod", "name": victim, "uid": them["metadata"]["uid"]}
    claim = {"name": "v", "persistentVolumeClaim": {"claimName": "sparkbroker"}}
    answers = {
        "its own executor": call("POST", "/pods", pod(1), dry),
        "list the secrets": call("GET", "/secrets"),
        "read the other's secret": call("GET", f"/secrets/{victim}"),
        "mount the other's secret": call(
            "POST", "/pods", pod(2, volumes=[{"name": "v", "secret": {"secretName": victim}}]), dry
        ),
        "the other's secret as a variable": call(
            "POST", "/pods", pod(3, container={"env": [{"name": "T", "valueFrom": secret}]}), dry
        ),
        "delete the other's driver": call("DELETE", f"/pods/{victim}"),
        "delete its executors": call("DELETE", "/pods", query=f"?labelSelector=sparkbroker.io/driver%3D{other}"),
        "delete all pods": call("DELETE", "/pods"),
        "a pod of the other's": call("POST", "/pods", pod(4, driver=other), dry),
        "a driver": call("POST", "/pods", pod(5, role="driver"), dry),
        "a larger pod": call(
            "POST", "/pods",
            pod(6, container={"resources": {"requests": {"cpu": "3"}, "limits": {"memory": "64Mi"}}}), dry,
        ),
        "a privileged pod": call("POST", "/pods", pod(7, container={"securityContext": {"privileged": True}}), dry),
        "a pod that its broker doesn't find": call("POST", "/pods", pod(9, broker="none"), dry),
        "a pod that outlives its driver": call("POST", "/pods", pod(10, beside=[longer]), dry),
        "a pod with the broker's volume": call("POST", "/pods", pod(11, volumes=[claim]), dry),
        "the driver's account": call("POST", "/pods", pod(8, serviceAccountName="driver"), dry),
        "the broker's account": call("POST", "/serviceaccounts/broker/token", {"spec": {}}),
        "run a command in the other's driver": call("POST", f"/pods/{victim}/exec", query="?command=true"),
        "relabel the other's driver": call("PUT", f"/pods/{victim}", me),
    }  # fmt: skip
    return json.dumps({what: [code, str(said)[:300]] for what, (code, said) in answers.items()})


WITHOUT_RIGHTS = {
    "list the secrets", "read the other's secret", "the broker's account", "run a command in the other's driver",
    "relabel the other's driver",
}  # fmt: skip


async def test_one_lease_does_nothing_to_another(space, owner, tmp_path):
    async with broker(tmp_path, space, owner=owner) as running:
        victim = await running.acquire(executors=1)
        attacker = await running.acquire(executors=0)
        ready = [await running.until(name, pb.LEASE_STATE_READY) for name in (victim, attacker)]
        victims_pod = ready[0].driver.replace("drivers/", "sparkbroker-")

        def use(client):
            with client.open(attacker) as mine, client.open(victim) as theirs:
                for lease in (mine, theirs):
                    lease.attach()
                with theirs.session(api="connect") as spark:
                    tokens = on_an_executor(spark)
                    before = spark.range(10).count()
                with mine.session(api="connect") as spark:
                    answers, by_sql = from_a_driver(spark, victims_pod)
                with theirs.session(api="connect") as spark:
                    after = spark.range(20).count()
                return tokens, before, after, answers, by_sql

        tokens, before, after, answers, by_sql = await running.ask(use)
        assert tokens == [False], "an executor has a credential"
        assert (before, after) == (10, 20)
        assert answers.pop("its own executor")[0] == 201, "the policy refuses what Spark needs"
        through = {what: answer for what, answer in answers.items() if answer[0] < 400}
        assert not through
        for what, (code, said) in answers.items():
            # The rights stand in front of the policy: 403 is theirs.
            assert code == (403 if what in WITHOUT_RIGHTS else 422), (what, code, said)
            assert ("ValidatingAdmissionPolicy" in said) == (code == 422), (what, said)
        secret = (await space.get(f"{space.path}/secrets/{victims_pod}"))["data"]["token"]
        assert by_sql["namespace"] == space.name
        assert by_sql["token"]
        assert by_sql["token"] != base64.b64decode(secret).decode()
        for name in (victim, attacker):
            assert (await running.until_ended(name)).reason == pb.LEASE_REASON_RELEASED_BY_HOLDER
        await running.until_free(space)


def on_an_executor(spark):
    """Whether a UDF finds a credential where executors run."""
    from pyspark.sql.functions import udf

    @udf("boolean")
    def has_token(_number):
        from pathlib import Path

        return Path("/var/run/secrets/kubernetes.io/serviceaccount/token").exists()

    return [row.found for row in spark.range(1).select(has_token("id").alias("found")).collect()]


def from_a_driver(spark, victim):
    """What a UDF and what SQL got, in the driver's own pod."""
    from pyspark import cloudpickle
    from pyspark.sql.functions import lit, udf

    cloudpickle.register_pickle_by_value(sys.modules[__name__])  # the driver has no tests
    answers = json.loads(spark.range(1).select(udf(attack, "string")(lit(victim)).alias("said")).first().said)
    # SQL reads files and calls Java, of its own driver's pod: what it finds there is its own.
    own = spark.sql("SELECT * FROM text.`file:///var/run/secrets/kubernetes.io/serviceaccount/namespace`").first()
    token = spark.sql("SELECT reflect('java.lang.System', 'getenv', 'SPARK_CONNECT_AUTHENTICATE_TOKEN') AS t").first()
    return answers, {"namespace": own[0], "token": token.t}


async def test_what_the_policy_refuses_a_profile_the_driver_s_log_says(space, owner, tmp_path):
    """Spark asks for its executors itself, so that the broker isn't told."""
    template = {"spec": {"volumes": [{"name": "v", "secret": {"secretName": "lake"}}]}}
    async with broker(tmp_path, space, owner=owner) as running, asyncio.timeout(300):
        name = await running.acquire(executors=1, pod={"executor_template": template})
        await running.until(name, pb.LEASE_STATE_READY)
        while b"admissionPolicy.executorSecrets" not in await running.ask(lambda client: logged(client, name)):
            await asyncio.sleep(0.5)
        await running.release(name)
        await running.until_free(space)


def logged(client, name):
    """What a driver has said so far."""
    return b"".join(client.logs(name))
