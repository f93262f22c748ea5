"""The usual channel, on grpc.aio."""

import asyncio
from typing import Any

import grpc
import grpc.aio
from google.protobuf.message import Message

from sparkbroker.client._transport import Call, ChannelTransport, Reply


class AioTransport(ChannelTransport):
    """See ChannelTransport."""

    _insecure = staticmethod(grpc.aio.insecure_channel)
    _secure = staticmethod(grpc.aio.secure_channel)

    async def _unary(self, method: str, request: Message, reply: type[Reply], timeout: float) -> Reply:
        begin = await self._method(method)
        call = _AioCall(self, method, begin(request, timeout=timeout, metadata=self._metadata()))
        try:
            with call.guard() as raw:
                answer: Reply = await raw
        finally:
            call.cancel()
        return answer

    async def _streamed(self, method: str, request: Message, timeout: float) -> Call:
        begin = await self._method(method)
        return _AioCall(self, method, begin(request, timeout=timeout, metadata=self._metadata()))

    async def duplex(self, method: str) -> Call:
        begin = await self._method(method)
        return _AioCall(self, method, begin(metadata=self._metadata()))

    async def _close_channel(self, channel: Any) -> None:
        await channel.close(None)


class _AioCall(Call):
    async def _send(self, raw: Any, request: Message) -> None:
        try:
            await raw.write(request)
        except asyncio.InvalidStateError:
            # The call has ended: why is told by ``receive``, which comes next.
            return

    async def _receive(self, raw: Any) -> Message | None:
        message = await raw.read()
        if message is not grpc.aio.EOF:  # type: ignore[attr-defined]
            return message  # type: ignore[no-any-return]
        code = await raw.code()
        if code is not grpc.StatusCode.OK:
            raise self.translated(code, await raw.details(), await raw.trailing_metadata())
        return None
