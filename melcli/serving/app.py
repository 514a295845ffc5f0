"""The server's addresses: OpenAI's, health, metrics and the page."""

from __future__ import annotations

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, Response
from starlette.routing import Route

from melcli.serving import page
from melcli.serving.endpoint import Endpoint, Service
from melcli.serving.faults import Fault
from melcli.serving.speech import speech
from melcli.serving.transcriptions import transcriptions

METRICS = "text/plain; version=0.0.4; charset=utf-8"


def make_app(service: Service) -> Starlette:
    """The ASGI application."""
    service.metrics.gauges |= {"melcli_ready": lambda: float(service.ready() is None), "melcli_requests_under_way": lambda: service.under_way}

    async def models(request: Request) -> Response:
        service.check_key(request)
        service.check_ready()
        return JSONResponse({"object": "list", "data": service.desks.listed()})

    async def model(request: Request) -> Response:
        service.check_key(request)
        service.check_ready()
        name = request.path_params["name"]
        for found in service.desks.listed():
            if found["id"] == name:
                return JSONResponse(found)
        raise Fault(404, f"The model {name[:80]!r} does not exist.", param="model", code="model_not_found")

    async def health(request: Request) -> Response:
        reason = service.ready()
        return JSONResponse({"status": "ok"} if reason is None else {"status": reason}, 200 if reason is None else 503)

    async def metrics(request: Request) -> Response:
        return PlainTextResponse(service.metrics.text(), headers={"content-type": METRICS})

    async def index(request: Request) -> Response:
        return page.response()

    return Starlette(
        routes=[
            Route("/", index),
            Route("/health", health),
            Route("/metrics", metrics),
            Route("/v1/models", models),
            Route("/v1/models/{name:path}", model),
            Route("/v1/audio/transcriptions", Endpoint(service, "transcriptions", transcriptions), methods=["POST"]),
            Route("/v1/audio/speech", Endpoint(service, "speech", speech), methods=["POST"]),
        ],
        exception_handlers={Fault: _fault, HTTPException: _no_such_thing},
    )


async def _fault(request: Request, fault: Fault) -> Response:
    return fault.response()


async def _no_such_thing(request: Request, error: HTTPException) -> Response:
    """404 and 405, in the same form."""
    if error.status_code == 405:
        message = f"{request.method} is not allowed here; {(error.headers or {}).get('Allow', 'another method')} is."
    else:
        message = f"There is nothing at {request.url.path[:200]}."
    code = {404: "not_found", 405: "method_not_allowed"}.get(error.status_code)
    return Fault(error.status_code, message, code=code, headers=dict(error.headers or {})).response()
