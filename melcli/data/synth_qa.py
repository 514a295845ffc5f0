"""Spoken questions with spoken answers, made of a collection of them: what a model that answers is trained on where there are no recordings.

`synth:qa?hours=2&seed=1&voices=flite/slt:1,espeak:1&answers=flite/rms`: questions by many voices, answers by one. Pure text, spoken when it is
loaded.
"""

from __future__ import annotations

import gzip
import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from random import Random

from melcli.data.sentences import held_out, read_source
from melcli.data.synth_plan import FILES, TEXTS, VOICE_SHARES, check_programs, delivery_of, read_options, shares, steady_delivery
from melcli.data.text import prompt, speakable, transcript
from melcli.data.utterance import Utterance
from melcli.data.voices import Delivery, voice
from melcli.errors import AudioError, UsageError, nearest

OPTIONS = ("hours", "seed", "voices", "answers", "text", "steady")
ANSWERS = "flite/rms"
ANSWER_WORDS = 5
UNTOLD = frozenset({"true", "false", "yes", "no"})  # such answers are guessed, not known


def qa(options: Mapping[str, str], root: Path) -> list[Utterance]:
    """`hours` of questions (1) as shuffled utterances with `extra`: answer, answer_audio, answer_duration. A pure function of its arguments.

    Questions of tests (llama-questions, WebQuestions test) are left out, and answers of more than ANSWER_WORDS words or of true and false. answers:
    the voice of all answers, at its own tempo and pitch. voices, text, steady: of the questions, as in synth:en. UsageError for what cannot be.
    """
    if unknown := [key for key in options if key not in OPTIONS]:
        raise UsageError(f"Unknown option '{unknown[0]}' of synth:qa.{nearest(unknown[0], OPTIONS)} Valid: {', '.join(OPTIONS)}.")
    hours, seed, steady, given = read_options(options, "synth:qa")
    voices, text = shares(given or VOICE_SHARES, "voice", None), options.get("text", TEXTS[0])
    if text not in TEXTS:
        raise UsageError(f"Synthetic speech with text={text} cannot be.{nearest(text, TEXTS)} Valid: {', '.join(TEXTS)}.")
    try:
        speaker = voice(options.get("answers", ANSWERS)).name
    except AudioError as problem:
        raise UsageError(str(problem)) from None
    check_programs([*voices, speaker])
    written = TEXTS.index(text) == 0  # as the transcript has it, and not as it is spoken
    random, found, said = Random(f"{seed}/qa"), [], 0.0
    for number, (question, answer) in enumerate(_pairs(root, random)):
        if said >= hours * 3600:
            break
        delivery = steady_delivery(voices, random) if steady else delivery_of("question", voices, random)
        reply = Delivery(speaker)
        seconds = round(delivery.seconds(question[0]), 2)
        extra = {
            "kind": "qa",
            "answer": answer[written],
            "answer_audio": reply.address(answer[0]),
            "answer_duration": round(reply.seconds(answer[0]), 2),
        }
        said_by = {"text": question[written], "duration": seconds, "speaker": delivery.voice, "extra": extra}
        found.append(Utterance(f"synth-{seed}-qa-{number:06d}", (delivery.address(question[0]),), **said_by))
        said += seconds
    return found


def _pairs(root: Path, random: Random) -> Iterator[tuple[tuple[str, str], tuple[str, str]]]:
    """(spoken, transcript) of each question and of its answer, each question once, in a random order."""
    path = root / FILES["question"]
    source, tested = read_source(path), held_out(root)
    with gzip.open(path, "rt", encoding="utf-8", errors="replace") as lines:
        rows = [line for line in lines if line.strip()]
    random.shuffle(rows)
    asked: set[str] = set()
    for line in rows:
        row = json.loads(line)
        question, answer = source.clean(row["question"]), _answer(str(row.get("answer") or ""))
        if question is not None and answer is not None and question.text not in tested and question.text not in asked:
            asked.add(question.text)
            yield (question.spoken, question.text), answer


def _answer(raw: str) -> tuple[str, str] | None:
    """An answer as it is spoken and as it is written; None for one that is no few plain words."""
    said = speakable(raw)
    text = transcript(said)
    plain = all(letter.isascii() and (letter.isalpha() or letter in " '-.,") for letter in said)
    if not text or not plain or text in UNTOLD or len(text.split()) > ANSWER_WORDS:
        return None
    spoken = prompt(said)
    return (spoken if spoken[-1] in ".!?" else f"{spoken}."), text
