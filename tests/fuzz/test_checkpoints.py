"""Folders of models whose configurations, tokenizers and weights were tampered with."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import strategies as st

from melcli.audio import vocoder_files
from melcli.models import causal_lm, checkpoint, unified_encoder
from melcli.models.peers.families import family_of
from melcli.registry import get
from tests.fuzz.confined import fuzz
from tests.fuzz.damage import damaged, dumps, upset, values
from tests.models.conftest import make_model
from tests.models.unified_makers import save_encoder
from tests.training.llm_makers import qwen3

SIZES = (0, -1, 1, 3, 1000, 10**6, 10**9, 2**31, 2**63, 10**30, 0.5, "8", None, [8], True)


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("model") / "model"
    checkpoint.save(folder, *make_model())
    return folder


def changed(valid: Path, name: str) -> Any:
    """A reader of the folder with one file written anew."""

    def write(folder: Path, data: bytes) -> Path:
        for path in valid.iterdir():
            if path.name != name:
                (folder / path.name).symlink_to(path)
        (folder / name).write_bytes(data)
        return folder

    return write


def files(path: Path) -> st.SearchStrategy[bytes]:
    """What may become of a JSON file."""
    whole = json.loads(path.read_bytes())
    return st.one_of(
        upset(st.just(whole)).map(dumps),
        upset(st.just(whole), most=1).map(dumps),
        damaged(st.just(path.read_bytes())),
        values().map(dumps),
        st.just(b"[" * 100_000),
    )


def sized(path: Path, *inside: str) -> st.SearchStrategy[bytes]:
    """A configuration with one number, at the top or in a part, at an extreme."""
    whole = json.loads(path.read_bytes())
    places = [(part, key) for part in (None, *inside) for key, value in (whole[part] if part else whole).items() if isinstance(value, int | float)]

    def put(at: tuple[str | None, str], value: Any) -> bytes:
        new = json.loads(path.read_bytes())
        (new[at[0]] if at[0] else new)[at[1]] = value
        return dumps(new)

    return st.builds(put, st.sampled_from(places), st.sampled_from(SIZES))


def load(folder: Path) -> None:
    checkpoint.load(str(folder))


def test_configurations(model: Path) -> None:
    write = changed(model, "config.json")
    fuzz(files(model / "config.json"), lambda folder, data: load(write(folder, data)), examples=20)


def test_sizes_at_their_extremes(model: Path) -> None:
    write = changed(model, "config.json")
    fuzz(sized(model / "config.json", "text_config", "speech_input", "mel"), lambda folder, data: load(write(folder, data)), examples=12)


def test_other_settings(model: Path) -> None:
    for name in ("processor_config.json", "generation_config.json"):
        write = changed(model, name)
        fuzz(files(model / name), lambda folder, data, write=write: load(write(folder, data)), examples=12)


def test_tokenizers(model: Path) -> None:
    def read(folder: Path, data: bytes) -> None:
        write(folder, data)
        tokenizer = causal_lm.read_tokenizer(folder)
        checkpoint.check_pair(folder, config, tokenizer)
        tokenizer.decode(tokenizer("one two")["input_ids"])

    config = checkpoint.load_config(model)
    for name in ("tokenizer.json", "tokenizer_config.json"):
        write = changed(model, name)
        fuzz(files(model / name), read, examples=20)


def test_language_models(tmp_path: Path) -> None:
    folder = qwen3(tmp_path / "llm")
    write = changed(folder, "config.json")

    def read(place: Path, data: bytes) -> None:
        write(place, data)
        causal_lm.check(place, checkpoint.read_config(place))
        causal_lm.read_llm(place, causal_lm.Patterns([], "model.fresh"), causal_lm.Patterns([], "model.drop"))

    fuzz(st.one_of(files(folder / "config.json"), sized(folder / "config.json")), read, examples=20)


def test_encoders_and_vocoders(tmp_path: Path) -> None:
    encoder = save_encoder(tmp_path / "encoder")
    vocoder = (
        Path(get("vocoder", "tiny-vocoder").load().folder()) if False else Path(vocoder_files.__file__).parent.parent / "assets" / "tiny-vocoder"
    )
    for folder, read in ((encoder, unified_encoder.load), (vocoder, _vocoder)):
        write = changed(folder, "config.json")
        fuzz(
            st.one_of(files(folder / "config.json"), sized(folder / "config.json")),
            lambda place, data, read=read, write=write: read(write(place, data)),
            examples=40,
        )


def _vocoder(folder: Path) -> None:
    from melcli.audio.mel_spec import preset
    from melcli.audio.vocoder import load_vocoder

    load_vocoder(str(folder), preset("phi4mm"), device="cpu", offline=True)


def test_what_kind_of_model(model: Path) -> None:
    def read(folder: Path, data: bytes) -> None:
        (folder / "config.json").write_bytes(data)
        fields = checkpoint.read_config(folder)
        vocoder_files.family_of(str(folder), True)
        family_of(str(folder), fields.get("model_type"))

    fuzz(st.one_of(files(model / "config.json"), values().map(dumps)), read, examples=15)


def test_yaml_of_vocoders() -> None:
    laughs = "a0: &a0 [x]\n" + "".join(f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 9)}]\n" for i in range(1, 30))
    texts = st.one_of(
        st.just(laughs),
        st.just("- " * 20_000),
        st.binary(max_size=60),
        st.sampled_from(("!!int ''", "!!bool x", "!!python/object/apply:os.system [ls]", "? [a]\n: b", "&a [*a]")).map(str),
    )

    def read(folder: Path, data: str | bytes) -> None:
        (folder / "config.yaml").write_bytes(data.encode() if isinstance(data, str) else data)
        vocoder_files.settings(folder, "config.yaml")

    fuzz(texts, read)
