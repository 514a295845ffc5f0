"""The one model: a speech input, a causal language model and, optionally, a speech output and a CTC head.

Shapes: B rows, L positions, D width, V vocabulary, U utterances, P speech positions of all utterances, S states that speech is said from, N target
tokens, F frames of all utterances, M mel bins.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch import Tensor, nn
from transformers import AutoModel, AutoModelForCausalLM, GenerationConfig, GenerationMixin, PreTrainedModel
from transformers.modeling_outputs import ModelOutput

from melcli.models import int8, lora, steady
from melcli.models.config import SpeechLMConfig
from melcli.models.losses import IGNORE, ctc_loss, next_token_loss
from melcli.models.masks import added, for_layers, packed_mask, padded_mask
from melcli.models.noise import Drawn, Noise, Still
from melcli.models.speech_input import SpeechInput, build_speech_input
from melcli.models.speech_output import SpeechOutput, build_speech_output
from melcli.models.spoken_layout import Layout, after_voices, said_mask, state_mask


@dataclass
class SpeechLMOutput(ModelOutput):
    """loss: scalar. parts: what it is the weighted sum of, by name, detached. logits: [B, L or 1, V]. ctc_logits: [P x ctc_rate, classes].
    states: [S, D], of speech that is said.
    """

    loss: Tensor | None = None
    logits: Tensor | None = None
    parts: dict[str, Tensor] | None = None
    ctc_logits: Tensor | None = None
    states: Tensor | None = None
    past_key_values: Any = None


class SpeechLM(PreTrainedModel, GenerationMixin):
    """A causal language model of transformers that reads speech where its input holds the speech token."""

    config_class = SpeechLMConfig
    base_model_prefix = "llm"
    supports_gradient_checkpointing = True
    _supports_sdpa = True
    _supports_flash_attn = True
    _supports_flex_attn = True
    _supports_cache_class = True
    _can_compile_fullgraph = False

    def __init__(self, config: SpeechLMConfig) -> None:
        super().__init__(config)
        attention: str | None = config._attn_implementation
        if attention == "sdpa":  # which drops the capping of scores, and which some families have not: transformers then takes another
            attention = "eager" if getattr(config.text_config, "attn_logit_softcapping", None) else None
        self.llm = AutoModelForCausalLM.from_config(config.text_config, attn_implementation=attention)
        n_mels = config.mel_spec.n_mels
        self.speech_input: SpeechInput = build_speech_input(config.speech_input, config.hidden_size, n_mels)
        self.speech_input.bind(config.mel_spec)
        self.speech_output: SpeechOutput | None = None
        if config.speech_output is not None:
            self.speech_output = build_speech_output(config.speech_output, config.hidden_size, n_mels)
            self.speech_output.bind(config.mel_spec)
        classes = config.ctc_rate * config.ctc_classes
        self.ctc_head = nn.Linear(config.hidden_size, classes) if config.ctc_weight > 0 else None
        speaks_ctc = self.speech_output is not None and config.spoken_ctc_weight > 0
        self.spoken_ctc_head = nn.Linear(config.hidden_size, classes) if speaks_ctc else None
        tied = getattr(self.llm, "_tied_weights_keys", None) if config.text_config.tie_word_embeddings else None
        self._tied_weights_keys = {f"llm.{key}": f"llm.{source}" for key, source in (tied or {}).items()}
        self._keys_to_ignore_on_save = set(self._tied_weights_keys)
        for part in (self.speech_input, self.speech_output):
            for module in part.modules() if part is not None else ():
                module._keeps_its_init = True
        self.post_init()
        if config.lora is not None:
            lora.inject(self.llm, config.lora)
        self.generation_config.suppress_tokens = self.place_holders

    @property
    def place_holders(self) -> list[int]:
        """Tokens that stand for speech: no text may hold them."""
        spoken = self.config.spoken_token_id
        return [self.config.speech_token_id, *([] if spoken is None else [spoken])]

    @property
    def writes_by_ctc(self) -> bool:
        """Whether what it hears is learnt by CTC alone, so that the backbone has not learnt to write it."""
        return self.ctc_head is not None and not self.config.ce_weight

    @property
    def hears_by_itself(self) -> bool:
        """Whether the speech input learns by CTC alone, and nothing asks for the backbone."""
        return self.writes_by_ctc and self.config.ctc_at_input

    @property
    def part_names(self) -> tuple[str, ...]:
        """Names of the losses that there may be."""
        spoken = () if self.speech_output is None else self.speech_output.parts
        return ("ce", "ctc", *spoken, *(("spoken_ctc",) if self.spoken_ctc_head is not None else ()))

    def targets(self, batch: Mapping[str, Tensor]) -> dict[str, int]:
        """What there is to learn in a batch, which sums of losses are divided by: `text` tokens, `ctc` classes, `frames` and `states` of speech that
        is said, `spoken_ctc` classes."""
        counts = {"text": int((batch["labels"] >= 0).sum()), "ctc": 0, "frames": 0, "states": 0, "spoken_ctc": 0}
        if "ctc_targets" in batch:
            counts["ctc"] = batch["ctc_targets"].numel()
        if "spoken_lengths" in batch:
            frames_U = batch["spoken_lengths"]
            counts["frames"] = int(frames_U.sum())
            counts["states"] = int((-(-frames_U // self.speech_output.stride) + 1).sum()) if self.speech_output is not None else 0
            counts["spoken_ctc"] = batch["spoken_ctc_targets"].numel() if "spoken_ctc_targets" in batch else 0
        said_U = batch["spoken_lengths"] if "spoken_lengths" in batch else torch.zeros(0, dtype=torch.long)
        return counts | ({} if self.speech_output is None else self.speech_output.counted(said_U))

    def _init_weights(self, module: nn.Module) -> None:
        """The backbone's small normal weights would make a stack of convolutions fade to nothing: it keeps torch's own initialisation."""
        if not getattr(module, "_keeps_its_init", False):
            super()._init_weights(module)

    def save_pretrained(self, *args: Any, **kwargs: Any) -> Any:
        """Writes tensors under the names they have here, whatever the backbone's family calls them in its own files."""
        return super().save_pretrained(*args, **{"save_original_format": False, **kwargs})

    @classmethod
    def from_pretrained(cls, pretrained_model_name_or_path: Any, *args: Any, **kwargs: Any) -> Any:
        """As in transformers; of a folder with weights of eight bits (models/int8.py) too."""
        folder = Path(pretrained_model_name_or_path or "")
        if not (folder / int8.FILE).is_file():
            return super().from_pretrained(pretrained_model_name_or_path, *args, **kwargs)
        kwargs |= {
            "config": kwargs.get("config") or cls.config_class.from_pretrained(folder),
            "state_dict": int8.unpack(load_file(folder / int8.FILE)),
        }
        model = super().from_pretrained(None, *args, **kwargs)
        if (folder / "generation_config.json").is_file() and not isinstance(model, tuple):
            model.generation_config = GenerationConfig.from_pretrained(folder)
        return model

    def get_input_embeddings(self) -> nn.Module:
        return self.llm.get_input_embeddings()

    def set_input_embeddings(self, value: nn.Module) -> None:
        self.llm.set_input_embeddings(value)

    def get_output_embeddings(self) -> nn.Module | None:
        return self.llm.get_output_embeddings()

    def logits(self, h: Tensor) -> Tensor:
        """Logits [..., V] of the backbone's last hidden states [..., D], scaled and capped as the backbone's own class does it."""
        config = self.config.text_config
        logits = self.get_output_embeddings()(h)
        scale = getattr(config, "logit_scale", 1.0) * getattr(config, "lm_head_multiplier", 1.0) / getattr(config, "logits_scaling", 1.0)
        logits = logits if scale == 1 else logits * scale
        cap = getattr(config, "final_logit_softcapping", None)
        return torch.tanh(logits / cap) * cap if cap else logits

    def embed(
        self,
        input_ids_BL: Tensor,
        speech: Tensor | None,
        speech_lengths_U: Tensor | None,
        spoken: Tensor | None = None,
        spoken_lengths_U: Tensor | None = None,
        noise: Noise | None = None,
        voice: Tensor | None = None,
        voice_lengths_U: Tensor | None = None,
    ) -> tuple[Tensor, Tensor | None]:
        """Embeddings [B, L, D] with speech put where its tokens stand, and the patches of each utterance that is heard.

        speech: packed features of the batch's utterances in reading order, [F, M] (or [S, 1] samples for `raw-frame`). spoken: mel of those that are
        said. noise: of the speech output; by default drawn in training and still elsewhere. voice: mel of the voice prompts before those.
        """
        x_BLD = self.get_input_embeddings()(input_ids_BL)
        patches_U = None
        if speech is not None:
            x_PD, patches_U = self.speech_input(speech, speech_lengths_U)
            at_speech = input_ids_BL == self.config.speech_token_id
            x_BLD = x_BLD.masked_scatter(at_speech[..., None], x_PD.to(x_BLD.dtype))
        if spoken is not None:
            if voice is not None:
                spoken, spoken_lengths_U = after_voices(voice, voice_lengths_U, spoken, spoken_lengths_U)
            x_PD = self.speech_output.embed(spoken, spoken_lengths_U, noise or self.noise)
            at_spoken = input_ids_BL == self.config.spoken_token_id
            x_BLD = x_BLD.masked_scatter(at_spoken[..., None], x_PD.to(x_BLD.dtype))
        return x_BLD, patches_U

    @property
    def noise(self) -> Noise:
        """Drawn in training, else none."""
        return Drawn() if self.training else Still()

    def _through(self, h_BLD: Tensor, speech: bool, spoken: bool) -> Tensor:
        """Zero, by way of everything that speech goes through where it is heard (`speech`) and where it is said (`spoken`)."""
        bins, device = self.config.mel_spec.n_mels, h_BLD.device
        zero = h_BLD.new_zeros(()).float()
        if speech and self.speech_input.reads != "nothing":
            silence = self.speech_input.blank(bins).to(device)
            zero = zero + 0.0 * self.speech_input(silence, torch.tensor([len(silence)], device=device))[0].float().sum()
        if spoken and self.speech_output is not None:
            frames_U = torch.tensor([self.speech_output.stride], device=device)
            silence = torch.zeros(self.speech_output.stride, bins, device=device)
            zero = zero + 0.0 * self.speech_output.embed(silence, frames_U, self.noise).float().sum()
            parts = self.speech_output.losses(h_BLD[0, :1].repeat(2, 1), silence, frames_U, {"frames": 1, "states": 1}, self.noise)
            zero = zero + 0.0 * sum(parts.values())
        for wanted, head in ((speech, self.ctc_head), (spoken, self.spoken_ctc_head)):
            if wanted and head is not None:
                zero = zero + 0.0 * head(h_BLD[:1, :1]).float().sum()
        return zero

    def _for_layers(self, allowed_B1LL: Tensor, dtype: torch.dtype) -> Tensor | dict[str, Tensor]:
        """A boolean mask as the backbone takes it. Documents lie in one piece, so that how far back is a difference of indices."""
        at_L = torch.arange(allowed_B1LL.shape[-1], device=allowed_B1LL.device)
        mask = for_layers(allowed_B1LL, (at_L[:, None] - at_L)[None], self.config.text_config)
        if self.llm.config._attn_implementation != "eager":
            return mask
        device = allowed_B1LL.device.type
        return added(mask, torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else dtype)

    def forward(
        self,
        input_ids: Tensor | None = None,
        speech: Tensor | None = None,
        speech_lengths: Tensor | None = None,
        documents: Tensor | None = None,
        attention_mask: Tensor | None = None,
        position_ids: Tensor | None = None,
        labels: Tensor | None = None,
        ctc_targets: Tensor | None = None,
        ctc_lengths: Tensor | None = None,
        spoken: Tensor | None = None,
        spoken_lengths: Tensor | None = None,
        spoken_ctc_targets: Tensor | None = None,
        spoken_ctc_lengths: Tensor | None = None,
        voice: Tensor | None = None,
        voice_lengths: Tensor | None = None,
        counts: Mapping[str, Tensor | int] | None = None,
        step: int | None = None,
        noise: Noise | None = None,
        past_key_values: Any = None,
        use_cache: bool | None = None,
        logits_to_keep: int = 0,
        speech_elsewhere: bool = False,
        spoken_elsewhere: bool = False,
        **kwargs: Any,
    ) -> SpeechLMOutput:
        """Packed rows (with `documents` [B, L], 0 for padding) in training; padded rows (with `attention_mask` [B, L]) in generation.

        labels [B, L] are not shifted by the caller's hand: position i is predicted from what stands before it; -100 is ignored.
        spoken [F, M], spoken_lengths [U]: mel of the speech that is said, in reading order; spoken_ctc_*: its text, as ctc_* is of what is heard.
        voice [F, M], voice_lengths [U]: mel of the voice prompts that are read before them, 0 frames for none; they count in no loss.
        counts: what the summed losses are divided by (see `targets`), by default what is in this call. step: of training, for weights that change.
        noise: of the speech output, by default drawn in training and none elsewhere.
        A model that `hears_by_itself` gives in training, of speech that is heard, the CTC loss and no logits.
        speech_elsewhere, spoken_elsewhere: other processes hear or say speech in this step; where this one does not, its gradients of what such
        speech goes through are zeros, as processes that average gradients must all have the same ones.
        """
        noise = noise or self.noise
        if self.training and self.hears_by_itself and speech is not None and spoken is None and ctc_targets is not None:
            x_PD, patches_U = self.speech_input(speech, speech_lengths)
            ctc = self._ctc_loss(self._ctc(x_PD), patches_U, ctc_targets, ctc_lengths, counts or {})
            return SpeechLMOutput(loss=self.config.ctc_weight * ctc, parts={"ctc": ctc.detach()})
        x_BLD, patches_U = self.embed(input_ids, speech, speech_lengths, spoken, spoken_lengths, noise, voice, voice_lengths)
        at_speech = input_ids == self.config.speech_token_id
        two_way = self.config.speech_attention == "bidirectional"
        allowed = None
        if documents is not None:
            allowed = packed_mask(documents, at_speech, two_way)
        elif attention_mask is not None and attention_mask.dim() == 2 and speech is not None:
            if position_ids is None:
                position_ids = (attention_mask.cumsum(-1) - 1).clamp_min(0)
            allowed = padded_mask(attention_mask, at_speech, two_way)
        elif speech is not None and two_way:
            allowed = padded_mask(torch.ones_like(input_ids), at_speech, True)
        if allowed is not None:
            attention_mask = self._for_layers(allowed, x_BLD.dtype)
        ctc_logits = None
        if speech is not None and self.config.ctc_at_input:
            ctc_logits = self._ctc(x_BLD[at_speech])
        backbone = self.llm.get_decoder() if hasattr(self.llm, "get_decoder") else self.llm.base_model
        out = backbone(
            inputs_embeds=x_BLD,
            attention_mask=attention_mask,
            position_ids=position_ids,
            past_key_values=past_key_values,
            use_cache=bool(use_cache),
            **kwargs,
        )
        h_BLD = out.last_hidden_state
        if self.ctc_head is not None and speech is not None and ctc_logits is None:
            ctc_logits = self._ctc(h_BLD[at_speech])
        states_SD = h_BLD[state_mask(input_ids == self.config.spoken_token_id)] if spoken is not None else None
        if states_SD is not None and voice is not None:
            states_SD = states_SD[said_mask(voice_lengths, spoken_lengths, self.speech_output.stride)]
        if labels is None:
            logits = self.logits(h_BLD[:, -logits_to_keep:] if logits_to_keep else h_BLD)
            return SpeechLMOutput(logits=logits, ctc_logits=ctc_logits, states=states_SD, past_key_values=out.past_key_values)
        targets_BL = torch.full_like(labels, IGNORE)
        targets_BL[:, :-1] = labels[:, 1:]
        wanted = targets_BL != IGNORE
        targets_N = targets_BL[wanted]
        given = counts or {}
        weights = {"ce": self.config.ce_weight, "ctc": self.config.ctc_weight, "spoken_ctc": self.config.spoken_ctc_weight}
        smoothing = self.config.label_smoothing if self.training else 0.0
        parts = {"ce": next_token_loss(steady.apply(self.logits, h_BLD[wanted]), targets_N, given.get("text", max(len(targets_N), 1)), smoothing)}
        if ctc_logits is not None and ctc_targets is not None and len(ctc_lengths):
            parts["ctc"] = self._ctc_loss(ctc_logits, patches_U, ctc_targets, ctc_lengths, given)
        if states_SD is not None:
            parts |= self._spoken_parts(states_SD, spoken, spoken_lengths, spoken_ctc_targets, spoken_ctc_lengths, given, noise)
            weights |= self.speech_output.weights(step)
        loss = sum(weights[name] * part for name, part in parts.items())
        if (speech_elsewhere and speech is None) or (spoken_elsewhere and spoken is None):
            loss = loss + self._through(h_BLD, speech_elsewhere and speech is None, spoken_elsewhere and spoken is None)
        read = None if self.training else ctc_logits  # training wants none, and what shares its weights would keep hold of them
        return SpeechLMOutput(loss=loss, parts={name: part.detach() for name, part in parts.items()}, ctc_logits=read, states=states_SD)

    def heard(self, speech: Tensor, lengths_U: Tensor) -> tuple[Tensor, Tensor]:
        """The CTC head's logits [frames, classes] of mel [F, M] and its frames of each utterance, of a model with `ctc_at_input`."""
        x_PD, patches_U = self.speech_input(speech, lengths_U)
        return self._ctc(x_PD.to(self.dtype)), patches_U * self.config.ctc_rate

    def _ctc(self, x_PD: Tensor) -> Tensor:
        """The CTC head's logits [P x ctc_rate, classes] at speech positions."""
        return steady.apply(self.ctc_head, x_PD).view(-1, self.config.ctc_classes)

    def _ctc_loss(self, logits: Tensor, patches_U: Tensor, targets_N: Tensor, lengths_U: Tensor, counts: Mapping[str, Tensor | int]) -> Tensor:
        return ctc_loss(logits, patches_U * self.config.ctc_rate, targets_N, lengths_U, counts.get("ctc", max(targets_N.numel(), 1)))

    def _spoken_parts(
        self,
        states_SD: Tensor,
        spoken: Tensor,
        frames_U: Tensor,
        ctc_targets: Tensor | None,
        ctc_lengths: Tensor | None,
        counts: Mapping[str, Tensor | int],
        noise: Noise,
    ) -> dict[str, Tensor]:
        """The losses of speech that is said; CTC over the states that its patches are predicted from."""
        own = {"frames": len(spoken), "states": len(states_SD), **self.speech_output.counted(frames_U), **counts}
        parts = self.speech_output.losses(states_SD, spoken, frames_U, own, noise)
        if self.spoken_ctc_head is not None and ctc_targets is not None:
            layout = Layout.of(frames_U, self.speech_output.stride)
            logits = steady.apply(self.spoken_ctc_head, states_SD[layout.predicts_P]).view(-1, self.config.ctc_classes)
            count = counts.get("spoken_ctc", max(ctc_targets.numel(), 1))
            parts["spoken_ctc"] = ctc_loss(logits, layout.patches_U * self.config.ctc_rate, ctc_targets, ctc_lengths, count)
        return parts

    def prepare_inputs_for_generation(self, input_ids: Tensor, past_key_values: Any = None, is_first_iteration: bool = False, **kwargs: Any):
        """Speech is read once, in the first step."""
        inputs = super().prepare_inputs_for_generation(input_ids, past_key_values=past_key_values, is_first_iteration=is_first_iteration, **kwargs)
        if not is_first_iteration:
            inputs["speech"] = inputs["speech_lengths"] = inputs["spoken"] = inputs["spoken_lengths"] = None
        return inputs


AutoModel.register(SpeechLMConfig, SpeechLM)
AutoModelForCausalLM.register(SpeechLMConfig, SpeechLM)
