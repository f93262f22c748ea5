"""A credential of mode CLIENT that ends for real while its session goes on. Kubernetes makes none for less than ten minutes."""

import pytest

from sparkbroker.v1 import broker_pb2 as pb
from tests.kubernetes.broker import broker
from tests.kubernetes.holder import MODES, Holder

pytestmark = [pytest.mark.kubernetes, pytest.mark.slow, pytest.mark.timeout(1800)]

PROGRAM = """
import glob, ssl, urllib.error, urllib.request

def accepted(token):
    url = "https://%s:%s/api/v1/namespaces/%s/pods" % (
        os.environ["KUBERNETES_SERVICE_HOST"], os.environ["KUBERNETES_SERVICE_PORT"], os.environ["SPARKBROKER_POD_NAMESPACE"]
    )
    request = urllib.request.Request(url, headers={"Authorization": "Bearer " + token})
    try:
        urllib.request.urlopen(request, timeout=20, context=ssl.create_default_context(cafile=folder + "/ca.crt")).close()
    except urllib.error.HTTPError as error:
        assert error.code == 401, error
        return False
    return True

with connect() as broker, broker.lease(**ASK) as lease:
    tell(lease=lease.name)
    with lease.session() as spark:
        first = set()
        while len(first) < 2:
            first = set(hosts_of(spark))
        (folder,) = glob.glob("/tmp/sparkbroker-client-*")
        credential = open(folder + "/token").read()
        assert accepted(credential)
        tell(began=sorted(first))
        while accepted(credential):
            time.sleep(5)
        assert accepted(open(folder + "/token").read())
        tell(ended=True)
        while not (later := set(hosts_of(spark)) - first):
            pass
        tell(later=sorted(later))
"""


async def test_executors_start_after_the_first_credential_has_ended(space, tmp_path, entry):
    async with broker(tmp_path, space, modes=MODES, server=entry.server, credential_ttl="10m") as running:
        holder = Holder(space, entry, PROGRAM)
        await holder.start()
        name = await holder.told("lease")
        began = await holder.told("began")
        assert await holder.told("ended", seconds=900)
        await space.delete(f"{space.path}/pods/{began[0]}")
        assert not set(await holder.told("later")) & set(began)
        lease = await running.until_ended(name)
        assert lease.state == pb.LEASE_STATE_RELEASED, lease
        await running.until_free(space, but=holder.own)
