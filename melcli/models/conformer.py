"""Phi-4-multimodal's speech encoder: the encoder-initialised counterpart of `mel-conv`.

Shapes: F frames of all utterances, M mel bins, U utterances, P patches of all utterances, H width of the blocks, B utterances of one group,
L patches of the longest of them.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint
from transformers import Phi4MultimodalAudioConfig
from transformers.models.phi4_multimodal.modeling_phi4_multimodal import (
    Phi4MultimodalAudioConformerEncoderLayer,
    Phi4MultimodalAudioRelativeAttentionBias,
)

from melcli.errors import ConfigError
from melcli.models.groups import in_groups, valid
from melcli.models.speech_input import MelConv

BLOCK_PATCHES = 500  # an utterance is encoded in stretches of so many patches (40 s at 8x) that do not see each other, as Phi-4-MM does


class MelConformer(MelConv):
    """Phi-4-multimodal's speech input as it is: `mel-conv` with `blocks` conformer blocks between the convolutions and the projector.

    The defaults are Phi's sizes, with 429 M parameters in the blocks. Blocks and relative attention bias are transformers' own classes under
    their own names (`encoders.{n}.*`, `relative_attention_bias_layer.*`), and everything else is MelConv's: dropping those tensors leaves a
    `mel-conv` model. A single utterance gives what transformers' `Phi4MultimodalAudioModel` and its speech projection give; in a batch
    utterances do not see each other nor padding, which transformers 5 lets shorter ones attend to (its mask adds 1 where it should forbid), and
    beyond BLOCK_PATCHES a last stretch that is not full.
    Raises ConfigError where `heads` does not divide `hidden`.
    """

    encoder_free = False

    def __init__(
        self,
        width: int,
        n_mels: int,
        *,
        stride: int = 8,
        channels: int = 1024,
        hidden: int = 1024,
        norm: str = "global",
        blocks: int = 24,
        heads: int = 16,
        ffn: int = 1536,
        kernel: int = 3,
        max_distance: int = 1000,
        dropout: float = 0.0,
    ) -> None:
        super().__init__(width, n_mels, stride=stride, channels=channels, hidden=hidden, norm=norm)
        if hidden % heads:
            raise ConfigError(f"model.speech_input.heads: {heads} does not divide hidden {hidden}")
        config = Phi4MultimodalAudioConfig(
            hidden_size=hidden,
            intermediate_size=ffn,
            num_blocks=blocks,
            num_attention_heads=heads,
            dropout_rate=dropout,
            ext_pw_out_channel=hidden,
            depthwise_separable_out_channel=hidden,
            kernel_size=kernel,
            bias_max_distance=max_distance,
        )
        config._attn_implementation = "sdpa"
        self.encoders = nn.ModuleList(Phi4MultimodalAudioConformerEncoderLayer(config) for _ in range(blocks))
        self.relative_attention_bias_layer = Phi4MultimodalAudioRelativeAttentionBias(config)
        nn.init.normal_(self.relative_attention_bias_layer.bias_values.weight, std=config.initializer_range)
        self.gradient_checkpointing = False

    def encode(self, x_PH: Tensor, patches_U: Tensor) -> Tensor:
        stretches = [min(BLOCK_PATCHES, n - at) for n in patches_U.tolist() for at in range(0, n, BLOCK_PATCHES)]
        return torch.cat(in_groups(x_PH, stretches, self._blocks)) if stretches else x_PH

    def _blocks(self, x_BLH: Tensor, lengths_B: Tensor) -> list[Tensor]:
        """All blocks over padded stretches. Positions look everywhere in their own; the convolutions inside look back only."""
        forbidden_BL = ~valid(lengths_B, x_BLH.shape[1])
        bias_1NLL = self.relative_attention_bias_layer(x_BLH)
        mask = bias_1NLL.masked_fill(forbidden_BL[:, None, None], torch.finfo(bias_1NLL.dtype).min) if forbidden_BL.any() else bias_1NLL
        for block in self.encoders:
            if self.gradient_checkpointing and self.training:
                x_BLH = checkpoint(block, x_BLH, mask, use_reentrant=False)
            else:
                x_BLH = block(x_BLH, mask)
        return [x[:n] for x, n in zip(x_BLH, lengths_B.tolist(), strict=True)]
