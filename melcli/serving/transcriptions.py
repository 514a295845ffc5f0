"""POST /v1/audio/transcriptions: a recording in, its text out, as OpenAI's API has it."""

from __future__ import annotations

import asyncio
import json
import math
import zlib
from collections.abc import AsyncIterator, Callable
from typing import Any

from starlette.datastructures import FormData, UploadFile
from starlette.responses import JSONResponse, PlainTextResponse, Response, StreamingResponse

from melcli import subtitles
from melcli.errors import AudioError, UsageError
from melcli.models.hints import Hints
from melcli.serving.bodies import read_form
from melcli.serving.ears import HearJob, TooLong
from melcli.serving.endpoint import Visit
from melcli.serving.faults import Fault, wrong
from melcli.subtitles import Layout
from melcli.transcripts import Segment, Transcript

FORM_BYTES = 1_000_000  # of everything beside the file
FORMATS = ("json", "text", "srt", "verbose_json", "vtt")
STREAMS = ("json", "text")
GRANULARITIES = ("segment", "word")
KEYWORDS = 100
REFUSED = {  # what would change the answer and cannot be done
    "include": "Nothing can be included: there are no log probabilities.",
    "include[]": "Nothing can be included: there are no log probabilities.",
    "known_speaker_names[]": "Speakers are not told apart.",
    "known_speaker_references[]": "Speakers are not told apart.",
}
FLAGS = (
    ("--timestamps word", "timestamp_granularities[]"),
    ("--timestamps segment", "segment"),
    ("--prompt", "prompt"),
    ("--hotwords", "keywords[]"),
)
EVENTS = {"content-type": "text/event-stream; charset=utf-8", "cache-control": "no-store"}


async def transcriptions(visit: Visit) -> Response:
    """The handler."""
    async with asyncio.timeout_at(visit.deadline):
        form = await read_form(visit.request, visit.service.limits.upload + FORM_BYTES)
    visit.stack.push_async_callback(_close_others, form)
    ears = visit.service.desks.ear(_text(form, "model"))
    form_of, streams, granularities = _options(form)
    hints = _hints(form, granularities)
    try:
        transcriber = await asyncio.to_thread(ears.told, hints)  # a new search through a dictionary takes a while to set up
    except UsageError as error:
        raise _unheard(error) from None
    upload = form.get("file")
    if not isinstance(upload, UploadFile):
        raise wrong("file", "The field file must hold the recording, with a file name.", "missing_required_parameter")
    if (upload.size or 0) > visit.service.limits.upload:
        raise Fault(413, f"The file is larger than {visit.service.limits.upload:,} bytes.", param="file", code="request_too_large")
    kept, upload.file = upload.file, None  # the ears close it
    job = ears.submit(kept, "recording", hints, transcriber)
    visit.stack.callback(ears.discard, job)
    if streams:
        first = await _next(visit, job)
        return StreamingResponse(_events(visit, job, first), headers=EVENTS)
    while not isinstance(event := await _next(visit, job), Transcript):
        pass
    return WRITERS[form_of](event, granularities, _text(form, "language"))


def _options(form: FormData) -> tuple[str, bool, tuple[str, ...]]:
    """The format, whether it is streamed, and the granularities. Raises Fault for a field that cannot be."""
    for name, reason in REFUSED.items():
        if form.getlist(name):
            raise wrong(name, reason, "unsupported_parameter")
    form_of = _text(form, "response_format") or "json"
    if form_of not in FORMATS:
        raise wrong("response_format", f"response_format {form_of[:40]!r}: valid are {', '.join(FORMATS)}.")
    stream = (_text(form, "stream") or "false").lower()
    if stream not in ("true", "false", "1", "0"):
        raise wrong("stream", f"stream {stream[:40]!r}: must be true or false.")
    streams = stream in ("true", "1")
    if streams and form_of not in STREAMS:
        raise wrong("stream", f"response_format {form_of} cannot be streamed; valid are {', '.join(STREAMS)}.")
    _temperature(_text(form, "temperature"))
    language = _text(form, "language")
    if language is not None and not (1 < len(language) <= 20 and language.replace("-", "").isalpha()):
        raise wrong("language", f"language {language[:40]!r}: give an ISO 639 code, such as en.")
    asked = [str(one) for one in (*form.getlist("timestamp_granularities[]"), *form.getlist("timestamp_granularities"))]
    if unknown := [one for one in asked if one not in GRANULARITIES]:
        raise wrong("timestamp_granularities[]", f"timestamp_granularities {unknown[0][:40]!r}: valid are {', '.join(GRANULARITIES)}.")
    if asked and form_of != "verbose_json":
        raise wrong("timestamp_granularities[]", "timestamp_granularities need response_format verbose_json.")
    return form_of, streams, tuple(dict.fromkeys(asked)) or ("segment",)


def _temperature(text: str | None) -> None:
    try:
        value = 0.0 if text is None else float(text)
    except ValueError:
        value = math.nan
    if not 0 <= value <= 1:
        raise wrong("temperature", f"temperature {str(text)[:40]!r}: must be a number from 0 to 1.")


def _hints(form: FormData, granularities: tuple[str, ...]) -> Hints:
    words = tuple(str(word).strip() for word in (*form.getlist("keywords[]"), *form.getlist("keywords")))
    if len(words) > KEYWORDS or not all(0 < len(word) <= 100 for word in words):
        raise wrong("keywords[]", f"keywords: at most {KEYWORDS}, of 1 to 100 characters each.")
    return Hints("word" in granularities, _text(form, "prompt"), words)


def _text(form: FormData, name: str) -> str | None:
    """A field that is text; None where it is empty, too, as clients send what was not filled in."""
    value = form.get(name)
    if value is not None and not isinstance(value, str):
        raise wrong(name, f"The field {name} must be text, not a file.", "invalid_type")
    return value or None


def _unheard(error: UsageError) -> Fault:
    """What a model says of hints that it cannot follow, in the names of the API."""
    message, param = str(error), None
    for flag, name in FLAGS:
        param = name if message.startswith(flag) else param
        message = message.replace(flag, name)
    return wrong(param or "prompt", message, "unsupported_parameter")


async def _close_others(form: FormData) -> None:
    """Files that the ears did not take."""
    for _, value in form.multi_items():
        if isinstance(value, UploadFile) and value.file is not None:
            value.file.close()


async def _next(visit: Visit, job: HearJob) -> object:
    """The next event. Raises Fault for a recording that cannot be heard."""
    try:
        return await visit.event(job)
    except TooLong as error:
        raise Fault(413, f"{str(error)[:1].upper()}{str(error)[1:]}.", param="file", code="audio_too_long") from None
    except AudioError as error:
        raise wrong("file", f"The recording cannot be used: {str(error).removeprefix('<stream>: ')}.", "invalid_audio") from None


async def _events(visit: Visit, job: HearJob, event: object) -> AsyncIterator[str]:
    """Server-sent events: a delta a stretch of speech, and all of the text at the end."""
    said = False
    while not isinstance(event, Transcript):
        if isinstance(event, Segment) and event.text:
            yield sse({"type": "transcript.text.delta", "delta": f" {event.text}" if said else event.text})
            said = True
        try:
            event = await _next(visit, job)
        except Fault as fault:  # the status has gone out; what is wrong goes where the client reads
            yield sse({"type": "error", **fault.body()})
            return
    yield sse({"type": "transcript.text.done", "text": event.text, "usage": _usage(event)})
    yield "data: [DONE]\n\n"


def sse(value: dict[str, Any]) -> str:
    """One server-sent event."""
    return f"event: {value['type']}\ndata: {json.dumps(value, ensure_ascii=False)}\n\n"


def _usage(transcript: Transcript) -> dict[str, object]:
    return {"type": "duration", "seconds": math.ceil(transcript.duration)}


def _json(transcript: Transcript, granularities: tuple[str, ...], language: str | None) -> Response:
    return JSONResponse({"text": transcript.text, "usage": _usage(transcript)})


def _plain(transcript: Transcript, granularities: tuple[str, ...], language: str | None) -> Response:
    return PlainTextResponse(transcript.text + "\n")


def _srt(transcript: Transcript, granularities: tuple[str, ...], language: str | None) -> Response:
    return PlainTextResponse(subtitles.srt(transcript.segments, Layout()), media_type="application/x-subrip")


def _vtt(transcript: Transcript, granularities: tuple[str, ...], language: str | None) -> Response:
    return PlainTextResponse(subtitles.vtt(transcript.segments, Layout()), media_type="text/vtt")


def _verbose(transcript: Transcript, granularities: tuple[str, ...], language: str | None) -> Response:
    """OpenAI's fields; what nobody measured is null. finish_reason is ours."""
    found: dict[str, object] = {
        "task": "transcribe",
        "language": language or "unknown",
        "duration": round(transcript.duration, 3),
        "text": transcript.text,
        "usage": _usage(transcript),
    }
    if "segment" in granularities:
        found["segments"] = [_segment(number, segment) for number, segment in enumerate(transcript.segments)]
    if "word" in granularities:
        words = [word for segment in transcript.segments for word in segment.words or ()]
        found["words"] = [{"word": word.word, "start": round(word.start, 3), "end": round(word.end, 3)} for word in words]
    return JSONResponse(found)


def _segment(number: int, segment: Segment) -> dict[str, object]:
    data = segment.text.encode()
    return {
        "id": number,
        "seek": round(segment.start * 100),
        "start": round(segment.start, 3),
        "end": round(segment.end, 3),
        "text": segment.text,
        "tokens": [],
        "temperature": 0.0,
        "avg_logprob": None,
        "compression_ratio": round(len(data) / len(zlib.compress(data)), 3),
        "no_speech_prob": None,
        "finish_reason": segment.finish_reason,
    }


WRITERS: dict[str, Callable[[Transcript, tuple[str, ...], str | None], Response]] = {
    "json": _json,
    "text": _plain,
    "srt": _srt,
    "vtt": _vtt,
    "verbose_json": _verbose,
}
