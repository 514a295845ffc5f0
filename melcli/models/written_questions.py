"""Questions put in writing to a model that answers spoken ones: what it knows, apart from how well it hears.

Shapes: S samples, F frames of all questions, M mel bins, L tokens.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from melcli.data.tasks import ANSWER
from melcli.models.decoding.generate import decode
from melcli.models.decoding.recognise import BATCH_TOKENS, by_length, token_limit
from melcli.models.decoding.rows import spread_of
from melcli.models.processor import SpeechLMProcessor
from melcli.models.speech_lm import SpeechLM

ANSWER_SECONDS = 10.0  # of speech that an answer's text may be worth


def answer_written(
    model: SpeechLM, processor: SpeechLMProcessor, questions: Sequence[str], waves: Sequence[Tensor] | None = None
) -> list[tuple[str, str]]:
    """(answer, why it ended) of each question, greedily: the model goes on where it would have written the question itself.

    waves: wave_S of the recordings, to be heard before the question is read; None where nothing is heard at all.
    """
    encoder = processor.encoder("answer")
    between = processor.tokenizer(ANSWER, add_special_tokens=False)["input_ids"]
    features = None if waves is None else processor.features(list(waves))
    patches = [0] * len(questions) if features is None else [processor.patches(len(f)) for f in features]
    texts = processor.tokenizer([question.strip() for question in questions], add_special_tokens=False, split_special_tokens=True)["input_ids"]
    written = [[*text, *between] for text in texts]
    asks = [encoder.asked(count, own) for count, own in zip(patches, written, strict=True)]
    prompts = [ask.input_ids for ask in asks]
    found: dict[int, tuple[str, str]] = {}
    for batch in by_length([len(prompt) for prompt in prompts], BATCH_TOKENS):
        heard = None if features is None else [features[i] for i in batch]
        speech = None if heard is None else torch.cat(heard).to(model.device)
        lengths = None if heard is None else torch.tensor([len(f) for f in heard], device=model.device)
        limit = token_limit(ANSWER_SECONDS, processor.tokens_per_second)
        spread = spread_of(encoder, [asks[i] for i in batch], [len(written[i]) for i in batch])
        hypotheses = decode(model, [prompts[i] for i in batch], speech, lengths, [limit] * len(batch), spread=spread)
        found |= {i: (processor.text(h.tokens), h.finish_reason) for i, h in zip(batch, hypotheses, strict=True)}
    return [found[i] for i in range(len(questions))]
