"""`melcli export`: whole folders, read again; nothing half-written, nothing of others' overwritten."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoProcessor

from melcli.errors import CheckpointError, UsageError
from melcli.export import export
from melcli.exporting import hf, place, probes
from melcli.models import checkpoint, int8, lora
from melcli.training.trainer import Snapshots
from tests.cli.conftest import Melcli, melcli  # noqa: F401  a fixture
from tests.exporting.makers import save
from tests.models.conftest import make_model, make_speaker


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = save(tmp_path_factory.mktemp("source") / "model")
    (folder / "evaluation.json").write_text('{"dev": 12.5}')
    return folder


def test_a_whole_folder(melcli: Melcli, model: Path, tmp_path: Path) -> None:  # noqa: F811
    ran = melcli("export", model, "-o", tmp_path / "out", "--to", "hf")
    assert (ran.code, ran.out) == (0, f"{tmp_path / 'out'}\n") and "20 of 20 transcripts the same" in ran.err
    facts = json.loads((tmp_path / "out" / place.FACTS).read_text())
    assert set(facts["files"]) == {path.name for path in (tmp_path / "out").iterdir()} - {place.FACTS}
    assert "| `dev` | 12.5 |" in (tmp_path / "out" / "README.md").read_text()
    assert [path.name for path in tmp_path.iterdir()] == ["out"]
    assert len({path.stat().st_mode for path in (tmp_path / "out").iterdir()}) == 1  # others may read the weights, too
    assert melcli("export", model, "-o", tmp_path / "out", "-q").code == 0  # what melcli exported it replaces
    (tmp_path / "out" / "notes.txt").write_text("mine")
    ran = melcli("export", model, "-o", tmp_path / "out")
    assert ran.code == 2 and "holds notes.txt, which melcli did not export" in ran.err and (tmp_path / "out" / "notes.txt").exists()


def test_the_auto_classes_in_a_fresh_process(model: Path, tmp_path: Path) -> None:
    """Loaded by them alone, the folder writes the tokens that the original does."""
    export(str(model), tmp_path / "out")
    code = (
        "import melcli, sys; assert 'torch' not in sys.modules and 'transformers' not in sys.modules\n"
        "from transformers import AutoModelForCausalLM, AutoProcessor\n"
        f"model, info = AutoModelForCausalLM.from_pretrained({str(tmp_path / 'out')!r}, output_loading_info=True)\n"
        f"processor = AutoProcessor.from_pretrained({str(tmp_path / 'out')!r})\n"
        "from melcli.exporting import probes\n"
        "tokens = probes.tokens(model, processor, probes.pieces(processor.spec.rate, model.config.max_seconds))\n"
        "import json; print(json.dumps([type(model).__name__, type(processor).__name__, sum(map(len, info.values())), tokens]))"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stderr
    read, processor = checkpoint.load(str(model))
    expected = probes.tokens(read, processor, probes.pieces(processor.spec.rate, read.config.max_seconds))
    assert len(expected) == 20 and json.loads(run.stdout) == ["SpeechLM", "SpeechLMProcessor", 0, expected]


@pytest.mark.parametrize("made", [["file.txt"], ["deep/file.txt"], [place.FACTS]])
def test_what_is_not_ours_is_left(model: Path, tmp_path: Path, made: list[str]) -> None:
    for name in made:
        (tmp_path / "out" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "out" / name).write_text("{}")
    with pytest.raises(UsageError, match="did not export"):
        export(str(model), tmp_path / "out")
    assert [path.relative_to(tmp_path / "out").as_posix() for path in (tmp_path / "out").rglob("*") if path.is_file()] == made


def test_a_file_or_the_model_itself_is_no_place(model: Path, tmp_path: Path) -> None:
    (tmp_path / "out").write_text("")
    with pytest.raises(UsageError, match="is no folder"):
        export(str(model), tmp_path / "out")
    export(str(model), tmp_path / "one")
    with pytest.raises(UsageError, match="is the model itself"):
        export(str(tmp_path / "one"), tmp_path / "one")


def test_what_differs_is_not_written(model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    export(str(model), tmp_path / "out")
    before = (tmp_path / "out" / place.FACTS).read_text()
    honest = checkpoint.save

    def careless(folder: Path, model, *rest, **options) -> None:
        with torch.no_grad():
            model.llm.get_output_embeddings().weight.mul_(-1)
            honest(folder, model, *rest, **options)
            model.llm.get_output_embeddings().weight.mul_(-1)

    monkeypatch.setattr(hf.checkpoint, "save", careless)
    for name in ("out", "new"):
        with pytest.raises(CheckpointError, match=r"of 20 transcripts the same; nothing was written"):
            export(str(model), tmp_path / name)
    assert [path.name for path in tmp_path.iterdir()] == ["out"] and (tmp_path / "out" / place.FACTS).read_text() == before


def test_leftovers_of_a_killed_export_are_cleared(model: Path, tmp_path: Path) -> None:
    (tmp_path / ".out.partial").mkdir()
    (tmp_path / ".out.partial" / "model.safetensors").write_text("half")
    export(str(model), tmp_path / "out")
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


def test_two_processes_on_one_folder(model: Path, tmp_path: Path) -> None:
    with place.building(tmp_path / "out") as folder:
        with pytest.raises(UsageError, match="another process"), place.building(tmp_path / "out"):
            pass
        (folder / "a").write_text("")
    assert [path.name for path in tmp_path.rglob("*")] == ["out", "a"]


def test_a_voice_is_kept_whole(tmp_path: Path) -> None:
    model, processor = make_speaker(spoken_alphabet=" abcdefghijklmnopqrstuvwxyz")
    checkpoint.save(tmp_path / "voice", model, processor)
    done = export(str(tmp_path / "voice"), tmp_path / "out")
    assert [str(one) for one in done.compared] == ["20 of 20 transcripts the same", "5 of 5 sentences said the same"]


def test_a_voice_that_reads_sounds(tmp_path: Path) -> None:
    """The one in the package: without its dictionary the Auto classes' copy would say something else."""
    done = export("tiny-voice", tmp_path / "voice")
    assert list(map(str, done.compared)) == ["20 of 20 texts' logits the same", "5 of 5 sentences said the same"]
    assert (tmp_path / "voice" / "LICENSE-cmudict.txt").is_file()
    card = (tmp_path / "voice" / "README.md").read_text()
    assert "melcli synthesize" in card and "melcli transcribe" not in card  # it cannot hear
    ours, theirs = (AutoProcessor.from_pretrained(folder).lexicon.words for folder in (checkpoint.resolve("tiny-voice"), tmp_path / "voice"))
    assert ours == theirs and len(ours) > 100_000
    assert AutoProcessor.from_pretrained(checkpoint.resolve("tiny-en")).lexicon is None


def test_the_mean_of_evaluations(model: Path, tmp_path: Path) -> None:
    run, tensors = tmp_path / "run", load_file(model / "model.safetensors")
    save(run / "model")
    snapshots = Snapshots(run / "snapshots", 3)
    for step in range(1, 5):
        snapshots.add(step, 10.0 / step, {name: tensor + 0.01 * step for name, tensor in tensors.items() if name.startswith("ctc_head")})
    (run / "model" / "evaluation.json").write_text('{"dev": 12.5}')
    done = export(str(run), tmp_path / "out", average=3)
    written = load_file(tmp_path / "out" / "model.safetensors")
    torch.testing.assert_close(written["ctc_head.bias"], tensors["ctc_head.bias"] + 0.03)
    assert torch.equal(written["speech_input.out.weight"], tensors["speech_input.out.weight"])
    card = (tmp_path / "out" / "README.md").read_text()
    assert "mean of the evaluations at steps 2, 3, 4" in card and "12.5" not in card and not (tmp_path / "out" / "evaluation.json").exists()
    assert done.changed == "20 of 20 transcripts the same, 100.0 % of their tokens"
    (tmp_path / "out" / "README.md").write_text(card + "\nOur words on the licence.\n\n# Contact\n\nus\n")
    export(str(tmp_path / "out"), tmp_path / "small", int8=True)
    again = (tmp_path / "small" / "README.md").read_text()
    assert again.count("## Exported") == again.count("have not been measured") == 1
    assert "mean of the evaluations at steps 2, 3, 4" in again and "eight bits" in again
    assert "Our words on the licence.\n\n# Contact\n\nus\n" in again
    with pytest.raises(UsageError, match=r"--average 9: .* there are 3"):
        export(str(run), tmp_path / "other", average=9)
    with pytest.raises(UsageError, match="is no folder of a run"):
        export(str(model), tmp_path / "other", average=2)
    snapshots.add(5, 1.0, {"llm.model.layers.0.self_attn.q_proj.lora_A.default.weight": torch.zeros(2)})
    snapshots.add(6, 1.0, {"llm.model.layers.0.self_attn.q_proj.lora_A.default.weight": torch.zeros(2)})
    with pytest.raises(CheckpointError, match="adapters were merged"):
        export(str(run), tmp_path / "other", average=2)


def test_adapters_are_merged(tmp_path: Path) -> None:
    pytest.importorskip("peft")
    model, processor = make_model(attention="causal")
    lora.add_lora(model, {"rank": 4, "alpha": 8, "targets": "q_proj|v_proj"})
    torch.manual_seed(1)
    for module in lora.lora_modules(model).values():
        torch.nn.init.normal_(module.lora_B[lora.ADAPTER].weight, std=0.05)
    checkpoint.save(tmp_path / "model", model, processor)
    export(str(tmp_path / "model"), tmp_path / "out", merge_lora=True)
    merged, _ = checkpoint.load(str(tmp_path / "out"))
    assert merged.config.lora is None and not lora.lora_modules(merged)
    assert all(probes.near(a, b) for a, b in zip(probes.logits(model), probes.logits(merged), strict=True))
    with pytest.raises(UsageError, match="has no adapters"):
        export(str(tmp_path / "out"), tmp_path / "other", merge_lora=True)
    with pytest.raises(UsageError, match="add --merge-lora"):
        export(str(tmp_path / "model"), tmp_path / "other", "backbone")


def test_eight_bits(melcli: Melcli, model: Path, tmp_path: Path) -> None:  # noqa: F811
    from transformers import AutoModelForCausalLM

    ran = melcli("export", model, "-o", tmp_path / "out", "--int8")
    assert ran.code == 0 and "% of their tokens" in ran.err and not (tmp_path / "out" / "model.safetensors").exists()
    assert (tmp_path / "out" / int8.FILE).stat().st_size < 0.45 * (model / "model.safetensors").stat().st_size
    original, (read, _) = load_file(model / "model.safetensors"), checkpoint.load(str(tmp_path / "out"))
    auto = AutoModelForCausalLM.from_pretrained(tmp_path / "out").state_dict()
    packed = 0
    for name, tensor in read.state_dict().items():
        assert torch.equal(tensor, auto[name]) and tensor.dtype == torch.float32
        if int8.fits(tensor):
            step = original[name].flatten(1).abs().amax(1) / 127
            assert bool(((tensor - original[name]).flatten(1).abs() <= 0.5001 * step[:, None]).all())
            packed += 1
        else:
            assert torch.equal(tensor, original[name])
    assert packed > 10


def test_rows_of_zeros_pack() -> None:
    tensors = {"a": torch.zeros(64, 64), "b": torch.ones(3)}
    packed = int8.pack(tensors, keep=lambda name, tensor: tensor)
    assert packed["a"].dtype == torch.int8 and torch.equal(int8.unpack(packed)["a"], tensors["a"]) and set(int8.unpack(packed)) == {"a", "b"}


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"to": "backbone", "int8": True}, "--int8: is for --to hf and onnx"),
        ({"push": "nobody"}, "write OWNER/NAME"),
        ({"push": "me/it", "offline": True}, "contradict"),
    ],
)
def test_what_cannot_be_asked(model: Path, tmp_path: Path, options: dict, said: str) -> None:
    with pytest.raises(UsageError, match=said):
        export(str(model), tmp_path / "out", **options)
    assert not list(tmp_path.iterdir())
