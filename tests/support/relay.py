"""A TCP relay that simulates a network's delay.

The relay delays data, ends and resets by `delay` seconds in each direction.
"""

from __future__ import annotations

import asyncio
import socket
import struct
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress

RESETS_AT_CLOSE = struct.pack("ii", 1, 0)


class End(asyncio.Protocol):
    """One end of a connection through the relay. Data that arrives here leaves later at the other end."""

    def __init__(self, delay: float) -> None:
        self.transport: asyncio.Transport | None = None
        self.peer: End | None = None
        self._delay = delay
        self._heard_all = self._said_all = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self.transport = transport

    def data_received(self, data: bytes) -> None:
        self._at_the_peer(lambda peer: peer.say(data))

    def eof_received(self) -> bool:
        """Return True to keep the other direction open."""
        self._heard_all = True
        self._at_the_peer(End.say_no_more)
        return not self._said_all

    def connection_lost(self, exc: Exception | None) -> None:
        if exc:
            self._at_the_peer(End.reset)

    def say(self, data: bytes) -> None:
        if self.transport and not self.transport.is_closing():
            self.transport.write(data)

    def say_no_more(self) -> None:
        self._said_all = True
        if self.transport and not self.transport.is_closing():
            with suppress(OSError):  # the connection was reset meanwhile
                self.transport.write_eof()
            if self._heard_all:
                self.transport.close()

    def reset(self) -> None:
        if self.transport and not self.transport.is_closing():
            wire: socket.socket = self.transport.get_extra_info("socket")
            wire.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESETS_AT_CLOSE)
            self.transport.abort()

    def _at_the_peer(self, act: Callable[[End], None]) -> None:
        # The same delay for all events keeps their order.
        if self.peer:
            asyncio.get_running_loop().call_later(self._delay, act, self.peer)


class NearEnd(End):
    """The client's end. Reading starts once the far end is connected, so that a handshake takes a round trip."""

    def __init__(self, delay: float, host: str, port: int) -> None:
        super().__init__(delay)
        self._address = (host, port)

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(transport)
        assert self.transport
        self.transport.pause_reading()
        self._connecting = asyncio.create_task(self._connect())

    async def _connect(self) -> None:
        loop = asyncio.get_running_loop()
        far = End(self._delay)
        far.peer = self
        await asyncio.sleep(self._delay)
        try:
            await loop.create_connection(lambda: far, *self._address)
        except OSError:
            await asyncio.sleep(self._delay)
            self.reset()
            return
        self.peer = far
        await asyncio.sleep(self._delay)
        if self.transport and not self.transport.is_closing():
            self.transport.resume_reading()


@asynccontextmanager
async def relay(host: str, port: int, delay: float) -> AsyncIterator[int]:
    """Start a relay to host:port and yield the local port where it listens."""
    server = await asyncio.get_running_loop().create_server(lambda: NearEnd(delay, host, port), "127.0.0.1", 0)
    try:
        yield server.sockets[0].getsockname()[1]
    finally:
        server.close()
