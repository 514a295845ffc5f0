"""What every request for work goes through: the key, the queue, the clock, the count, and errors in one form."""

from __future__ import annotations

import asyncio
import hmac
import math
import time
import traceback
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack
from dataclasses import dataclass, field

from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.types import Message, Receive, Scope, Send

from melcli import console
from melcli.serving.bodies import drain
from melcli.serving.desks import Desks
from melcli.serving.faults import Fault, busy, late
from melcli.serving.limits import Limits
from melcli.serving.metrics import Metrics
from melcli.serving.worker import Job

GONE = 499  # what a request counts as whose client went away
LAST_WORDS = 1.0  # seconds after the deadline in which a stream may say that it was reached


@dataclass
class Service:
    """What the endpoints share. ready: None when requests are taken, else why they are not. api_key: what clients must send, where there is one.

    under_way: requests that hold a place. pace: seconds that one takes, lately, for Retry-After.
    """

    desks: Desks
    limits: Limits
    metrics: Metrics
    ready: Callable[[], str | None]
    api_key: str | None = None
    under_way: int = 0
    pace: float = field(default=1.0)

    def admit(self, request: Request) -> None:
        """Raises Fault where a request for work must not come in."""
        self.check_key(request)
        if request.headers.get("sec-fetch-site") == "cross-site":
            raise Fault(403, "Pages of other sites may not use this server.", code="cross_site")
        self.check_ready()
        if self.under_way >= self.limits.queue:
            wait = min(60, max(1, math.ceil(self.pace)))
            raise busy(f"{self.under_way} requests are under way, as many as this server takes; try again in {wait} s.", wait)

    def check_ready(self) -> None:
        """Raises Fault while there are no models to ask."""
        if (reason := self.ready()) is not None:
            raise busy(f"The server is {reason}.", 2)

    def check_key(self, request: Request) -> None:
        """Raises Fault where the key is missing or wrong."""
        if self.api_key is None:
            return
        kind, _, given = request.headers.get("authorization", "").partition(" ")
        if kind.lower() != "bearer" or not hmac.compare_digest(given.strip().encode(), self.api_key.encode()):
            what = "Incorrect API key provided." if given else "You didn't provide an API key: send it as `Authorization: Bearer KEY`."
            raise Fault(401, what, code="invalid_api_key", headers={"www-authenticate": "Bearer"})


class Visit:
    """One request under way. stack: what is to be undone at its end. deadline: of the event loop's clock."""

    def __init__(self, service: Service, request: Request, stack: AsyncExitStack, deadline: float) -> None:
        self.service, self.request, self.stack, self.deadline = service, request, stack, deadline

    async def event(self, job: Job) -> object:
        """The next event of a job. Raises its exception, Fault 504 when time is over, ClientDisconnect when nobody listens any more."""
        if not job.events.empty():
            event = job.events.get_nowait()
        else:
            waiting = asyncio.ensure_future(job.events.get())
            left = self.deadline - asyncio.get_running_loop().time()
            gone = self._gone()
            await asyncio.wait({waiting, gone}, timeout=max(0.0, left), return_when=asyncio.FIRST_COMPLETED)
            if not waiting.done():
                waiting.cancel()
                if gone.done():
                    raise ClientDisconnect
                raise late(self.service.limits.seconds)
            event = waiting.result()
        if isinstance(event, Exception):
            raise event
        return event

    def _gone(self) -> asyncio.Future[None]:
        """Done when the client hangs up; the body has been read by now, so that nothing else can come."""
        if not hasattr(self, "_watch"):

            async def watch() -> None:
                while (await self.request.receive())["type"] != "http.disconnect":
                    pass

            self._watch = asyncio.ensure_future(watch())
            self.stack.callback(self._watch.cancel)
        return self._watch


Handler = Callable[[Visit], Awaitable[Response]]


class Endpoint:
    """An ASGI application around a handler. A request holds its place until its answer has gone out."""

    def __init__(self, service: Service, name: str, handler: Handler) -> None:
        self.service, self.name, self.handler = service, name, handler

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        began = time.perf_counter()
        status = GONE

        async def noting(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            await send(message)

        request = Request(scope, receive)
        try:
            await self._answer(request, noting)
        finally:
            taken = time.perf_counter() - began
            self.service.metrics.add("melcli_requests_total", endpoint=self.name, status=str(status))
            self.service.metrics.observe("melcli_request_seconds", taken, endpoint=self.name)
            console.detail(f"{request.client.host if request.client else '-'} {request.method} {request.url.path} {status} {taken:.3f} s")

    async def _answer(self, request: Request, send: Send) -> None:
        service = self.service
        loop = asyncio.get_running_loop()
        deadline = loop.time() + service.limits.seconds
        async with AsyncExitStack() as stack:
            try:
                service.admit(request)
                service.under_way += 1
                stack.callback(self._leave, loop.time())
                response = await self.handler(Visit(service, request, stack, deadline))
            except Fault as fault:
                await drain(request)
                response = fault.response()
            except TimeoutError:
                response = Fault(408, "The body took too long to arrive.", code="timeout", headers={"connection": "close"}).response()
            except ClientDisconnect:
                return
            except asyncio.CancelledError:  # a second Ctrl-C
                response = busy("The server was stopped.", 2).response()
            except Exception as error:
                _log(request, error)
                response = Fault(500, "The server failed at this request; its log says why.", code="internal_error").response()
            try:
                async with asyncio.timeout_at(deadline + LAST_WORDS):
                    await response(request.scope, request.receive, send)
            except ClientDisconnect:
                return
            except Exception as error:  # half of the answer is out; that the connection breaks off says that it is not whole
                _log(request, late(service.limits.seconds) if isinstance(error, TimeoutError) else error)
                raise

    def _leave(self, began: float) -> None:
        self.service.under_way -= 1
        taken = asyncio.get_running_loop().time() - began
        self.service.pace += 0.1 * (taken - self.service.pace)


def _log(request: Request, error: Exception) -> None:
    """What happened, without what the client sent."""
    console.error(f"{request.url.path}: {type(error).__name__}: {' '.join(str(error).split())[:200]}")
    console.detail(traceback.format_exc())
