"""Bodies of requests, read under a limit of bytes. Uploads of more than a megabyte lie in a file without a name, which is gone when it is closed."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from typing import Any

from starlette.datastructures import FormData
from starlette.exceptions import HTTPException
from starlette.formparsers import MultiPartException, MultiPartParser
from starlette.requests import Request

from melcli.serving.faults import Fault, wrong

FIELD_BYTES = 65536  # of a field that is no file
FIELDS = 200
TAIL_BYTES = 80  # a boundary has 70 at most
DRAIN_BYTES, DRAIN_SECONDS = 200_000_000, 10.0  # of a body that was refused, so that the client gets to read why


async def read_form(request: Request, limit: int) -> FormData:
    """The fields of a multipart/form-data body. Raises Fault: 415 for another kind, 413 for a body over the limit, 400 for one that is broken."""
    _expect(request, "multipart/form-data")
    tail = b""

    async def parts() -> AsyncIterator[bytes]:
        nonlocal tail
        async for part in _limited(request, limit):
            tail = (tail + part)[-TAIL_BYTES:]
            yield part

    parser = MultiPartParser(request.headers, parts(), max_files=2, max_fields=FIELDS, max_part_size=FIELD_BYTES)
    try:
        found = await parser.parse()
    except (MultiPartException, HTTPException) as error:
        message = getattr(error, "message", None) or getattr(error, "detail", None) or "malformed"
        raise Fault(400, f"The multipart body cannot be read: {message}") from None
    except (KeyError, ValueError, UnicodeDecodeError):
        raise Fault(400, "The multipart body cannot be read: it is malformed.") from None
    if not tail.rstrip(b"\r\n").endswith(b"--"):  # the parser takes what is there
        await found.close()
        raise Fault(400, "The multipart body cannot be read: it ends before its last boundary.")
    return found


async def read_json(request: Request, limit: int) -> dict[str, Any]:
    """The object of an application/json body. Raises Fault as `read_form` does."""
    _expect(request, "application/json")
    body = b"".join([part async for part in _limited(request, limit)])
    try:
        found = json.loads(body)
    except (ValueError, RecursionError):
        raise Fault(400, "The body is not JSON.", code="invalid_json") from None
    if not isinstance(found, dict):
        raise wrong("body", "The body must be a JSON object.", "invalid_type")
    return found


async def drain(request: Request) -> None:
    """Read and forget the rest of a body, within reason: a client that is still sending does not listen."""
    left = DRAIN_BYTES
    try:
        async with asyncio.timeout(DRAIN_SECONDS):
            async for part in request.stream():
                left -= len(part)
                if left < 0:
                    return
    except Exception:  # it went away, or the body was read before
        return


def _expect(request: Request, kind: str) -> None:
    given = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if given != kind:
        raise Fault(415, f"Content-Type must be {kind}, not {given or 'missing'}.", code="unsupported_media_type")


async def _limited(request: Request, limit: int) -> AsyncIterator[bytes]:
    told = request.headers.get("content-length", "")
    total = int(told) if told.isdecimal() else 0
    if total <= limit:
        total = 0
        async for part in request.stream():
            total += len(part)
            if total > limit:
                break
            yield part
    if total > limit:
        raise Fault(413, f"The body is larger than {limit:,} bytes, the most that this server takes.", code="request_too_large")
