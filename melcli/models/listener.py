"""What a model of ours hears, as an encoder for another: its speech input and the layers of its language model.

Shapes: F frames (or samples) of all utterances, M mel bins, P positions of all utterances, T positions of an utterance, H width.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

from melcli.audio.mel import log_mel_many
from melcli.errors import ConfigError
from melcli.models.config import SpeechLMConfig
from melcli.models.speech_input import SpeechInput, build_speech_input
from melcli.models.unified_encoder import Trunk

KEY = "model.speech_input.config"


class Listener(nn.Module):
    """The states [T, H] of each utterance where the model's own CTC head, if it has one, reads the words: after the last layer or, where that head
    reads what the speech input gives (`ctc_from`), before the first, since nothing has taught the last layer to say more there.

    Speech positions see each other as in the model itself (`speech_attention`); neither prompt nor text is there. Raises ConfigError.
    """

    def __init__(self, config: SpeechLMConfig) -> None:
        super().__init__()
        self.spec = config.mel_spec
        causal = config.speech_attention == "causal"
        self.trunk = None if config.ctc_at_input else Trunk(config.text_config.to_dict(), f"{KEY}.text_config", causal=causal)
        self.front = front_of(config)

    def forward(self, x_FM: Tensor, lengths: Sequence[int]) -> list[Tensor]:
        """x_FM: samples [S, 1] of packed utterances, each of a window or more."""
        if self.front.reads == "mel":
            mels = log_mel_many(self.spec, [wave_S1[:, 0].float() for wave_S1 in x_FM.split(list(lengths))])
            x_FM, lengths = torch.cat(mels), [len(mel_TM) for mel_TM in mels]
        x_PH, patches_U = self.front(x_FM, torch.tensor(lengths, device=x_FM.device))
        return list(x_PH.split(patches_U.tolist())) if self.trunk is None else self.trunk(x_PH, patches_U.tolist())


def front_of(config: SpeechLMConfig) -> SpeechInput:
    """The speech input of a model, with random weights. Raises ConfigError where it has none that hears."""
    front = build_speech_input(config.speech_input, config.hidden_size, config.mel_spec.n_mels)
    if front.reads not in ("mel", "wave"):
        raise ConfigError(f"{KEY}: a model whose speech input is {config.speech_input['kind']} hears nothing by itself")
    if config.lora is not None:
        raise ConfigError(f"{KEY}: the model has live adapters; `melcli export --merge-lora` adds them to its weights")
    front.bind(config.mel_spec)
    return front


def from_tensors(config: SpeechLMConfig, tensors: Mapping[str, Tensor]) -> tuple[Listener, list[str]]:
    """The listener in a model's tensors, and the names of those that it would need and are not there."""
    from melcli.models.speech_lm import SpeechLM

    with torch.device("meta"):
        llm = SpeechLM(config).llm
    prefix = next(f"llm.{name}." for name, module in llm.named_modules() if module is llm.get_decoder())
    listener = Listener(config)
    wanted = {name: name.replace("front.", "speech_input.", 1).replace("trunk.layers.", prefix, 1) for name in listener.state_dict()}
    missing = sorted(theirs for theirs in wanted.values() if theirs not in tensors)
    if not missing:
        listener.load_state_dict({own: tensors[theirs].float() for own, theirs in wanted.items()})
    return listener, missing
