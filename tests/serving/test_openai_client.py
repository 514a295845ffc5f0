"""The openai package's client against a running server: what it gets is what the command line's own functions give."""

from __future__ import annotations

import base64
import io
import json
from pathlib import Path

import openai
import pytest
import soundfile
import torch

from melcli import subtitles
from melcli.audio import io as audio_io
from melcli.data.utterance import Utterance
from melcli.inputs import AudioInput
from melcli.models.hints import Hints
from melcli.subtitles import Layout
from melcli.synthesize import Request
from melcli.transcripts import Transcript
from tests.serving.maker import DIGITS, GARDEN, Running

SENTENCE = "It's half past nine."  # one passage, alone in its batch: several agree up to rounding only
TEXT = "Good morning, Ann. The door was open. It's half past nine."


def transcript(served: Running, path: Path, hints: Hints = Hints()) -> Transcript:
    """What `melcli transcribe` hears."""
    return next(served.server.desks.ears["tiny-en"].transcriber.hinted(hints).transcribe([AudioInput("it", Utterance("it", (str(path),)))]))


def test_the_models_are_listed(client: openai.OpenAI) -> None:
    found = {model.id: model for model in client.models.list()}
    assert set(found) == {"tiny-en", "tiny-voice"} and found["tiny-en"].owned_by == "melcli"
    assert client.models.retrieve("tiny-voice").voices == ["default"]
    with pytest.raises(openai.NotFoundError):
        client.models.retrieve("whisper-1")


def test_text_as_the_command_gives_it(served: Running, client: openai.OpenAI) -> None:
    expected = transcript(served, DIGITS)
    assert expected.text == DIGITS.with_suffix(".txt").read_text().strip()
    found = client.audio.transcriptions.create(model="tiny-en", file=DIGITS, language="en", temperature=0)
    assert found.text == expected.text and found.usage.seconds == 3
    assert client.audio.transcriptions.create(model="tiny-en", file=DIGITS, response_format="text") == expected.text + "\n"
    assert client.audio.transcriptions.create(model="tiny-en", file=DIGITS, response_format="srt") == subtitles.srt(expected.segments, Layout())
    assert client.audio.transcriptions.create(model="tiny-en", file=DIGITS, response_format="vtt") == subtitles.vtt(expected.segments, Layout())


def test_times_of_segments_and_words(served: Running, client: openai.OpenAI) -> None:
    expected = transcript(served, GARDEN, Hints(word_times=True)).segments
    found = client.audio.transcriptions.create(
        model="tiny-en", file=GARDEN, response_format="verbose_json", timestamp_granularities=["segment", "word"]
    )
    assert [(s.start, s.end, s.text) for s in found.segments] == [(round(s.start, 3), round(s.end, 3), s.text) for s in expected]
    words = [word for segment in expected for word in segment.words]
    assert [(w.word, w.start, w.end) for w in found.words] == [(w.word, round(w.start, 3), round(w.end, 3)) for w in words]
    assert found.duration == pytest.approx(soundfile.info(GARDEN).duration, abs=0.001)
    alone = client.audio.transcriptions.create(model="tiny-en", file=GARDEN, response_format="verbose_json", timestamp_granularities=["word"])
    assert alone.words == found.words and alone.segments is None


def test_long_recordings_come_as_a_stream_of_deltas(client: openai.OpenAI, tmp_path: Path) -> None:
    """A minute with pauses: nothing is lost, nothing said twice, nothing invented in between."""
    clip = audio_io.load(DIGITS, 16000)
    audio_io.save(tmp_path / "long.mp3", torch.cat([torch.cat([clip, torch.zeros(5 * 16000)]) for _ in range(8)]), 16000)
    events = list(client.audio.transcriptions.create(model="tiny-en", file=tmp_path / "long.mp3", stream=True))
    deltas = [event.delta for event in events if event.type == "transcript.text.delta"]
    assert len(deltas) == 8 and events[-1].type == "transcript.text.done"
    assert "".join(deltas) == events[-1].text
    assert events[-1].text.split().count("nine") == 8


def test_nothing_is_invented(client: openai.OpenAI, tmp_path: Path) -> None:
    torch.manual_seed(0)
    audio_io.save(tmp_path / "noise.wav", 0.1 * torch.randn(48000), 16000)
    found = client.audio.transcriptions.create(model="tiny-en", file=tmp_path / "noise.wav", response_format="verbose_json")
    assert found.text == "" and [segment.finish_reason for segment in found.segments] == ["silence"]


def test_keywords_are_hotwords(client: openai.OpenAI) -> None:
    found = client.audio.transcriptions.create(model="tiny-en", file=GARDEN, extra_body={"keywords": ["garden", "white whale"]})
    assert found.text.split()[-1] == "garden"


@pytest.mark.parametrize(("form", "slack"), [("wav", 0.0), ("flac", 0.0), ("pcm", 0.001), ("opus", 0.05), ("mp3", 0.2)])
def test_speech_in_each_format(served: Running, client: openai.OpenAI, form: str, slack: float) -> None:
    synthesizer = served.server.desks.mouths["tiny-voice"].synthesizer
    (expected,) = synthesizer.speak([Request("1", SENTENCE)])
    data = client.audio.speech.create(model="tiny-voice", voice="alloy", input=SENTENCE, response_format=form).content
    options = {"samplerate": 24000, "channels": 1, "format": "RAW", "subtype": "PCM_16"} if form == "pcm" else {}
    wave_S, rate = soundfile.read(io.BytesIO(data), dtype="float32", **options)
    assert rate == {"pcm": 24000}.get(form, synthesizer.rate)
    assert len(wave_S) / rate == pytest.approx(expected.seconds, abs=slack + 1e-6)
    if form in ("wav", "flac"):
        assert torch.allclose(torch.from_numpy(wave_S), expected.wave_S, atol=1e-4)


def test_speech_is_sent_while_it_is_made(client: openai.OpenAI) -> None:
    whole = client.audio.speech.create(model="tiny-voice", voice="default", input=TEXT, response_format="wav").content
    asked = {"model": "tiny-voice", "voice": {"id": "default"}, "input": TEXT, "response_format": "wav"}
    with client.audio.speech.with_streaming_response.create(**asked) as answer:
        pieces = list(answer.iter_bytes())
    assert len(pieces) > 1 and len(b"".join(pieces)) == len(whole)
    with client.audio.speech.with_streaming_response.create(**asked, stream_format="sse") as answer:
        lines = [line.removeprefix("data: ") for line in answer.iter_lines() if line.startswith("data: ")]
    events = [json.loads(line) for line in lines]
    assert [event["type"] for event in events] == ["speech.audio.delta"] * (len(events) - 1) + ["speech.audio.done"]
    assert len(b"".join(base64.b64decode(event["audio"]) for event in events[:-1])) == len(whole)


def test_what_was_said_is_heard(client: openai.OpenAI) -> None:
    spoken = client.audio.speech.create(model="tiny-voice", voice="nova", input="one two three", response_format="mp3").content
    assert client.audio.transcriptions.create(model="tiny-en", file=("spoken.mp3", spoken)).text.split()[-1] == "three"
