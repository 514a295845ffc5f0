"""The clients in exports: what they compute is what melcli computes, in processes that have no melcli."""

from __future__ import annotations

import base64
import io
import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
import soundfile
import torch

from melcli import registry
from melcli.audio.io import load
from melcli.audio.mel import log_mel_many, mel_filters, window
from melcli.audio.mel_spec import PRESETS
from melcli.errors import UsageError
from melcli.export import export
from melcli.exporting import clients, front, probes
from melcli.exporting.bundled import log_mel, speech_input
from melcli.exporting.source import Source, read
from tests.exporting.makers import CONV, run_here, save
from tests.models.conftest import make_model

CLIP = registry.PACKAGE / "assets" / "clips" / "garden-rms.wav"
INPUTS = [
    CONV,
    {**CONV, "norm": "global", "stride": 2},
    {**CONV, "norm": "none", "stride": 4},
    {**CONV, "stride": 16, "channels": 70},
    {"kind": "mel-patch", "patch": 8, "norm": "utterance"},
    {"kind": "mel-patch", "patch": 3, "norm": "none", "bias": False},
    {"kind": "mel-tdnn", "stride": 8, "channels": 8, "hidden": 16, "inner": 32, "layers": 6, "norm": "utterance"},
    {"kind": "mel-tdnn", "stride": 4, "channels": 8, "hidden": 16, "inner": 32, "layers": 2, "norm": "global"},
    {"kind": "raw-frame"},
]


@pytest.mark.parametrize("name", PRESETS)
def test_mels_without_melcli(name: str) -> None:
    spec = PRESETS[name]
    mel = {**spec.model_dump(), **{field: getattr(spec, field) for field in ("span", "fft_pad", "reflected", "skipped")}}
    wave_S = load(str(CLIP), spec.rate)
    for samples in (len(wave_S), spec.span, spec.span + spec.hop_length, 5000):
        ours = log_mel_many(spec, [wave_S[-samples:]])[0]
        theirs = torch.from_numpy(log_mel.log_mel(wave_S[-samples:].numpy(), mel, window(spec).double().numpy(), mel_filters(spec).numpy()))
        assert ours.shape == theirs.shape, samples
        off = (ours - theirs).abs()
        assert float(off.median()) < 1e-4, samples
        assert spec.precision == "single" or float(off.max()) < 2e-3, samples  # float32 is off in quiet bins beside loud ones


@pytest.mark.parametrize("options", INPUTS)
@torch.no_grad()
def test_speech_inputs_without_melcli(options: dict, tmp_path: Path) -> None:
    model, processor = make_model(speech_input=options)
    if options.get("norm") == "global":
        model.speech_input.normalise.set(torch.randn(80), torch.rand(80) + 0.5)
    source = Source("it", tmp_path, model, processor, torch.float32)
    weights = {name: tensor for name, tensor in front.tensors(source).items() if not name.startswith(("mel.", "prompt."))}
    for length in (1, 7, 8, 9, 131):
        features = torch.randn(length, 80) if processor.reads == "mel" else torch.randn(length * 97, 1)
        ours, patches = model.speech_input(features, torch.tensor([len(features)]))
        theirs = speech_input.embed(features, weights, front.settings(source)["speech_input"])
        assert len(theirs) == int(patches) and torch.allclose(ours, theirs, atol=1e-4 * float(ours.abs().max())), length


@pytest.fixture(autouse=True, scope="module")
def few() -> Iterator[None]:
    """Fewer recordings to compare on: random models write as long as they may."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(probes, "PIECES", 4)
        yield


@pytest.fixture(scope="module")
def backbone(tmp_path_factory: pytest.TempPathFactory, few: None) -> Path:
    """An export that was read again by its client in a process of its own."""
    folder = tmp_path_factory.mktemp("backbone")
    done = export(str(save(folder / "model", "qwen3")), folder / "out", "backbone")
    assert str(done.compared[0]) == "4 of 4 transcripts the same"
    return folder / "out"


def expected(folder: Path) -> list[str]:
    source = read(str(folder.parent / "model"))
    found = probes.tokens(source.model, source.processor, [load(str(path), 16000) for path in sorted(CLIP.parent.glob("*.wav"))])
    return [source.processor.text(tokens) for tokens in found]


def test_a_stock_checkpoint(backbone: Path) -> None:
    from transformers import AutoModelForCausalLM

    model, info = AutoModelForCausalLM.from_pretrained(backbone, output_loading_info=True)
    assert type(model).__name__ == "Qwen3ForCausalLM" and not any(info.values())


@pytest.mark.parametrize("family", ["gemma3", "phi3"])
def test_other_families(family: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(clients, "run", run_here)
    export(str(save(tmp_path / "model", family, speech_input={"kind": "raw-frame"})), tmp_path / "out", "backbone")


class Completions(BaseHTTPRequestHandler):
    """The Completions API with `prompt_embeds` as vLLM has it: a tensor in base64, which it reads as weights only."""

    model = tokenizer = None
    asked: list[dict] = []

    def do_POST(self) -> None:
        asked = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        embeds = torch.load(io.BytesIO(base64.b64decode(asked["prompt_embeds"], validate=True)), weights_only=True)
        assert self.path == "/v1/completions" and embeds.dim() == 2 and asked["temperature"] == 0 and asked["prompt"] == ""
        self.asked.append(asked)
        bias = {(int(token),): float(value) for token, value in asked["logit_bias"].items()}
        options = {"max_new_tokens": asked["max_tokens"], "eos_token_id": asked["stop_token_ids"], "sequence_bias": bias, "do_sample": False}
        mask = torch.ones(1, len(embeds), dtype=torch.long)
        tokens = self.model.generate(inputs_embeds=embeds[None], attention_mask=mask, suppress_tokens=None, **options)[0]
        body = json.dumps({"choices": [{"index": 0, "text": self.tokenizer.decode(tokens, skip_special_tokens=True)}]}).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def server(backbone: Path) -> Iterator[str]:
    from transformers import AutoModelForCausalLM, AutoTokenizer

    Completions.model, Completions.tokenizer = AutoModelForCausalLM.from_pretrained(backbone), AutoTokenizer.from_pretrained(backbone)
    with ThreadingHTTPServer(("127.0.0.1", 0), Completions) as running:
        threading.Thread(target=running.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{running.server_port}/v1"
        running.shutdown()


def test_a_server_of_prompt_embeddings(backbone: Path, server: str) -> None:
    files = [str(path) for path in sorted(CLIP.parent.glob("*.wav"))]
    here = run_here(backbone, files).splitlines()
    there = run_here(backbone, [*files, "--server", server, "--model", "mine"]).splitlines()
    assert here == there and all(here)
    # what melcli writes of them, but for loops, which it cuts
    assert all(text.startswith(ours[:20]) for text, ours in zip(here, expected(backbone), strict=True))
    assert {asked["model"] for asked in Completions.asked} == {"mine"}


def test_recordings_that_the_client_cannot_read(backbone: Path, tmp_path: Path) -> None:
    soundfile.write(tmp_path / "a.wav", torch.zeros(800).numpy(), 8000)
    with pytest.raises(SystemExit, match="at 16000 Hz"):
        run_here(backbone, [str(tmp_path / "a.wav")])


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"attention": "bidirectional"}, "see each other both ways"),
        ({"speech_input": {"kind": "fusion", "inputs": [{"kind": "mel-patch"}, {"kind": "mel-patch"}]}}, "that of .* is fusion"),
    ],
)
def test_models_that_no_server_can_run(options: dict, said: str, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=said):
        export(str(save(tmp_path / "model", **options)), tmp_path / "out", "backbone")
    assert [path.name for path in tmp_path.iterdir()] == ["model"]


def test_onnx(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("onnx", "onnxruntime", "onnxscript"):
        pytest.importorskip(name, reason="needs melcli[onnx]")
    monkeypatch.setattr(clients, "run", run_here)
    source = save(tmp_path / "model", "gemma3", "bidirectional", {**CONV, "hidden": 64, "channels": 64})  # windows of 6, which speech is longer than
    done = export(str(source), tmp_path / "out", "onnx", int8=True)
    assert str(done.compared[0]) == "4 of 4 transcripts the same"
    assert run_here(tmp_path / "out", [str(CLIP)]).strip()


def test_onnx_without_its_packages(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from melcli.exporting import onnx

    monkeypatch.setattr(onnx, "NEEDED", ("onnx_that_is_not_there",))
    with pytest.raises(UsageError, match=r"needs onnx_that_is_not_there: pip install 'melcli\[onnx\]'"):
        export(str(save(tmp_path / "model")), tmp_path / "out", "onnx")
