"""Whether a language model can be trained on packed rows: tried, since no list of families would be complete."""

from __future__ import annotations

import torch

from melcli.errors import ConfigError, first_line
from melcli.models.speech_lm import SpeechLM

TOKENS = (8, 12)  # of two documents
TOLERANCE = 0.01  # of the logits' norm: what rounding may change, and what leaks between documents exceeds many times over


@torch.no_grad()
def check_packable(model: SpeechLM, name: str) -> None:
    """Read two documents in one row, and the second one alone with the language model's own class: logits must be the same.

    Recurrent layers and convolutions run on from one document into the next whatever the mask says, and some families take no mask but their
    own. name: of what the language model is, for the error. Raises ConfigError.
    """
    first, second = TOKENS
    known = [i for i in range(model.config.text_config.vocab_size) if i != model.config.speech_token_id]
    ids_BL = torch.tensor([(known * sum(TOKENS))[: sum(TOKENS)]], device=model.device)
    documents_BL = torch.tensor([[1] * first + [2] * second], device=model.device)
    position_ids = torch.tensor([[*range(first), *range(second)]], device=model.device)
    training = model.training
    model.eval()
    kind = model.config.text_config.model_type
    try:
        alone = model.llm(input_ids=ids_BL[:, first:], use_cache=False).logits
        packed = model(input_ids=ids_BL, documents=documents_BL, position_ids=position_ids).logits[:, first:]
    except Exception as error:  # each family fails in its own way
        raise ConfigError(
            f"{name}: a {kind} model cannot read several utterances in a row ({first_line(error)}); take one of another family"
        ) from None
    model.train(training)
    if not float((packed - alone).norm()) <= TOLERANCE * float(alone.norm()):
        why = "as recurrent layers and convolutions do: take a family of attention alone"
        raise ConfigError(f"{name}: a {kind} model mixes up the utterances of a packed row, {why}")
