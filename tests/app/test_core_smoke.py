from sparkbroker.broker.domain.lease import LeaseState

async def test_round(broker):
    lease_id = await broker.ready()
    attached = await broker.attach(lease_id)
    assert (await broker.connection(lease_id, 1)).connect.headers
    await broker.release(lease_id, attached.attachment.generation)
    await broker.state(lease_id, LeaseState.RELEASED)
    broker.check()
    await broker.crash()
    await broker.start()
    assert broker.now(lease_id).terminal
    await broker.stop()
