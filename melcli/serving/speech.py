"""POST /v1/audio/speech: a text in, its speech out while it is made, as OpenAI's API has it."""

from __future__ import annotations

import asyncio
import base64
from collections.abc import AsyncIterator
from typing import Any

from starlette.responses import Response, StreamingResponse

from melcli.errors import AudioError, UsageError
from melcli.serving.bodies import read_json
from melcli.serving.endpoint import Visit
from melcli.serving.faults import Fault, wrong
from melcli.serving.mouth import Mouth, SayJob
from melcli.serving.sound import MEDIA, encoder
from melcli.serving.transcriptions import EVENTS, sse
from melcli.synthesize import Chunk, Request

BODY_BYTES = 1_000_000
DEFAULT = "mp3"  # as at OpenAI


async def speech(visit: Visit) -> Response:
    """The handler."""
    async with asyncio.timeout_at(visit.deadline):
        given = await read_json(visit.request, BODY_BYTES)
    desks = visit.service.desks
    mouth = desks.mouth(given.get("model"))
    text = _text(given, visit.service.limits.text)
    form, by_events = _options(given)
    voice = desks.voice(given["model"], given.get("voice"))
    try:
        job = mouth.submit(Request("speech", text, voice))
    except UsageError as error:
        raise wrong("input", str(error)) from None
    visit.stack.callback(mouth.discard, job)
    chunks = _chunks(visit, mouth, job)
    first = await anext(chunks)
    if by_events:
        return StreamingResponse(_events(chunks, first, form, mouth.synthesizer.rate), headers=EVENTS)
    return StreamingResponse(_encoded(chunks, first, form, mouth.synthesizer.rate), media_type=MEDIA[form])


def _text(given: dict[str, Any], limit: int) -> str:
    text = given.get("input")
    if not isinstance(text, str):
        raise wrong("input", "The field input must be the text to speak.", "invalid_type" if "input" in given else "missing_required_parameter")
    if not text.strip():
        raise wrong("input", "The field input is empty.")
    if len(text) > limit:
        raise wrong("input", f"The text has {len(text):,} characters; this server speaks up to {limit:,} at a time.", "string_above_max_length")
    return text


def _options(given: dict[str, Any]) -> tuple[str, bool]:
    """The format, and whether it comes as events. Raises Fault for a field that cannot be."""
    form = given.get("response_format") or DEFAULT
    if not isinstance(form, str) or form not in MEDIA:
        raise wrong("response_format", f"response_format {str(form)[:40]!r}: valid are {', '.join(MEDIA)}.")
    speed = given.get("speed", 1.0)
    if isinstance(speed, bool) or not isinstance(speed, int | float) or speed != 1:
        raise wrong("speed", f"speed {str(speed)[:40]}: this server speaks at the pace of its voices, which is 1; let the player play it faster.")
    stream = given.get("stream_format") or "audio"
    if stream not in ("audio", "sse"):
        raise wrong("stream_format", f"stream_format {str(stream)[:40]!r}: valid are audio, sse.")
    return form, stream == "sse"


async def _chunks(visit: Visit, mouth: Mouth, job: SayJob) -> AsyncIterator[Chunk]:
    """What is said, passage by passage, those without sound left out. Raises Fault."""
    begun = False
    while True:
        try:
            chunk = await visit.event(job)
        except (UsageError, AudioError) as error:
            raise wrong("input", str(error)) from None
        mouth.fetched()
        assert isinstance(chunk, Chunk)
        if chunk.error is not None:
            raise Fault(500, chunk.error, code="synthesis_failed") if begun else wrong("input", f"The text cannot be spoken: {chunk.error}")
        if len(chunk.wave_S) or chunk.last:
            begun = True
            yield chunk
        if chunk.last:
            return


async def _encoded(chunks: AsyncIterator[Chunk], first: Chunk, form: str, rate: int) -> AsyncIterator[bytes]:
    """The file, as it grows. An error on the way breaks the connection off: what is cut must not look whole."""
    out = encoder(form, rate)
    if data := await asyncio.to_thread(out.push, first.wave_S):
        yield data
    async for chunk in chunks:
        if data := await asyncio.to_thread(out.push, chunk.wave_S):
            yield data
    if data := await asyncio.to_thread(out.finish):
        yield data


async def _events(chunks: AsyncIterator[Chunk], first: Chunk, form: str, rate: int) -> AsyncIterator[str]:
    """The same file in base64, as server-sent events."""
    try:
        async for data in _encoded(chunks, first, form, rate):
            yield sse({"type": "speech.audio.delta", "audio": base64.b64encode(data).decode()})
    except Fault as fault:
        yield sse({"type": "error", **fault.body()})
        return
    yield sse({"type": "speech.audio.done"})
