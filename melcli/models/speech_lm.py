"""The one model: a speech input, a causal language model and, optionally, a CTC head on the speech positions.

Shapes: B rows, L positions, D width, V vocabulary, U utterances, P speech positions of all utterances, N target tokens.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from transformers import AutoModel, AutoModelForCausalLM, GenerationMixin, PreTrainedModel
from transformers.modeling_outputs import ModelOutput

from melcli.models import lora
from melcli.models.config import SpeechLMConfig
from melcli.models.losses import IGNORE, ctc_loss, next_token_loss
from melcli.models.masks import added, for_layers, packed_mask, padded_mask
from melcli.models.speech_input import SpeechInput, build_speech_input


@dataclass
class SpeechLMOutput(ModelOutput):
    """loss: scalar. ce, ctc: its unweighted parts, detached. logits: [B, L or 1, V]. ctc_logits: [P x ctc_rate, classes]."""

    loss: Tensor | None = None
    logits: Tensor | None = None
    ce: Tensor | None = None
    ctc: Tensor | None = None
    ctc_logits: Tensor | None = None
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
        self.ctc_head = nn.Linear(config.hidden_size, config.ctc_rate * config.ctc_classes) if config.ctc_weight > 0 else None
        tied = getattr(self.llm, "_tied_weights_keys", None) if config.text_config.tie_word_embeddings else None
        self._tied_weights_keys = {f"llm.{key}": f"llm.{source}" for key, source in (tied or {}).items()}
        self._keys_to_ignore_on_save = set(self._tied_weights_keys)
        for module in self.speech_input.modules():
            module._keeps_its_init = True
        self.post_init()
        if config.lora is not None:
            lora.inject(self.llm, config.lora)
        self.generation_config.suppress_tokens = [config.speech_token_id]

    def _init_weights(self, module: nn.Module) -> None:
        """The backbone's small normal weights would make a stack of convolutions fade to nothing: it keeps torch's own initialisation."""
        if not getattr(module, "_keeps_its_init", False):
            super()._init_weights(module)

    def save_pretrained(self, *args: Any, **kwargs: Any) -> Any:
        """Writes tensors under the names they have here, whatever the backbone's family calls them in its own files."""
        return super().save_pretrained(*args, **{"save_original_format": False, **kwargs})

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

    def embed(self, input_ids_BL: Tensor, speech: Tensor | None, speech_lengths_U: Tensor | None) -> tuple[Tensor, Tensor | None]:
        """Embeddings [B, L, D] with speech put where the speech token stands, and the patches of each utterance.

        speech: packed features of the batch's utterances in reading order, [F, M] (or [S, 1] samples for `raw-frame`).
        """
        x_BLD = self.get_input_embeddings()(input_ids_BL)
        if speech is None:
            return x_BLD, None
        x_PD, patches_U = self.speech_input(speech, speech_lengths_U)
        at_speech = input_ids_BL == self.config.speech_token_id
        return x_BLD.masked_scatter(at_speech[..., None], x_PD.to(x_BLD.dtype)), patches_U

    def _through_speech(self, h_BLD: Tensor) -> Tensor:
        """Zero, by way of everything that speech goes through."""
        frames = 8 * self.speech_input.stride
        bins = self.config.mel_spec.n_mels if self.speech_input.reads == "mel" else 1
        silence = torch.zeros(frames, bins, device=h_BLD.device)
        x_PD, _ = self.speech_input(silence, torch.tensor([frames], device=h_BLD.device))
        zero = 0.0 * x_PD.float().sum()
        return zero if self.ctc_head is None else zero + 0.0 * self.ctc_head(h_BLD[:1, :1]).float().sum()

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
        target_count: Tensor | int | None = None,
        ctc_count: Tensor | int | None = None,
        past_key_values: Any = None,
        use_cache: bool | None = None,
        logits_to_keep: int = 0,
        speech_elsewhere: bool = False,
        **kwargs: Any,
    ) -> SpeechLMOutput:
        """Packed rows (with `documents` [B, L], 0 for padding) in training; padded rows (with `attention_mask` [B, L]) in generation.

        labels [B, L] are not shifted by the caller's hand: position i is predicted from what stands before it; -100 is ignored.
        target_count, ctc_count: what the summed losses are divided by, by default the targets in this call.
        speech_elsewhere: other processes have speech in this step; where this one has text alone its gradients of what speech goes through are
        zeros, as processes that average gradients must all have the same ones.
        """
        x_BLD, patches_U = self.embed(input_ids, speech, speech_lengths)
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
        ctc_logits = None
        if self.ctc_head is not None and speech is not None:
            ctc_logits = self.ctc_head(h_BLD[at_speech]).view(-1, self.config.ctc_classes)
        if labels is None:
            logits = self.logits(h_BLD[:, -logits_to_keep:] if logits_to_keep else h_BLD)
            return SpeechLMOutput(logits=logits, ctc_logits=ctc_logits, past_key_values=out.past_key_values)
        targets_BL = torch.full_like(labels, IGNORE)
        targets_BL[:, :-1] = labels[:, 1:]
        wanted = targets_BL != IGNORE
        targets_N = targets_BL[wanted]
        count = len(targets_N) if target_count is None else target_count
        ce = next_token_loss(self.logits(h_BLD[wanted]), targets_N, count, self.config.label_smoothing if self.training else 0.0)
        loss = self.config.ce_weight * ce
        ctc = None
        if ctc_logits is not None and ctc_targets is not None and len(ctc_lengths):
            ctc = ctc_loss(
                ctc_logits, patches_U * self.config.ctc_rate, ctc_targets, ctc_lengths, ctc_targets.numel() if ctc_count is None else ctc_count
            )
            loss = loss + self.config.ctc_weight * ctc
        if speech_elsewhere and speech is None:
            loss = loss + self._through_speech(h_BLD)
        read = None if self.training else ctc_logits  # training wants none, and what shares its weights would keep hold of them
        return SpeechLMOutput(loss=loss, ce=ce.detach(), ctc=None if ctc is None else ctc.detach(), ctc_logits=read)

    def prepare_inputs_for_generation(self, input_ids: Tensor, past_key_values: Any = None, is_first_iteration: bool = False, **kwargs: Any):
        """Speech is read once, in the first step."""
        inputs = super().prepare_inputs_for_generation(input_ids, past_key_values=past_key_values, is_first_iteration=is_first_iteration, **kwargs)
        if not is_first_iteration:
            inputs["speech"] = inputs["speech_lengths"] = None
        return inputs


AutoModel.register(SpeechLMConfig, SpeechLM)
AutoModelForCausalLM.register(SpeechLMConfig, SpeechLM)
