"""Evaluation while training: transcripts of what is heard, and how near to the recordings what is said comes.

Shapes: T mel frames, M mel bins, S states, F frames of all utterances of a batch.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import Tensor

from melcli import launch
from melcli.data import written
from melcli.data.batches import read_item
from melcli.data.collate import Item, pack
from melcli.data.features import Joined, WaveFeatures
from melcli.data.load import load_utterance
from melcli.data.replies import reply_features, with_answer
from melcli.data.silence import Trim, TrimmedFeatures, decibels_each
from melcli.data.utterance import Utterance
from melcli.models.decoding.generate import ByCtc, Greedy, Strategy
from melcli.models.decoding.recognise import by_length, recognise
from melcli.models.noise import Seeded
from melcli.models.processor import SpeechLMProcessor
from melcli.models.speech_lm import SpeechLM
from melcli.models.spoken_layout import Layout
from melcli.recipe import DataSection
from melcli.scoring import normalize, wer
from melcli.training import measures
from melcli.training.setup import EvaluationSet, with_text

POSITIONS = 4000  # of a batch that is said
SEED = 1  # of the pre-net's dropout, the same at every evaluation


def hearing_trains(model: SpeechLM) -> bool:
    """Whether anything trains that the CTC head's logits depend on."""
    asks = ("speech_input.", "ctc_head.") if model.config.ctc_at_input else ("speech_input.", "ctc_head.", "llm.")
    return any(parameter.requires_grad and name.startswith(asks) for name, parameter in model.named_parameters())


def quick_strategy(model: SpeechLM) -> Strategy:
    """How transcripts are measured in training: by CTC where the model writes so and what it hears with trains, else greedily."""
    return ByCtc() if model.writes_by_ctc or (model.config.ctc_sounds and hearing_trains(model)) else Greedy()


class Evaluation:
    """Evaluates sets of utterances; features are computed once and kept. Of several processes each evaluates its share.

    Those of task asr, and those that are read in its place, are decoded and their WER is counted. Those of task tts are said with the true frames
    before each patch given, every distribution at its mean, and the mean distance from the true frames is measured in dB. So are those of continue
    and answer, the true text given as well, and of that the mean cross entropy in nats a token.
    """

    def __init__(self, sets: dict[str, EvaluationSet], processor: SpeechLMProcessor, data: DataSection) -> None:
        self.processor = processor
        self.heard = {name: _Heard(one, processor) for name, one in sets.items() if one.task in ("asr", *written.TASKS)}
        trim = Trim.model_validate(data.trim_silence) if data.trim_silence else None
        spoken, texts = ({name: one for name, one in sets.items() if name.endswith(suffix)} for suffix in (measures.MEL, measures.NATS))
        self.said = {name: _Said(_items(one, processor, data, trim), processor) for name, one in spoken.items()}
        self.written = {name: _Written(_items(one, processor, data, trim, aloud=False), processor) for name, one in texts.items()}
        self.order = list(sets)

    def __call__(self, model: SpeechLM, strategy: Strategy | None = None) -> dict[str, float]:
        """What is measured, by set, over the shares of all processes. strategy: how to decode, `quick_strategy` unless told otherwise."""
        strategy = strategy or quick_strategy(model)
        own = {name: one(model, strategy) for name, one in self.heard.items()}
        own |= {name: one(model) for name, one in (self.said | self.written).items()}
        shares = launch.gather([own])
        rates = {}
        for name in self.order:
            first, second = ([each for share in shares for each in share[name][part]] for part in (0, 1))
            rate = wer.score(first, second).wer if name in self.heard else sum(first) / max(sum(second), 1)
            rates[name] = round(rate, 2 if name in self.heard else 3) if rate is not None else 0.0
        return rates


def _own(utterances: Sequence[Utterance]) -> Sequence[Utterance]:
    rank, world = launch.place()
    return utterances[rank::world]


class _Heard:
    """References and transcripts of a set."""

    def __init__(self, one: EvaluationSet, processor: SpeechLMProcessor) -> None:
        self.processor = processor
        self.task = "instruct" if one.task == "instruct" else "asr"
        self.clean = normalize.get(one.text)
        own = _own(one.utterances)
        if one.features is None:
            self.features = [processor.features([load_utterance(u, processor.spec.rate)])[0].half() for u in own]
        else:
            self.features = [one.features.get(i, None) for i in _own(range(len(one.utterances)))]
        self.references = [self.clean(u.text or "") for u in own]

    def __call__(self, model: SpeechLM, strategy: Strategy) -> tuple[list[str], list[str]]:
        features = [f.float() if f.is_floating_point() else f for f in self.features]
        strategy = Greedy() if self.task == "instruct" and isinstance(strategy, ByCtc) else strategy  # CTC hears the question
        hypotheses = recognise(model, self.processor, features, strategy, task=self.task)
        return self.references, [self.clean(self.processor.text(h.tokens)) for h in hypotheses]


def _items(one: EvaluationSet, processor: SpeechLMProcessor, data: DataSection, trim: Trim | None, aloud: bool = True) -> list[Item]:
    """A set as its task has it, without augmentation; aloud: False to leave out what is said."""
    spec, clean, encoder = processor.spec, normalize.get(one.text), processor.encoder(one.task)
    utterances = [with_text(u, clean(u.text or "")) for u in _own(one.utterances)]
    if one.task == "answer":
        utterances = [with_answer(u, clean(written.question_and_answer(u)[1])) for u in utterances]
    if encoder.replies:
        waves = WaveFeatures(utterances, spec, reads=processor.reads)
        source = reply_features(one.task, waves, spec, data.prompt_seconds, speaks=aloud, trim=trim)
    else:
        source = WaveFeatures(utterances, spec)
        source = source if trim is None else TrimmedFeatures(source, spec, trim)
    features, texts = Joined([source]), encoder.texts(utterances)
    items = [read_item(features, i, encoder, ids, processor.patches, processor.steps) for i, ids in enumerate(texts)]
    items = [item for item in items if item.spoken_TM is not None or not aloud]
    return [
        replace(item, **{name: mel_TM.half() for name in ("heard_TM", "spoken_TM") if (mel_TM := getattr(item, name)) is not None}) for item in items
    ]


class _Written:
    """Cross entropies of the text in nats, summed over the tokens of each batch, and how many tokens those are."""

    def __init__(self, items: list[Item], processor: SpeechLMProcessor) -> None:
        self.items, self.pad_id = items, processor.tokenizer.pad_token_id

    @torch.no_grad()
    def __call__(self, model: SpeechLM) -> tuple[list[float], list[int]]:
        sums, counts = [], []
        for rows in by_length([len(item.example.input_ids) for item in self.items], POSITIONS):
            batch = {name: tensor.to(model.device) for name, tensor in pack([[self.items[i]] for i in rows], self.pad_id).items()}
            counts.append(int((batch["labels"] >= 0).sum()))
            sums.append(float(model(**batch).parts["ce"]) * counts[-1])
        return sums, counts


class _Said:
    """Distances in dB, summed over the numbers of each utterance, and how many numbers those are."""

    def __init__(self, items: list[Item], processor: SpeechLMProcessor) -> None:
        self.items, self.pad_id, self.each = items, processor.tokenizer.pad_token_id, decibels_each(processor.spec)

    @torch.no_grad()
    def __call__(self, model: SpeechLM) -> tuple[list[float], list[int]]:
        distances, counts = [0.0] * len(self.items), [0] * len(self.items)
        noise = Seeded([SEED])
        for batch in by_length([len(item.example.input_ids) for item in self.items], POSITIONS):
            items = [self.items[i] for i in batch]
            for i, mel_TM in zip(batch, said_after_truth(model, items, self.pad_id, noise), strict=True):
                true_TM = self.items[i].spoken_TM.to(mel_TM.device).float()
                gap_TM = model.speech_output.raised(mel_TM) - model.speech_output.raised(true_TM)
                distances[i], counts[i] = self.each * float(gap_TM.abs().sum()), gap_TM.numel()
        return distances, counts


def said_after_truth(model: SpeechLM, items: Sequence[Item], pad_id: int, noise: Seeded) -> list[Tensor]:
    """What a model would say at each patch after the true ones before it, at the mean of its distributions: mel_TM of each item."""
    batch = {name: tensor.to(model.device) for name, tensor in pack([[item] for item in items], pad_id).items()}
    read = ("input_ids", "documents", "position_ids", "speech", "speech_lengths", "spoken", "spoken_lengths", "voice", "voice_lengths")
    states_SD = model(**{name: batch[name] for name in read if name in batch}, noise=noise, logits_to_keep=1).states
    output, frames_U = model.speech_output, batch["spoken_lengths"]
    layout = Layout.of(frames_U, output.stride)
    patches_PX = output.say(states_SD[layout.predicts_P], noise, temperature=0.0).patch_NX
    mels = [output.frames(own)[:frames] for own, frames in zip(patches_PX.split(layout.patches_U.tolist()), frames_U.tolist(), strict=True)]
    return [output.polish(mel_TM) for mel_TM in mels]
