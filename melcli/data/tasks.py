"""Tasks: how an utterance becomes one sequence of text and speech, each a condition or a target."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal, Protocol

from melcli.data.lexicon import Lexicon
from melcli.data.sounds import Sounds
from melcli.data.utterance import Utterance
from melcli.data.words_heard import words_by_letters, words_by_time

SPEECH = "<|speech|>"
SPOKEN = "<|spoken|>"
TEXT = "<|text|>"  # in a prompt of tts: where the text goes; in one of continue and answer: where it is written
ANSWER = "<|answer|>"  # written between a question and its answer
SLOWEST = 0.5  # how fast a speaker is taken to be at the least, as against others; at the most its inverse
ASKS = {"continue": "<|continue|>", "answer": "<|question|>", "instruct": "<|instruct|>"}  # what asks for them, unless a prompt says otherwise


@dataclass(frozen=True, slots=True)
class Segment:
    """A stretch of the sequence. Targets are learnt, conditions are only read; speech has no text of its own.

    own: the text is the utterance's, not the prompt's. Target texts stand side by side and are written in one go.
    """

    kind: Literal["text", "speech"]
    target: bool
    text: str = ""
    own: bool = False


class Task(Protocol):
    def __call__(self, utterance: Utterance, prompt: str) -> list[Segment]: ...


def asr(utterance: Utterance, prompt: str = SPEECH) -> list[Segment]:
    """[speech] ask -> transcript. `prompt` says what stands around the speech."""
    return [*_around(SPEECH, Segment("speech", False), prompt), Segment("text", True, utterance.text or "", own=True)]


def tts(utterance: Utterance, prompt: str = TEXT) -> list[Segment]:
    """text ask -> [speech]. `prompt` says what stands around the text."""
    return [*_around(TEXT, Segment("text", False, utterance.text or "", own=True), prompt), Segment("speech", True)]


def repeat(utterance: Utterance, prompt: str = SPEECH) -> list[Segment]:
    """[text, through the encoder's text branch] ask -> the text: what `asr` is to a model that learns from text alone (TESU-LLM)."""
    return asr(utterance, prompt)


def instruct(utterance: Utterance, prompt: str = SPEECH) -> list[Segment]:
    """[question, through the encoder's text branch] ask -> answer, which here is the utterance's text (see `question_and_answer`)."""
    return asr(utterance, prompt)


def continue_(utterance: Utterance, prompt: str = SPEECH) -> list[Segment]:
    """[speech: its first seconds] ask -> text of the whole -> [speech of what follows] (Spectron, arXiv 2305.15255).

    `prompt` says what stands around the speech, and after <|text|> what is read between the text and the speech that is said.
    """
    return _replied([Segment("text", True, utterance.text or "", own=True)], prompt)


def answer(utterance: Utterance, prompt: str = SPEECH) -> list[Segment]:
    """[question speech] ask -> its text <|answer|> text of the answer -> [answer speech]. `prompt` as in `continue_`."""
    question, said = utterance.text or "", str(utterance.extra.get("answer") or "")
    written = [Segment("text", True, question, own=True), Segment("text", True, ANSWER), Segment("text", True, said, own=True)]
    return _replied(written, prompt)


def _replied(written: list[Segment], prompt: str) -> list[Segment]:
    before, _, after = prompt.partition(TEXT)
    read = [Segment("text", False, after)] if after else []
    return [*_around(SPEECH, Segment("speech", False), before), *written, *read, Segment("speech", True)]


def text(utterance: Utterance, prompt: str = "") -> list[Segment]:
    """Text alone, for language modelling."""
    return [Segment("text", True, utterance.text or "", own=True)]


def _around(mark: str, segment: Segment, prompt: str) -> list[Segment]:
    """The segment where the prompt has its mark, and the prompt's own text around it."""
    pieces = re.split(f"({re.escape(mark)})", prompt)
    return [segment if piece == mark else Segment("text", False, piece) for piece in pieces if piece]


@dataclass(frozen=True, slots=True)
class Example:
    """One encoded sequence. labels are -100 on conditions.

    ctc_ids, spoken_ctc_ids: the text of the speech that is heard, and of that which is said, in CTC's classes; None where it is unknown, or there is
    no such speech. positions: of the tokens, where they are not 0, 1, 2 and so on. speed: positions that a patch of speech which is said takes.
    """

    input_ids: list[int]
    labels: list[int]
    ctc_ids: list[int] | None = None
    positions: list[int] | None = None
    spoken_ctc_ids: list[int] | None = None
    speed: float = 1.0


class Encoder:
    """Turns segments into token ids with a tokenizer, leaving a token for each patch of speech where speech goes.

    end_ids: what follows every target text. speech_id: holds the places of speech that is heard, `<|speech|>` of the tokenizer unless given;
    spoken_id: of speech that is said. pace: patches that a token of the text takes to say, to spread the text's positions by; None leaves them.
    seconds: of an utterance that are heard, where its text goes on from there (`continue`); lead: patches that they take.
    lexicon: how the words of a text that is said sound, where the model reads that; spelled: share of them that stay in letters. sounds: how words
    sound that are heard, where CTC's classes are those of data/sounds.py.
    reads_speech, speaks: what the task has. Where it has both, speech that is said may be missing (`replies`).
    """

    def __init__(
        self,
        tokenizer: Any,
        task: Callable[[Utterance, str], list[Segment]],
        prompt: str,
        end_ids: Sequence[int],
        ctc_alphabet: str | None = None,
        speech_id: int | None = None,
        spoken_id: int | None = None,
        pace: float | None = None,
        lexicon: Lexicon | None = None,
        lead: float = 0.0,
        seconds: float = 0.0,
        sounds: Sounds | None = None,
    ) -> None:
        self.tokenizer = tokenizer
        self.task = task
        self.prompt = prompt
        self.end_ids = list(end_ids)
        self.speech_id = tokenizer.convert_tokens_to_ids(SPEECH) if speech_id is None else speech_id
        self.spoken_id = spoken_id
        blank = task(Utterance("", ()), prompt)
        speech = [segment.target for segment in blank if segment.kind == "speech"]
        self.reads_speech, self.speaks = False in speech, True in speech
        self.replies = self.reads_speech and self.speaks
        self.pace = pace if self.speaks else None
        self.lead = lead
        self.seconds = seconds
        self.lexicon = lexicon if self.speaks and not self.replies else None
        self.spelled = 0.0
        self.sounds = sounds
        self.parts = sum(segment.own for segment in blank)
        self._conditions: dict[str, list[int]] = {}
        self.around = 0  # tokens of the prompt before what is written, in a task that replies
        for segment in blank if self.replies else ():
            if segment.target:
                break
            self.around += len(self._condition(segment.text)) if segment.kind == "text" else 0
        self._classes = None if ctc_alphabet is None else {character: i for i, character in enumerate(ctc_alphabet)}

    def texts(self, utterances: Sequence[Utterance]) -> list[list[int]]:
        """Token ids of the text of many utterances, in one go; where a task writes several texts, of all of them and what is written between."""
        if self.parts < 2:
            return self._tokens([self.written(u) for u in utterances])
        written = [[s for s in self.task(u, self.prompt) if s.target and s.kind == "text"] for u in utterances]
        own = iter(self._tokens([segment.text for segments in written for segment in segments if segment.own]))
        pieces = [[next(own) if segment.own else self._condition(segment.text) for segment in segments] for segments in written]
        return [[token for piece in each for token in piece] for each in pieces]

    def written(self, utterance: Utterance) -> str:
        """The text of an utterance as it is tokenized."""
        text = utterance.text or ""
        return text if self.lexicon is None else self.lexicon.write(text, self.spelled, utterance.id)

    def _tokens(self, texts: list[str]) -> list[list[int]]:
        # a transcript that happens to hold the text of a special token stays text
        return self.tokenizer(texts, add_special_tokens=False, split_special_tokens=True)["input_ids"] if texts else []

    def length(self, utterance: Utterance, patches: int, text_ids: list[int], steps: int = 0) -> int:
        """Positions of the encoded sequence; see `__call__`."""
        return len(self(utterance, patches, [], steps=steps).input_ids) + len(text_ids)

    def __call__(self, utterance: Utterance, patches: int, text_ids: list[int], untold: int = 0, steps: int = 0, heard: int | None = None) -> Example:
        """patches: of the speech, be it heard or said; steps: of speech that is said where speech is heard as well, 0 for none.

        untold: patches at the head of the speech, such as somebody else's voice, whose text is not in the text. heard: tokens of the text that were
        heard in the prompt of `continue`, found out unless given.
        """
        ids: list[int] = []
        labels: list[int] = []
        own = 0  # where the utterance's text begins
        written = False
        after = 0  # tokens between what is written and what is said
        for segment in self.task(utterance, self.prompt):
            if self.replies and written and not segment.target and not steps:
                break  # it says nothing aloud
            if segment.kind == "speech":
                piece = [self.speech_id] * patches if not segment.target else [self.spoken_id] * (steps if self.replies else patches)
            elif segment.target:  # text_ids hold all that is written
                if written:
                    continue
                piece, own, written = [*text_ids, *self.end_ids], len(ids), True
            elif segment.own:
                piece, own = list(text_ids), len(ids)
            else:
                piece = self._condition(segment.text)
                after += len(piece) if written else 0
            ids += piece
            labels += piece if segment.target and segment.kind == "text" else [-100] * len(piece)
        if not (self.reads_speech or self.speaks) and ids:  # nothing before the first token to predict it from
            labels[0] = -100
        positions, speed = None, 1.0
        if self.pace and self.replies:
            heard_at = [token == self.speech_id for token in ids[:own]]
            heard = self.heard_of(utterance) if heard is None and steps and text_ids else heard
            speed = self.speed(heard, len(text_ids))
            start = self.start(text_ids, heard)
            positions = spread_reply(heard_at, len(text_ids) + len(self.end_ids), start, after, steps, self.pace, speed)
        elif self.pace:
            positions = spread(own, len(text_ids), len(ids) - patches, patches, self.pace, untold)
        ctc_ids, spoken_ctc_ids = self._ctc_ids(utterance, text_ids)
        return Example(ids, labels, ctc_ids, positions, spoken_ctc_ids, speed)

    def asked(self, patches: int, written: Sequence[int] = ()) -> Example:
        """What stands before the next token of a text: the prompt with the speech in it and what is written already."""
        whole = self(Utterance("", ()), patches, list(written))
        count = len(whole.input_ids) - len(self.end_ids)
        return Example(whole.input_ids[:count], whole.labels[:count], positions=whole.positions and whole.positions[:count])

    def start(self, text_ids: Sequence[int], heard: int | None = None) -> int:
        """Positions from where a reply's axis of time begins to its speech: to the answer's first token, or to the first that was not heard; where it
        is not known how many of them were `heard`, as far as the prompt lasts."""
        if heard is not None:
            return round(min(heard, len(text_ids)) * self.pace)
        between = self._condition(ANSWER)
        cut = text_ids.index(between[0]) + len(between) if self.parts > 1 and between[0] in text_ids else 0
        return round(cut * self.pace + self.lead)

    def speed(self, heard: int | None, written: int) -> float:
        """How much faster than most somebody speaks, of whose `written` tokens so many were `heard` in the prompt: 1 where nobody knows, none were or
        all, since the prompt may then have ended in silence."""
        if not heard or not self.lead or heard >= written:
            return 1.0
        return min(max(heard * self.pace / self.lead, SLOWEST), 1 / SLOWEST)

    def heard_of(self, utterance: Utterance) -> int | None:
        """Tokens of the text that lie in the prompt of `continue`, by the words' times or else by letters; None where neither is known."""
        if not self.seconds:
            return None
        words = words_by_time(utterance, self.seconds)
        words = words_by_letters(utterance, self.seconds) if words is None else words
        return None if words is None else self.count(" ".join(self.written(utterance).split()[:words]))

    def count(self, text: str) -> int:
        """Tokens of a text."""
        return len(self._tokens([text])[0])

    def prompted(self, utterance: Utterance, steps: int, text_ids: list[int], voice_steps: int, told: Utterance | None) -> Example:
        """A text and `steps` of speech that says it after a voice prompt of `voice_steps`; its CTC classes are those of the text alone.

        told: the utterance that the prompt is, whose text stands before the other, a space between them; None where nobody tells it.
        """
        if told is None:
            return self(utterance, voice_steps + steps, text_ids, untold=voice_steps)
        both = self._tokens([f"{self.written(told).strip()} {self.written(utterance)}"])[0]
        return replace(self(utterance, voice_steps + steps, both), spoken_ctc_ids=self._ctc_ids(utterance, text_ids)[1])

    def _ctc_ids(self, utterance: Utterance, text_ids: list[int]) -> tuple[list[int] | None, list[int] | None]:
        """The text of what is heard and of what is said, where it is known: of speech that is cut in two, by the words' times."""
        if not self.replies:
            ids = self._in_classes(self.written(utterance), text_ids)
            return ids if self.reads_speech else None, ids if self.speaks else None
        if self.seconds:
            count = words_by_time(utterance, self.seconds)
            if count is None:
                return None, None
            words = self.written(utterance).split()
            heard, said = ((part, self._tokens([part])[0]) for part in (" ".join(words[:count]), " ".join(words[count:])))
            return self._in_classes(*heard), self._in_classes(*said)
        between = self._condition(ANSWER)
        if self.parts < 2 or not between or between[0] not in text_ids:
            return None, None
        cut = text_ids.index(between[0])
        answer = self._in_classes(str(utterance.extra.get("answer") or ""), text_ids[cut + len(between) :])
        return self._in_classes(utterance.text, text_ids[:cut]), answer

    def _in_classes(self, text: str | None, text_ids: list[int]) -> list[int] | None:
        """None for a text that none of the classes stands for: it is no silence."""
        if self._classes is None:
            return text_ids
        text = text or ""
        spelt = text if self.sounds is None else self.sounds.write(text)
        found = [self._classes[character] for character in spelt if character in self._classes]
        return found if found or not any(map(str.isalnum, text)) else None

    def _condition(self, piece: str) -> list[int]:
        if piece not in self._conditions:
            self._conditions[piece] = self.tokenizer(piece, add_special_tokens=False)["input_ids"]
        return self._conditions[piece]


def spread_reply(heard: Sequence[bool], tokens: int, start: int, after: int, patches: int, pace: float, speed: float = 1.0) -> list[int]:
    """Positions of a reply on one axis of time: what is heard, a token written of it, and the patch that says a token have about the same one.

    heard: of each place before what is written, whether it holds speech; what else is there counts on from 0, and the axis begins after it. tokens:
    that are written, the end with them, in steps of `pace` patches. start: positions from the axis' beginning to the speech that is said; after:
    tokens read between the text and that speech, which stand right before it; patches: of that speech, `speed` positions each.
    """
    first = sum(not each for each in heard)
    before, around, patch = [], 0, first
    for each in heard:
        before.append(patch if each else around)
        patch, around = patch + each, around + (not each)
    said = first + start
    between = [max(0, said - after + i) for i in range(after)]
    return [*before, *(first + round(i * pace) for i in range(tokens)), *between, *(said + round(i * speed) for i in range(patches))]


def spread(own: int, tokens: int, prompt: int, patches: int, pace: float, untold: int = 0) -> list[int]:
    """Positions of a tts sequence in which a token of the text and the patch that says it have about the same one.

    own: positions before the text; tokens: of the text; prompt: of text and all that is around it; patches: of speech, from where the prompt ends,
    `untold` of them not of this text. What is around the text counts on from 0; text and speech both begin after it, the text in steps of `pace`
    patches a token.
    """
    start = prompt - tokens
    text = [start + untold + round(i * pace) for i in range(tokens)]
    return [*range(own), *text, *range(own, start), *range(start, start + patches)]
