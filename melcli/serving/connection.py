"""A connection that waits for nobody for ever: not for the head of a request, and not for who does not read its answer."""

from __future__ import annotations

import asyncio

import h11
from uvicorn.protocols.http.h11_impl import H11Protocol

HEAD_SECONDS = 20.0  # from the connection, or the first byte of a request, to the end of its head


def connection(unread_seconds: float) -> type[H11Protocol]:
    """uvicorn's protocol, which breaks a connection off when its head takes HEAD_SECONDS, or when its client has not taken what is there to be read
    for `unread_seconds`."""

    class Connection(H11Protocol):
        _head: asyncio.TimerHandle | None = None
        _unread: asyncio.TimerHandle | None = None

        def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
            super().connection_made(transport)
            self._wait_for_head()

        def data_received(self, data: bytes) -> None:
            super().data_received(data)
            self._wait_for_head()

        def connection_lost(self, exc: Exception | None) -> None:
            super().connection_lost(exc)
            for timer in (self._head, self._unread):
                if timer is not None:
                    timer.cancel()

        def pause_writing(self) -> None:
            super().pause_writing()
            self._unread = self._unread or self.loop.call_later(unread_seconds, self.transport.abort)

        def resume_writing(self) -> None:
            super().resume_writing()
            if self._unread is not None and not self.transport.is_closing():  # what is closing still has bytes to get rid of
                self._unread.cancel()
                self._unread = None

        def _wait_for_head(self) -> None:
            if self.conn.their_state is h11.IDLE:
                self._head = self._head or self.loop.call_later(HEAD_SECONDS, self.transport.abort)
            elif self._head is not None:
                self._head.cancel()
                self._head = None

    return Connection
