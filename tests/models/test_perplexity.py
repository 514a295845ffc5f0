"""Log-perplexity of texts under a tiny language model, against the model itself, a text at a time."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from melcli.errors import CheckpointError
from melcli.models.perplexity import LanguageModel
from tests.training import llm_makers

TEXTS = ["low mid high", "", "Once upon a time there was a tone.", "x"]


@pytest.mark.parametrize("family", ["llama", "smollm2"])
def test_it_is_the_models_own(tmp_path: Path, family: str) -> None:
    folder = getattr(llm_makers, family)(tmp_path / family)
    judge, about = LanguageModel.load(str(folder), device="cpu")
    model, tokenizer = AutoModelForCausalLM.from_pretrained(folder).eval(), AutoTokenizer.from_pretrained(folder)
    begin = tokenizer.bos_token_id if tokenizer.bos_token_id is not None else tokenizer.eos_token_id
    found = judge.nats(TEXTS)
    assert found[1] == (0.0, 0) and "M parameters" in about and judge.begins == begin
    for text, (loss, tokens) in zip(TEXTS, found, strict=True):
        ids = tokenizer(text, add_special_tokens=False)["input_ids"]
        assert tokens == len(ids)
        if ids:
            with torch.inference_mode():
                logits = model(torch.tensor([[begin, *ids]])).logits[0, :-1].log_softmax(-1)
            assert loss == pytest.approx(-float(logits[range(len(ids)), ids].sum()), rel=1e-4)


def test_without_a_token_to_begin_with_the_first_is_only_read(tmp_path: Path) -> None:
    judge, _ = LanguageModel.load(str(llm_makers.llama(tmp_path / "llama")), device="cpu")
    whole = judge.nats(TEXTS)
    judge.begins = None
    assert [tokens for _, tokens in judge.nats(TEXTS)] == [max(0, tokens - 1) for _, tokens in whole]


def test_what_is_no_language_model(tmp_path: Path) -> None:
    (tmp_path / "ours").mkdir()
    (tmp_path / "ours" / "config.json").write_text('{"model_type": "speech_lm"}')
    for name, expected in (("nobody", "--lm nobody: no such folder"), (str(tmp_path / "ours"), "texts are judged by another")):
        with pytest.raises(CheckpointError, match=expected):
            LanguageModel.load(name, device="cpu")
