"""Subtitles: no word lost, no line too long, no cue over another, and text that means something to a player kept harmless."""

from __future__ import annotations

import itertools
import re

from hypothesis import given
from hypothesis import strategies as st

from melcli.models.recogniser import Word
from melcli.subtitles import Layout, clock, cues, srt, stamped, tsv, vtt
from melcli.transcripts import Segment

LONG = "the quick brown fox jumps over the lazy dog and then it runs away into the deep dark wood where nobody will ever find it again"
WORDS = st.lists(st.text(st.characters(exclude_categories=["Z", "C"]), min_size=1, max_size=60), min_size=0, max_size=60)


@given(st.lists(WORDS, max_size=5), st.integers(10, 60), st.integers(1, 3), st.booleans())
def test_layout(texts: list[list[str]], width: int, lines: int, timed: bool) -> None:
    segments = []
    for i, words in enumerate(texts):
        own = tuple(Word(w, i * 10 + 8 * j / len(words), i * 10 + 8 * (j + 1) / len(words)) for j, w in enumerate(words)) if timed else None
        segments.append(Segment(i * 10, i * 10 + 8, " ".join(words), "eos", own))
    found = list(cues(segments, Layout(width, lines)))
    assert all(0 < len(cue.lines) <= lines and all(0 < len(line) <= width for line in cue.lines) for cue in found)
    assert "".join("".join(cue.lines) for cue in found).replace(" ", "") == "".join("".join(words) for words in texts)
    times = [time for cue in found for time in (cue.start, cue.end)]
    assert all(a <= b + 1e-9 for a, b in itertools.pairwise(times))


def test_a_segment_keeps_its_ends_and_its_lines_are_balanced() -> None:
    found = list(cues([Segment(1.0, 9.0, LONG, "eos")], Layout()))
    assert len(found) == 2 and (found[0].start, found[-1].end) == (1.0, 9.0) and found[0].end == found[1].start
    for cue in found:
        assert max(map(len, cue.lines)) - min(map(len, cue.lines)) < 15


def test_words_give_cues_their_times_and_pauses_end_them() -> None:
    words = [Word(w, i * 0.5 + (3.0 if i > 9 else 0.0), i * 0.5 + 0.4 + (3.0 if i > 9 else 0.0)) for i, w in enumerate(LONG.split())]
    found = list(cues([Segment(0.0, 20.0, LONG, "eos", tuple(words))], Layout()))
    assert found[0].end == words[9].end and found[1].start == words[10].start and found[-1].end == words[-1].end


def test_words_without_length_are_seen_all_the_same() -> None:
    words = (*(Word(word, 3.0, 3.0) for word in LONG.split()), Word("again.", 3.0, 3.5))
    found = list(cues([Segment(3.0, 3.5, LONG, "eos", words), Segment(3.5, 4.0, "and on", "eos")], Layout(20, 1)))
    shown = [(clock(cue.start), clock(cue.end)) for cue in found]
    assert len(found) > 5 and all(start < end for start, end in shown) and all(a.end <= b.start for a, b in itertools.pairwise(found))
    assert found[0].start == 3.0 and found[-1].end == 4.0


def test_srt() -> None:
    text = srt([Segment(0.15, 3.024, "hello there", "eos"), Segment(4, 5, "", "silence"), Segment(3661.5, 3662, "a --> b", "eos")], Layout())
    assert text == "1\n00:00:00,150 --> 00:00:03,024\nhello there\n\n2\n01:01:01,500 --> 01:01:02,000\na -> b\n"
    assert srt([Segment(0, 5, "", "silence")], Layout()) == ""


def test_vtt() -> None:
    text = vtt([Segment(0.15, 3.024, "fish & <b>chips</b> --> now", "eos")], Layout(60))
    assert text == "WEBVTT\n\n00:00:00.150 --> 00:00:03.024\nfish &amp; &lt;b&gt;chips&lt;/b&gt; --&gt; now\n"
    assert vtt([], Layout()) == "WEBVTT\n"


def test_tsv_and_stamps() -> None:
    words = (Word("one", 0.5, 0.75), Word("two", 0.8, 1.25))
    segments = [Segment(0.5, 1.25, "one\ttwo", "eos", words), Segment(2, 3, "", "silence")]
    assert tsv(segments, Layout()) == "start\tend\ttext\n500\t1250\tone two\n"
    assert tsv(segments, Layout(times="word")) == "start\tend\ttext\n500\t750\tone\n800\t1250\ttwo\n"
    assert stamped(segments, Layout()) == "[00:00:00.500 --> 00:00:01.250] one two\n"


def test_clock() -> None:
    assert clock(0.9996) == "00:00:01.000" and clock(359999.9994) == "99:59:59.999" and clock(59.9999, ",") == "00:01:00,000"
    assert all(re.fullmatch(r"\d\d:\d\d:\d\d\.\d{3}", clock(i * 0.337)) for i in range(100))
