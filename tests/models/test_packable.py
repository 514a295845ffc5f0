"""Language models whose layers look back only so far, attend in ways of their own or are no attention at all."""

from __future__ import annotations

import pytest
import torch

from melcli.errors import ConfigError
from melcli.models.config import SpeechLMConfig
from melcli.models.packable import check_packable
from melcli.models.speech_lm import SpeechLM

SIZES = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "num_key_value_heads": 1, "intermediate_size": 64, "vocab_size": 90}
EXPERTS = {"num_local_experts": 4, "num_experts_per_tok": 2, "head_dim": 16}
BOTH = ["sliding_attention", "full_attention"]


def model_of(kind: str, **more) -> SpeechLM:
    fields = SIZES | {"model_type": kind, "pad_token_id": 0, "eos_token_id": 1, "bos_token_id": None, "initializer_range": 0.2} | more
    torch.manual_seed(3)
    return SpeechLM(SpeechLMConfig(text_config=fields, speech_input={"kind": "mel-patch"}, speech_token_id=2)).eval()


@pytest.mark.parametrize(
    ("kind", "more"),
    [
        ("mistral", {"sliding_window": 6}),
        ("phi3", {"sliding_window": 6}),
        ("gemma2", {"sliding_window": 6, "layer_types": BOTH, "head_dim": 16, "attn_logit_softcapping": 2.0}),
        ("gemma3_text", {"sliding_window": 6, "layer_types": BOTH, "head_dim": 16}),
        ("qwen2", {"sliding_window": 6, "use_sliding_window": False}),
        ("gpt_oss", {"sliding_window": 6, "layer_types": BOTH, **EXPERTS}),  # no fused attention
        ("gptj", {"rotary_dim": 8}),
    ],
)
def test_documents_of_a_row_are_read_as_the_familys_own_class_reads_each(kind, more):
    model = model_of(kind, **more)
    one, two = torch.randint(3, 90, (2, 20))
    with torch.no_grad():
        alone = torch.cat([model.llm(input_ids=ids[None]).logits for ids in (one, two)], 1)
        documents = torch.tensor([[1] * 20 + [2] * 20])
        packed = model(input_ids=torch.cat([one, two])[None], documents=documents, position_ids=torch.arange(20).repeat(2)[None]).logits
    torch.testing.assert_close(packed, alone, rtol=1e-4, atol=1e-4)
    check_packable(model, "it")


@pytest.mark.parametrize(
    ("kind", "more", "said"),
    [
        ("lfm2", {"layer_types": ["conv", "full_attention"]}, "a lfm2 model mixes up the utterances of a packed row"),
        ("bloom", {}, "a bloom model cannot read several utterances in a row"),
        ("rwkv", {"attention_hidden_size": 32}, "a rwkv model cannot read several utterances in a row"),
    ],
)
def test_families_that_mix_up_the_documents_of_a_row_are_refused(kind, more, said):
    with pytest.raises(ConfigError, match=f"^model.init x: {said}"):
        check_packable(model_of(kind, **more), "model.init x")
