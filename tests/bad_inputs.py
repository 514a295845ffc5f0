"""docs/bad-input.md: bad inputs of every kind, given to the real commands, and what they print.

    python -m tests.bad_inputs        writes the page anew

tests/cli/test_bad_input_page.py runs the same and compares. A case is a line of CASES; the files that it names are made by the functions below.
"""

from __future__ import annotations

import contextlib
import gzip
import io
import json
import os
import shlex
import shutil
import struct
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import soundfile
import torch
from safetensors.torch import load_file, save_file

from melcli import cli, console, registry

PAGE = Path(__file__).parent.parent / "docs" / "bad-input.md"
CLIP = Path(registry.__file__).parent / "assets" / "clips" / "digits-slt.wav"
BOX = Path(registry.__file__).parent / "assets"

HEAD = """\
# Bad input, and what is said of it

Every line below was printed by the command beside it: `python -m tests.bad_inputs` makes this page, and a test compares it with what is printed now.
Exit code 1 means that an input failed and the others were done, 2 that the command or a configuration cannot be. `good.wav` is speech; whatever is
beside it in a command is done though something else fails.

What holds for all files, whoever made them:

- A reader gives data, or one line that says what is wrong and where. `tests/fuzz/` hands damaged and made-up files of every kind to the readers, with
  limits on memory and time.
- Nothing is unpickled, but for vocoders that exist as pickles alone, which torch's restricted reader reads (`weights_only`); no code that a model
  brings along is run.
- A header's claims take no memory: a kilobyte that claims hours, terabytes or a million layers is refused.
- Media files open no other files or addresses, as playlists would.
- An `id` of a manifest is a name below the output folder: `..`, `/` and drives are taken out of it, and two that would be one file are refused.
- Of a repository on the hub the revision that is used is printed; `OWNER/NAME@REVISION` asks for that one again.
"""


@dataclass(frozen=True)
class Case:
    """what: the input in words. command: as a user writes it. make: what makes the files that are not among FILES."""

    what: str
    command: str
    make: Callable[[], None] | None = None


# --- files ---------------------------------------------------------------------------------------------------------------------------------


def wav(rate: int = 16000, claimed: int | None = None, data: bytes = b"", form: int = 1, bits: int = 16, channels: int = 1) -> bytes:
    """A wav file whose header says what it is told to."""
    block = channels * bits // 8
    head = struct.pack("<HHIIHH", form, channels, rate, (rate * block) & 0xFFFFFFFF, block, bits)
    size = struct.pack("<I", len(data) if claimed is None else claimed)
    return b"RIFF" + struct.pack("<I", 36 + len(data)) + b"WAVEfmt " + struct.pack("<I", 16) + head + b"data" + size + data


def audio() -> dict[str, bytes]:
    """Recordings by name."""
    whole = CLIP.read_bytes()
    wave, rate = soundfile.read(CLIP, dtype="float32")
    flac = io.BytesIO()
    soundfile.write(flac, wave, rate, format="FLAC")
    floats = np.where(np.arange(len(wave)) == 500, np.nan, wave).astype("<f4").tobytes()
    loud = np.where(np.arange(len(wave)) == 500, 1e20, wave).astype("<f4").tobytes()
    return {
        "good.wav": whole,
        "empty.wav": b"",
        "cut.wav": whole[: len(whole) // 3],
        "cut.flac": flac.getvalue()[: len(flac.getvalue()) // 2],
        "no-samples.wav": wav(),
        "hours.wav": wav(claimed=0x7FFEFFFF, data=bytes(1000)),
        "rate.wav": wav(rate=2**31 - 1, data=bytes(1000)),
        "nan.wav": wav(data=floats, form=3, bits=32, rate=rate),
        "loud.wav": wav(data=loud, form=3, bits=32, rate=rate),
        "noise.wav": np.random.default_rng(1).bytes(4000),
        "text.wav": b"this is a letter, and no audio\n" * 9,
        "playlist.m4a": b"ffconcat version 1.0\nfile good.wav\n#\x01\x02\n",
        "page.mp3": b"<html><body>404 not found</body></html>",
        "silent.wav": wav(data=bytes(64000)),
        "short.wav": wav(data=wave_bytes(wave[12000:12800])),
        "second.wav": wav(data=wave_bytes(wave[:16000]), rate=rate),
    }


def wave_bytes(wave: np.ndarray) -> bytes:
    return (wave * 32767).astype("<i2").tobytes()


def rows(*found: object) -> bytes:
    return "".join((row if isinstance(row, str) else json.dumps(row)) + "\n" for row in found).encode()


GOOD = {"audio": "good.wav", "text": "one two"}
RECIPE = """\
name: small
data: {train: [{source: good.jsonl}]}
model:
  backbone: {model_type: llama, hidden_size: 32, num_hidden_layers: 1, num_attention_heads: 2, num_key_value_heads: 2, intermediate_size: 32}
train: {steps: 1}
"""


def manifests() -> dict[str, bytes]:
    """Manifests, result files, lists of texts and vectors by name."""
    hyp = {"audio_filepath": "a", "text": "one two", "pred_text": "one"}
    objects, width = io.BytesIO(), io.BytesIO()
    np.save(objects, np.array([{"a": 1}, {}], dtype=object), allow_pickle=True)
    np.save(width, np.ones((2, 3, 7), np.float32))
    return {
        "good.jsonl": rows(GOOD, {**GOOD, "id": "two"}),
        "broken.jsonl": rows(GOOD, '{"audio": "good.wav"'),
        "array.jsonl": b"[" + json.dumps(GOOD).encode() + b"]\n",
        "deep.jsonl": rows('{"audio": ' + "[" * 100_000),
        "digits.jsonl": rows({**GOOD, "duration": "long"}),
        "times.jsonl": rows({**GOOD, "start": 3, "end": 2}),
        "no-audio.jsonl": rows({"text": "one"}),
        "empty.jsonl": b"\n",
        "binary.jsonl": bytes(range(128, 256)),
        "bad.jsonl": rows(*[{"audio": f"{name}.wav", "text": "one"} for name in ("good", "empty", "cut", "silent", "nan", "short", "text")]),
        "gone.jsonl": rows(GOOD, {"audio": "gone.wav", "text": "x"}),
        "bomb.jsonl.gz": gzip.compress((json.dumps(GOOD)[:-1] + " " * 15_000_000 + "}\n").encode() * 5),
        "long.jsonl.gz": gzip.compress(b'{"audio": "' + b"x" * 16_000_001),
        "cut.jsonl.gz": gzip.compress(rows(*[{**GOOD, "id": str(i)} for i in range(50)]))[:60],
        "outside.jsonl": rows({**GOOD, "id": "../../outside"}, {**GOOD, "id": "/outside"}, {**GOOD, "id": "..\\outside"}),
        "null.jsonl": rows({**GOOD, "id": "a\0b"}),
        "very-long.jsonl": rows({**GOOD, "id": "x" * 300}),
        "cut.json": rows({"type": "MonoCut", "id": "k", "start": "now", "recording": {"sources": [{"type": "file", "source": "good.wav"}]}}),
        "command/wav.scp": b"a cat good.wav |\n",
        "notes/readme.txt": b"no audio here\n",
        "no-hyp.jsonl": rows({"text": "one"}),
        "twice.jsonl": rows(hyp, hyp),
        "hyp.jsonl": rows(hyp),
        "other-hyp.jsonl": rows({**hyp, "audio_filepath": "b"}),
        "number.jsonl": rows({"text": 5}),
        "no-text.jsonl": rows({"id": "a"}),
        "over.jsonl": rows({"text": "one", "id": "a"}, {"text": "two", "id": "../a"}),
        "latin.txt": "für Elise".encode("latin-1"),
        "width.npy": width.getvalue(),
        "objects.npy": objects.getvalue(),
        "lexicon.txt": b"hello\tHH AH0\n",
        "small.yaml": RECIPE.encode(),
        "typo.yaml": RECIPE.replace("steps", "stepps").encode(),
        "twice.yaml": (RECIPE + "name: again\n").encode(),
        "tabs.yaml": b"name: x\n\tdata: {}\n",
        "laughs.yaml": ("a0: &a0 [x]\n" + "".join(f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 9)}]\n" for i in range(1, 12))).encode(),
        "deep.yaml": b"name: " + b"[" * 20_000,
        "object.yaml": b"name: !!python/object/apply:os.system [ls]\n",
        "itself.yaml": b"extends: itself.yaml\n",
        "none.yaml": RECIPE.replace("num_hidden_layers: 1", "num_hidden_layers: 0").encode(),
        "million.yaml": RECIPE.replace("num_hidden_layers: 1", "num_hidden_layers: 1000000").encode(),
        "corpus.yaml": RECIPE.replace("good.jsonl", "librispeach").encode(),
    }


def models() -> None:
    """Folders of models: whole ones, and those that are broken."""
    from tests.models.conftest import make_model
    from tests.models.unified_makers import save_encoder
    from tests.reply_maker import save_replier
    from tests.training.llm_makers import qwen3

    save_replier(Path("answerer"))
    save_replier(Path("mute"), speaks=False)
    qwen3(Path("llm"))
    encoder = save_encoder(Path("encoder"))
    from melcli.models import checkpoint

    checkpoint.save(Path("stored"), *make_model(speech_input={"kind": "unified", "size": 16, "vectors": 3, "tokens": 3}, ctc_weight=0.0))
    shutil.copytree(encoder, "text-only")
    tensors = load_file("text-only/model.safetensors")
    save_file({name: t for name, t in tensors.items() if not name.startswith(("front.", "trunk.", "pool."))}, "text-only/model.safetensors")
    for name, change in BROKEN.items():
        shutil.copytree("llm" if name.startswith("llm-") else BOX / "tiny-en", name)
        change(Path(name))


def _config(**fields: object) -> Callable[[Path], None]:
    def change(folder: Path) -> None:
        path = folder / "config.json"
        path.write_text(json.dumps(json.loads(path.read_text()) | fields))

    return change


def _cut(folder: Path) -> None:
    whole = (folder / "model.safetensors").read_bytes()
    (folder / "model.safetensors").write_bytes(whole[: len(whole) // 2])


def _terabytes(folder: Path) -> None:
    header = json.dumps({"w": {"dtype": "F32", "shape": [1 << 40], "data_offsets": [0, 1 << 42]}}).encode()
    (folder / "model.safetensors").write_bytes(struct.pack("<Q", len(header)) + header)


def _pickle(folder: Path) -> None:
    torch.save({"w": torch.ones(2)}, folder / "pytorch_model.bin")
    (folder / "model.safetensors").unlink()


def _outside(folder: Path) -> None:
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": {"w": "../answerer/model.safetensors"}}))


def _eight_bits(folder: Path) -> None:
    tensors = load_file(folder / "model.safetensors")
    tensors["model.layers.0.mlp.up_proj.weight"] = tensors["model.layers.0.mlp.up_proj.weight"].to(torch.float8_e4m3fn)
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})


def _tokenizer(folder: Path) -> None:
    (folder / "tokenizer.json").write_text('{"version": "1.0"')


def _nan(folder: Path) -> None:
    tensors = load_file(folder / "model.safetensors")
    name = sorted(tensors)[0]
    tensors[name] = torch.full_like(tensors[name], float("nan"))
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})


BROKEN: dict[str, Callable[[Path], None]] = {
    "no-config": lambda folder: (folder / "config.json").unlink(),
    "bad-config": lambda folder: (folder / "config.json").write_text("{"),
    "foreign": _config(model_type="their_own", auto_map={"AutoModel": "theirs.py"}),
    "million-layers": lambda folder: _deeper(folder),
    "cut-weights": _cut,
    "terabytes": _terabytes,
    "pickle": _pickle,
    "outside": _outside,
    "nan-weights": _nan,
    "bad-tokenizer": _tokenizer,
    "llm-fp8": _eight_bits,
    "llm-code": _config(model_type="their_own", auto_map={"AutoModelForCausalLM": "theirs.py"}),
    "llm-none": _config(num_hidden_layers=0),
}


def _deeper(folder: Path) -> None:
    path = folder / "config.json"
    fields = json.loads(path.read_text())
    fields["text_config"]["num_hidden_layers"] = 1_000_000
    path.write_text(json.dumps(fields))


def shards() -> None:
    """Features of good.jsonl, whole and broken."""
    _run("melcli featurize good.jsonl -o features -q --jobs 1")
    for name in ("cut-shard", "other-shard", "no-summary"):
        shutil.copytree("features", name)
    shard = Path("cut-shard/shard-00000.safetensors")
    shard.write_bytes(shard.read_bytes()[:-100])
    summary = Path("other-shard/features.json")
    summary.write_text(summary.read_text().replace("shard-00000.safetensors", "../features/shard-00000.safetensors"))
    Path("no-summary/features.json").unlink()


def desk() -> None:
    """Everything into the folder one is in."""
    for name, data in {**audio(), **manifests()}.items():
        Path(name).parent.mkdir(parents=True, exist_ok=True)
        Path(name).write_bytes(data)
    Path("a-file").write_text("x")
    Path("full").mkdir()
    Path("full/thesis.tex").write_text("x")
    models()
    shards()


# --- cases ---------------------------------------------------------------------------------------------------------------------------------

TRAIN = "melcli train {} --dry-run -o run"
BEGIN = "melcli finetune small.yaml --from {} model.backbone=null --dry-run -o run"
HEARD = {
    "a file of no bytes": "empty.wav",
    "a wav that ends too soon": "cut.wav",
    "a flac that ends too soon": "cut.flac",
    "a header without samples": "no-samples.wav",
    "one kilobyte that claims eighteen hours": "hours.wav",
    "a header that claims 2 GHz": "rate.wav",
    "samples that are not numbers": "nan.wav",
    "samples far beyond full scale": "loud.wav",
    "random bytes": "noise.wav",
    "a text": "text.wav",
    "a web page": "page.mp3",
    "a playlist of other files": "playlist.m4a",
    "a device": "/dev/zero",
    "a folder without audio": "notes",
    "a file that is not there": "gone.wav",
    "a name with an escape sequence": "a\x1b[2Jb.wav",
}
SECTIONS: dict[str, list[Case]] = {
    "transcribe: recordings": [Case(what, f"melcli transcribe good.wav {shlex.quote(name)}") for what, name in HEARD.items()]
    + [
        Case("silence", "melcli transcribe silent.wav -f json"),
        Case("a twentieth of a second", "melcli transcribe short.wav -f json"),
    ],
    "transcribe: manifests and places": [
        Case("a manifest with a line that is no JSON", "melcli transcribe broken.jsonl"),
        Case("an array where lines belong", "melcli transcribe array.jsonl"),
        Case("brackets a hundred thousand deep", "melcli transcribe deep.jsonl"),
        Case("a duration in words", "melcli transcribe digits.jsonl"),
        Case("an end before its start", "melcli transcribe times.jsonl"),
        Case("a row without audio", "melcli transcribe no-audio.jsonl"),
        Case("a manifest without rows", "melcli transcribe empty.jsonl"),
        Case("a manifest that is no text", "melcli transcribe binary.jsonl"),
        Case("75 MB of spaces in 73 kB", "melcli transcribe bomb.jsonl.gz"),
        Case("a line of 16 MB", "melcli transcribe long.jsonl.gz"),
        Case("a gzip that ends too soon", "melcli transcribe cut.jsonl.gz"),
        Case("a lhotse cut that starts `now`", "melcli transcribe cut.json"),
        Case("a Kaldi folder with a command in it", "melcli transcribe command"),
        Case("a row whose file is not there", "melcli transcribe gone.jsonl"),
        Case("ids that lead out of the folder, and become one name", "melcli transcribe outside.jsonl -o out"),
        Case("an id with a null character", "melcli transcribe null.jsonl -o out"),
        Case("an id of 300 characters", "melcli transcribe very-long.jsonl -o out"),
        Case("an output folder that is a file", "melcli transcribe good.wav -o a-file"),
        Case("nothing that is there", "melcli transcribe '*.flacc'"),
    ],
    "transcribe and score: models": [
        Case("a name that nobody registered", "melcli transcribe good.wav --model tiny-eng"),
        Case("a folder without config.json", "melcli transcribe good.wav --model no-config"),
        Case("a config.json that is no JSON", "melcli transcribe good.wav --model bad-config"),
        Case("a model that brings code along", "melcli transcribe good.wav --model foreign"),
        Case("a million layers", "melcli transcribe good.wav --model million-layers"),
        Case("weights that end too soon", "melcli transcribe good.wav --model cut-weights"),
        Case("a header that claims four terabytes", "melcli transcribe good.wav --model terabytes"),
        Case("a pickle", "melcli transcribe good.wav --model pickle"),
        Case("an index that leads out of the folder", "melcli transcribe good.wav --model outside"),
        Case("weights that are not numbers", "melcli transcribe good.wav --model nan-weights"),
        Case("a tokenizer that ends too soon", "melcli transcribe good.wav --model bad-tokenizer"),
    ],
    "featurize": [
        Case("a corpus that nobody knows", "melcli featurize librispeach -o out"),
        Case("a mel that nobody knows", "melcli featurize good.jsonl -o out --mel phi5"),
        Case("a row whose file is not there", "melcli featurize gone.jsonl -o out --jobs 1"),
        Case("rows of files that are empty, cut, silent, not numbers, short, no audio", "melcli featurize bad.jsonl -o features-of-bad --jobs 1"),
        Case("features where audio belongs", "melcli featurize features -o out"),
        Case("a folder that holds other features", "melcli featurize good.jsonl -o features --mel whisper-80 --jobs 1"),
    ],
    "train": [
        Case("a recipe that is not there", TRAIN.format("gone.yaml")),
        Case("a key that is misspelt", TRAIN.format("typo.yaml")),
        Case("a setting that is misspelt", TRAIN.format("small.yaml train.stepps=3")),
        Case("a key that is given twice", TRAIN.format("twice.yaml")),
        Case("a tab where YAML takes none", TRAIN.format("tabs.yaml")),
        Case("aliases of aliases, thirty thousand million values in all", TRAIN.format("laughs.yaml")),
        Case("twenty thousand brackets", TRAIN.format("deep.yaml")),
        Case("an object of Python's", TRAIN.format("object.yaml")),
        Case("a recipe that extends itself", TRAIN.format("itself.yaml")),
        Case("no layers", TRAIN.format("none.yaml")),
        Case("a million layers", TRAIN.format("million.yaml")),
        Case("a corpus that nobody knows", TRAIN.format("corpus.yaml")),
        Case("a value out of range", TRAIN.format("small.yaml train.lr=-1")),
        Case("features cut short", TRAIN.format("small.yaml 'data.train=[{source: cut-shard}]'")),
        Case("features whose list leads elsewhere", TRAIN.format("small.yaml 'data.train=[{source: other-shard}]'")),
        Case("features of another mel", TRAIN.format("small.yaml data.mel=whisper-80 'data.train=[{source: features}]'")),
        Case("features that were not finished", TRAIN.format("small.yaml 'data.train=[{source: no-summary}]'")),
        Case("a dictionary with capitals", TRAIN.format("small.yaml model.lexicon.from=lexicon.txt data.task=tts model.speech_output.kind=vae")),
    ],
    "finetune": [
        Case("a model that is not there", BEGIN.format("gone")),
        Case("a model that brings code along", BEGIN.format("llm-code")),
        Case("a model without layers", BEGIN.format("llm-none")),
        Case("weights in eight bits, without their factors", BEGIN.format("llm-fp8")),
        Case("a pattern of tensors to leave that leaves none", BEGIN.format("llm") + " model.drop=[vision]"),
        Case("a pattern that is none", BEGIN.format("llm") + " 'model.fresh=[\"(\"]'"),
    ],
    "synthesize": [
        Case("nothing to say", "melcli synthesize ' ' -o say.wav"),
        Case("an ending that is no audio", "melcli synthesize hello -o say.doc"),
        Case("a text file that is not there", "melcli synthesize --text-file gone.txt -o say.wav"),
        Case("a text file that is not UTF-8", "melcli synthesize --text-file latin.txt -o say.wav"),
        Case("a row without text", "melcli synthesize --text-file no-text.jsonl -o said"),
        Case("a row with a number for a text", "melcli synthesize --text-file number.jsonl -o said"),
        Case("two rows for one file", "melcli synthesize --text-file over.jsonl -o said"),
        Case("a voice that is not audio", "melcli synthesize hello -o say.wav --model answerer --voice text.wav"),
        Case("a silent voice", "melcli synthesize hello -o say.wav --model answerer --voice silent.wav"),
        Case("a model that only listens", "melcli synthesize hello -o say.wav --model tiny-en"),
        Case("a dictionary with capitals", "melcli synthesize hello -o say.wav --lexicon lexicon.txt"),
        Case("less than three seconds to go on from", "melcli synthesize --continue second.wav --model answerer -o on.wav"),
        Case("silence to go on from", "melcli synthesize --continue silent.wav --model answerer -o on.wav"),
    ],
    "answer": [
        Case("silence for a question", "melcli answer silent.wav --model answerer"),
        Case("a twentieth of a second", "melcli answer short.wav --model answerer"),
        Case("a file that is not audio", "melcli answer text.wav --model answerer"),
        Case("a file that ends too soon", "melcli answer cut.wav --model answerer"),
        Case("samples that are not numbers", "melcli answer nan.wav --model answerer"),
        Case("a model that does not answer", "melcli answer good.wav --model tiny-en"),
        Case("speech of a model that only writes", "melcli answer good.wav --model mute -o a.wav"),
        Case("two questions and one file", "melcli answer good.wav second.wav --model answerer -o a.wav"),
    ],
    "score": [
        Case("neither sets nor files", "melcli score"),
        Case("a manifest with a line that is no JSON", "melcli score --manifest broken.jsonl"),
        Case("rows of files that are empty, cut, silent, not numbers, short, no audio", "melcli score --manifest bad.jsonl -f json --limit 7"),
        Case("a result file without hypotheses", "melcli score --hyp no-hyp.jsonl"),
        Case("an utterance that is there twice", "melcli score --hyp twice.jsonl"),
        Case("a result file that is not there", "melcli score --hyp gone.jsonl.gz"),
        Case("two systems on other utterances", "melcli score --compare hyp.jsonl other-hyp.jsonl"),
        Case("a protocol that nobody knows", "melcli score --hyp hyp.jsonl --protocol openasr-2062"),
        Case("a set that nobody knows", "melcli score --set librispeach"),
    ],
    "export": [
        Case("a model that is not there", "melcli export gone -o exported"),
        Case("weights that end too soon", "melcli export cut-weights -o exported"),
        Case("a folder with somebody's files", "melcli export tiny-en -o full"),
        Case("adapters that are not there", "melcli export tiny-en -o exported --merge-lora"),
        Case("a mean over evaluations that were not kept", "melcli export tiny-en -o exported --average 3"),
    ],
    "branches": [
        Case("a model without a unified encoder", "melcli branches good.jsonl --model tiny-en"),
        Case("a unified encoder without its speech branch", "melcli branches good.jsonl --model text-only"),
        Case("vectors of another width", "melcli branches good.jsonl --model stored --vectors speech=width.npy"),
        Case("vectors that are pickled objects", "melcli branches good.jsonl --model stored --vectors speech=objects.npy"),
        Case("vectors that are not there", "melcli branches good.jsonl --model stored --vectors speech=gone.npy"),
        Case("no vectors for a model that reads nothing else", "melcli branches good.jsonl --model stored"),
    ],
}


# --- the page ------------------------------------------------------------------------------------------------------------------------------


def _run(command: str) -> tuple[int, str, str]:
    """Exit code, stdout and stderr of a command in this process."""
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        try:
            cli.main(shlex.split(command)[1:])
        except SystemExit as stopped:
            code = int(stopped.code or 0)
    console.set_level(console.NORMAL)
    return code, out.getvalue(), err.getvalue()


def outcome(command: str) -> tuple[int, str]:
    """Exit code, and what was said: errors, warnings and lists of failures; what was printed where there are none."""
    code, out, err = _run(f"{command} -q --offline")
    assert "Traceback" not in err, err
    lines = [line.strip() for line in err.splitlines() if line.startswith(("error:", "warning:", "  ")) or " failed:" in line]
    said = "; ".join(line for line in lines if " failed:" not in line) or out
    return code, " ".join(said.split()).replace(f"{os.getcwd()}/", "")


@contextlib.contextmanager
def inside() -> Iterator[None]:
    """In a folder of its own with all files."""
    before = Path.cwd()
    with tempfile.TemporaryDirectory() as folder:
        os.chdir(os.path.realpath(folder))
        try:
            desk()
            yield
        finally:
            os.chdir(before)


def _cell(text: str) -> str:
    return text.replace("|", "\\|").replace("<", "&lt;")


def section(name: str) -> str:
    """A section of the page. The folder one is in has the files."""
    lines = [f"## {name[0].upper()}{name[1:]}", "", "| input | command | exit | says |", "| --- | --- | --- | --- |"]
    for case in SECTIONS[name]:
        code, said = outcome(case.command)
        shown = case.command.replace("\x1b", "\\x1b")
        lines.append(f"| {_cell(case.what)} | `{_cell(shown)}` | {code} | {_cell(said)} |")
    return "\n".join([*lines, ""])


def main() -> None:
    with inside():
        made = [section(name) for name in SECTIONS]
    PAGE.write_text("\n".join([HEAD, *made]), encoding="utf-8")
    print(PAGE)


if __name__ == "__main__":
    main()
