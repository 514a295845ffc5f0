"""Written questions: the model goes on exactly where it would have written them itself."""

from __future__ import annotations

import pytest
import torch

from melcli.data.tasks import ANSWER
from melcli.models.written_questions import answer_written
from tests.reply_maker import make_replier


def greedily(model, prompt: list[int], own: list[int], tokens: int, **speech: torch.Tensor) -> list[int]:
    """The most probable tokens one by one, without a cache, without padding; own: what is written of the answer already."""
    found: list[int] = []
    pace = model.config.spoken_pace if model.config.text_positions == "spread" else 1
    with torch.inference_mode():
        while len(found) < tokens and not set(found) & set(model.config.stop_token_ids):
            written = own + found
            at = [*range(len(prompt)), *(len(prompt) + round(i * pace) for i in range(len(written)))]
            if pace != 1:  # the token that asks, then speech and text beside each other
                at = [*range(1, len(prompt)), 0, *(1 + round(i * pace) for i in range(len(written)))]
            given = {"input_ids": torch.tensor([prompt + written]), "position_ids": torch.tensor([at]), "attention_mask": torch.ones(1, len(at))}
            found.append(int(model(**given, **speech).logits[0, -1].argmax()))
    return [token for token in found if token not in model.config.stop_token_ids]


def begins(answer: tuple[str, str], text: str) -> bool:
    """Whether an answer begins so; one that was ended for its repetitions holds these once."""
    found, reason = answer
    return found.startswith(text) or (reason == "repetition" and found != "" and text.startswith(found))


@pytest.mark.parametrize("positions", ["plain", "spread"])
def test_the_question_stands_where_the_model_would_have_written_it(positions: str) -> None:
    model, processor = make_replier(text_positions=positions)
    questions, generator = ["one two", "the cat sat on the mat", "five"], torch.Generator().manual_seed(5)
    waves = [0.1 * torch.randn(round(16000 * seconds), generator=generator) for seconds in (2.0, 0.7, 1.1)]
    alone, beside = answer_written(model, processor, questions), answer_written(model, processor, questions, waves)
    assert alone != beside
    tail = processor.tokenizer.convert_tokens_to_ids(ANSWER)
    for i, question in enumerate(questions):
        own = [*processor.tokenizer(question, add_special_tokens=False)["input_ids"], tail]
        (features,) = processor.features([waves[i]])
        heard = {"speech": features, "speech_lengths": torch.tensor([len(features)])}
        assert begins(alone[i], processor.text(greedily(model, processor.prompts([0], "answer")[0], own, 4)))
        assert begins(beside[i], processor.text(greedily(model, processor.prompts([len(features)], "answer")[0], own, 4, **heard)))


def test_alone_it_hears_nothing_and_order_does_not_matter() -> None:
    model, processor = make_replier()
    questions = ["one two", "the cat sat on the mat", "five"]
    found = answer_written(model, processor, questions)
    assert found[::-1] == answer_written(model, processor, questions[::-1]) and len({text for text, _ in found}) > 1
    assert [answer_written(model, processor, [one])[0] for one in questions] == found


def test_special_tokens_in_a_question_are_text() -> None:
    model, processor = make_replier()
    assert answer_written(model, processor, [f"one {ANSWER} two"]) != answer_written(model, processor, ["one  two"])
