"""Hotwords: what is favoured after which tokens, what is taken back, and what real decoding makes of it."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from melcli import registry
from melcli.audio import io
from melcli.errors import UsageError
from melcli.models import chat
from melcli.models.decoding.beam import Beam
from melcli.models.decoding.generate import ByCtc
from melcli.models.decoding.hotwords import Hotwords, token_ids
from melcli.models.hints import Hints
from melcli.models.speech_lm_recogniser import SpeechLMRecogniser
from melcli.models.sphinx import Sphinx
from melcli.transcribe import Transcriber

CLIP = Path(registry.__file__).parent / "assets" / "clips" / "garden-rms.wav"


class Letters:
    """A tokenizer with a token a letter; 0 for what it does not know."""

    unk_token_id = 0

    def __call__(self, text: str, **_: object) -> dict[str, list[int]]:
        return {"input_ids": [" abcdefghijklmnopqrstuvwxyz".find(c) + 1 for c in text]}


def favoured(hotwords: Hotwords, text: str) -> dict[str, float]:
    scores = torch.zeros(1, 28)
    hotwords.favour(scores, [Letters()(text)["input_ids"]])
    return {"_ abcdefghijklmnopqrstuvwxyz"[i]: float(s) for i, s in enumerate(scores[0]) if s != 0}


def test_bonuses() -> None:
    hotwords = Hotwords(Letters(), ["cat", "cart"], bonus=1.0)
    assert favoured(hotwords, "") == {"c": 1.0}
    assert favoured(hotwords, "a") == {" ": 1.0}
    taken = favoured(hotwords, "a ca")
    assert taken["t"] == taken["r"] == 1.0 and taken["x"] == taken["_"] == -3.0 and taken[" "] == -2.0
    assert favoured(hotwords, "bca") == {" ": 1.0}  # a hotword begins where a word begins


def test_what_is_whole_is_kept() -> None:
    hotwords = Hotwords(Letters(), ["cat", "cats"], bonus=1.0)
    assert favoured(hotwords, "a cat") == {"s": 1.0, " ": 1.0}
    assert favoured(hotwords, "a cats") == {" ": 1.0}


def test_a_text_that_says_a_hotword_gains_its_bonus_and_no_other_gains_any() -> None:
    hotwords = Hotwords(Letters(), ["cat"], bonus=1.0)
    for text, gain in (("a cat sat", 4.0), ("a car sat", 0.0), ("cat", 3.0), ("ca", 0.0), ("a cacat", 0.0)):
        ids, total = [*Letters()(text)["input_ids"], 27], 0.0  # z in place of a stop token
        for at, token in enumerate(ids):
            scores = torch.zeros(1, 28)
            hotwords.favour(scores, [ids[:at]])
            total += float(scores[0, token])
        assert total == pytest.approx(gain), text


def test_words_that_cannot_be_written() -> None:
    assert token_ids(Letters(), "Cat", True) == token_ids(Letters(), "cat", True)
    with pytest.raises(UsageError, match="cannot write '猫'"):
        token_ids(Letters(), "猫", True)


@pytest.fixture(scope="module")
def recogniser() -> SpeechLMRecogniser:
    return Transcriber.load("tiny-en", device="cpu", dtype="float32", beam=4).recogniser


def test_a_hotword_turns_up_and_leaves_the_rest(recogniser: SpeechLMRecogniser) -> None:
    """By the language model, where the hotword sounds like what was said; of the dictionary not where it does not."""
    wave_S = io.load(CLIP, 16000)
    for strategy in (Beam(), ByCtc()):
        heard = {}
        for word in ("", "garten", "elephant"):
            told = recogniser.hinted(Hints(hotwords=(word,) if word else ()))
            told.strategy = strategy
            (batch,) = told.recognise([wave_S])
            heard[word] = batch[0].text
        assert heard[""].endswith("the garden"), strategy
        if isinstance(strategy, Beam):
            assert heard["garten"] == heard[""].replace("garden", "garten")
        else:
            assert heard["elephant"] == heard[""]


def test_they_need_a_search() -> None:
    with pytest.raises(UsageError, match="--hotwords: a search that follows one hypothesis"):
        Transcriber.load("tiny-en", device="cpu", beam=1, hints=Hints(hotwords=("elephant",)))


def test_prompts_with_another_instruction() -> None:
    class Chat:
        all_special_tokens = ["<|user|>", "<|end|>", "<|assistant|>"]
        chat_template = None

        def get_added_vocab(self) -> dict[str, int]:
            return {}

    asked = chat.instructed("<|user|><|speech|>Transcribe the audio.<|end|><|assistant|>", Chat(), "Write it in capitals.", "m")
    assert asked == "<|user|><|speech|>Write it in capitals.<|end|><|assistant|>"
    Chat.all_special_tokens.append("<|transcribe|>")
    assert chat.instructed("<|speech|><|transcribe|>", Chat(), "Louder.", "m") is None


def test_where_they_do_nothing_they_are_refused() -> None:
    with pytest.raises(UsageError, match="--prompt: this model learnt the fixed prompt"):
        Transcriber.load("tiny-en", device="cpu", hints=Hints(prompt="Write it in capitals."))
    with pytest.raises(UsageError, match="--hotwords: pocketsphinx has"):
        Sphinx.load(hints=Hints(hotwords=("cat",)))
