"""A speech recogniser of transformers with the face of our own, so that one command can compare them.

Shapes: S samples, B rows, N tokens, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from transformers import PreTrainedModel

from melcli.errors import UsageError
from melcli.models.decoding.hotwords import Hotwords
from melcli.models.decoding.recognise import by_length, token_limit
from melcli.models.fitting import Fitting
from melcli.models.hints import NONE, Hints
from melcli.models.peers.families import Family
from melcli.models.peers.load import load
from melcli.models.peers.prompts import LANGUAGE, audio_alone, feature_extractor
from melcli.models.recogniser import Recognised

BATCH_SECONDS = 480.0  # audio decoded at once, padding included: what our own budget of positions comes to
MIN_SECONDS = 0.1  # shorter pieces are filled with zeros: some front ends need several windows


class Peer:
    """A model of transformers, ready to hear.

    Greedy by default, whatever the checkpoint's generation config says, so that models are compared by the same rule. A row may have
    `token_limit` tokens, counted from its own length: a batch gives the text that its utterances alone would have.
    """

    def __init__(self, model: PreTrainedModel, processor: Any, family: Family, rows: int | None = None, beams: int = 1, hints: Hints = NONE) -> None:
        self.model = model
        self.processor = processor
        self.family = family
        self.rows = rows
        self.beams = beams
        self.fitting = Fitting("pieces of audio")
        self.biases = Hotwords(processor.tokenizer, hints.hotwords).sequences() if hints.hotwords else None
        self.instruction = {} if hints.prompt is None else {"instruction": hints.prompt}
        if rows is None and self.blends:
            self.rows = 1

    @classmethod
    def load(
        cls, folder: str, *, dtype: torch.dtype, device: str, rows: int | None, beam: int | None, ctc_weight: float | None, hints: Hints = NONE
    ) -> tuple[Peer, dict[str, str]]:
        """The model of a folder, and what was decided for it. Raises CheckpointError and UsageError."""
        model, processor, family, used = load(Path(folder), dtype, device)
        _refuse(hints, family)
        if ctc_weight:
            raise UsageError("--ctc-weight: is for models with a CTC head of melcli's; leave it out")
        if (beam or 1) > 1 and (family.ctc or family.transducer):
            raise UsageError(f"--beam {beam}: {model.config.model_type} is decoded greedily only")
        peer = cls(model, processor, family, rows, beam or 1, hints)
        count = sum(p.numel() for p in model.parameters())
        decisions = {
            "model": f"{count / 1e6:.1f} M parameters, {type(model).__name__} of transformers",
            "weights": used,
            "decoding": peer.decoding(beam),
            "batch": peer.batch(rows),
            "audio": f"{peer.rate} Hz, {type(feature_extractor(processor)).__name__}, pieces up to {family.max_seconds:g} s",
        }
        return peer, decisions

    def hinted(self, hints: Hints) -> Peer:
        """The same model, its weights shared, told something else. Raises UsageError for what it cannot follow."""
        _refuse(hints, self.family)
        return Peer(self.model, self.processor, self.family, self.rows, self.beams, hints)

    @property
    def rate(self) -> int:
        return feature_extractor(self.processor).sampling_rate

    @property
    def max_seconds(self) -> float:
        return self.family.max_seconds

    @property
    def blends(self) -> bool:
        """Whether the padding of a batch changes what is heard: the family masks not all of it, or this checkpoint was trained without masks."""
        unmasked = getattr(feature_extractor(self.processor), "return_attention_mask", None) is False
        return self.family.blends or (unmasked and self.family.inputs is audio_alone)

    def decoding(self, beam: int | None) -> str:
        """How texts are found, in words."""
        how = "CTC, greedy" if self.family.ctc else "greedy" if self.beams == 1 else f"{self.beams} beams"
        why = "as asked" if beam else "the same for all models"
        batches = "; one at a time, because padding would change the text" if self.blends and self.rows == 1 else ""
        return f"{how}, {why}{f'; language {LANGUAGE}' if self._told_language else ''}{batches}"

    def batch(self, asked: int | None) -> str:
        """How many utterances are decoded together, in words."""
        if self.rows is None:
            return f"auto: utterances of like length, up to {BATCH_SECONDS / self.beams:g} s, padding included"
        return f"{self.rows} utterances, as asked" if asked else "1 utterance, because padding would change the text"

    @property
    def _told_language(self) -> bool:
        return self.family.told or self._multilingual_whisper

    @property
    def _multilingual_whisper(self) -> bool:
        return bool(getattr(getattr(self.model, "generation_config", None), "is_multilingual", False))

    @torch.inference_mode()
    def recognise(self, waves: Sequence[Tensor]) -> Iterator[dict[int, Recognised]]:
        """What was heard in each wave_S, a batch at a time, the longest first."""
        seconds = [self.max_seconds if self.family.fixed else len(wave_S) / self.rate for wave_S in waves]
        for batch in by_length([round(1000 * s) for s in seconds], round(1000 * BATCH_SECONDS / self.beams), self.rows):
            yield dict(zip(batch, self.fitting(self._batch, [waves[i] for i in batch], [seconds[i] for i in batch]), strict=True))

    def _batch(self, waves: Sequence[Tensor]) -> list[Recognised]:
        shortest = round(MIN_SECONDS * self.rate)
        filled = [torch.nn.functional.pad(wave_S, (0, max(0, shortest - len(wave_S)))).numpy() for wave_S in waves]
        inputs = self._placed(self.family.inputs(self.processor, filled, self.rate, **self.instruction))
        if self.family.transducer or self.family.ctc:
            return [Recognised(text.strip(), "eos") for text in self._read_off(inputs, [len(wave) for wave in filled])]
        limits = [token_limit(len(wave) / self.rate) for wave in filled]
        return self._generated(inputs, limits)

    def _placed(self, inputs: Mapping[str, Any]) -> dict[str, Any]:
        """Inputs on the model's device, and what is not whole numbers in its number format."""
        kind = self.model.dtype
        return {
            name: value.to(self.model.device, kind if value.is_floating_point() else None) if isinstance(value, Tensor) else value
            for name, value in inputs.items()
        }

    def _read_off(self, inputs: dict[str, Any], samples: Sequence[int]) -> list[str]:
        """Texts of CTC models and transducers. The newer classes of transformers bring their own greedy decoding, which knows the padding."""
        if self.family.transducer:
            return self.processor.batch_decode(self._transduced(inputs), skip_special_tokens=True)
        if "generate" in type(self.model).__dict__:
            return self.processor.batch_decode(self.model.generate(**inputs), skip_special_tokens=True)
        ids_BN = self.model(**inputs).logits.argmax(-1)
        mask = inputs.get("attention_mask")
        lengths_B = torch.tensor(samples) if mask is None else mask.sum(-1).cpu()
        frames = self.model._get_feat_extract_output_lengths(lengths_B).tolist()
        return [self.processor.tokenizer.decode(ids[:count]) for ids, count in zip(ids_BN.tolist(), frames, strict=True)]

    def _transduced(self, inputs: dict[str, Any]) -> Tensor:
        """Tokens of a transducer [B, N]. It goes on over the padding while longer rows are at work: what it says there becomes padding too."""
        frames_B = self.model.encoder._get_subsampling_output_length(inputs["attention_mask"].sum(-1))
        found = self.model.generate(**inputs, max_new_tokens=self.model.max_symbols_per_step * int(frames_B.max()))
        starts_BN = found.durations.cumsum(1) - found.durations
        return found.sequences.masked_fill(starts_BN >= frames_B[:, None], self.processor.tokenizer.pad_token_id)

    def _generated(self, inputs: dict[str, Any], limits: Sequence[int]) -> list[Recognised]:
        """Texts of models that write them token by token."""
        options: dict[str, Any] = {"language": LANGUAGE, "task": "transcribe"} if self._multilingual_whisper else {}
        options |= {} if self.biases is None else {"sequence_bias": self.biases}
        rows = self.model.generate(**inputs, max_new_tokens=max(limits), do_sample=False, num_beams=self.beams, **options)
        rows_BN = rows[:, self._prompt_length(inputs, rows) :].tolist()
        tokenizer = self.processor.tokenizer
        stops = self.model.generation_config.eos_token_id
        ends = {tokenizer.pad_token_id, *(stops if isinstance(stops, list) else [stops])}
        found = []
        for row, limit in zip(rows_BN, limits, strict=True):
            count = next((at for at, token in enumerate(row) if token in ends), len(row))
            text = tokenizer.decode(row[: min(count, limit)], skip_special_tokens=True)
            text = text.rpartition(self.family.marker)[2] if self.family.marker else text
            found.append(Recognised(text.strip(), "eos" if count < limit else "length"))
        return found

    def _prompt_length(self, inputs: dict[str, Any], rows_BN: Tensor) -> int:
        """How many tokens of what `generate` returns were given to it: the prompt, with the decoder's start token where it had to be added."""
        if self.family.bare:
            return 0
        if "input_ids" in inputs:
            return inputs["input_ids"].shape[1]
        prompt_BN = inputs.get("decoder_input_ids")
        if prompt_BN is None:
            return 1
        return prompt_BN.shape[1] + int(rows_BN[0, 0] != prompt_BN[0, 0])


def _refuse(hints: Hints, family: Family) -> None:
    """Raises UsageError for hints that models of this family cannot follow."""
    hints.refuse(
        "this model",
        word_times="gives no times of words here; leave it out, or give --timestamps segment",
        prompt="" if family.instructed else "takes no instruction; leave it out",
        hotwords="is read off its frames, which no hotword changes; leave them out" if family.ctc or family.transducer else "",
    )
