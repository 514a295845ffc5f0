"""Tokenizers: the backbone's own, or a byte-pair vocabulary trained on the training text."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from melcli.models.config import PAD_TOKEN, SPEECH_TOKEN, STOP_TOKEN, UNKNOWN_TOKEN


def train_tokenizer(texts: Iterable[str], vocab_size: int, special: Sequence[str] = (), units: str = "pieces") -> Any:
    """A tokenizer of the texts; unknown characters become `<|unk|>`, and the special tokens are the first.

    units: `pieces` for byte-level byte pairs, `vocab_size` entries with an alphabet of what the text holds and not of all 256 bytes, since a small
    vocabulary has none to waste; `characters` for one entry each, of whatever script.
    """
    from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    specials = list(dict.fromkeys([PAD_TOKEN, UNKNOWN_TOKEN, STOP_TOKEN, SPEECH_TOKEN, *special]))
    if units == "characters":
        letters = sorted(set().union(*map(set, texts)))
        vocabulary = {entry: i for i, entry in enumerate([*specials, *letters])}
        tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token=UNKNOWN_TOKEN))
        tokenizer.add_special_tokens(specials)
        tokenizer.pre_tokenizer = pre_tokenizers.Split(Regex(r"[\s\S]"), "isolated")
        tokenizer.decoder = decoders.Fuse()
    else:
        tokenizer = Tokenizer(models.BPE(unk_token=UNKNOWN_TOKEN))
        tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=True)
        tokenizer.decoder = decoders.ByteLevel()
        trainer = trainers.BpeTrainer(vocab_size=vocab_size, special_tokens=specials, show_progress=False, min_frequency=2)
        tokenizer.train_from_iterator(texts, trainer)
    extra = {"additional_special_tokens": [token for token in specials if token not in (PAD_TOKEN, UNKNOWN_TOKEN, STOP_TOKEN)]}
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token=PAD_TOKEN,
        unk_token=UNKNOWN_TOKEN,
        eos_token=STOP_TOKEN,
        clean_up_tokenization_spaces=False,
        **extra,
    )
