"""`melcli score --skip-layers`: the word error rate with each layer of the language model skipped at speech positions, one layer at a time."""

from __future__ import annotations

import importlib.util
import json
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from melcli import console
from melcli.errors import UsageError
from melcli.files import write_text
from melcli.inputs import AudioInput
from melcli.models.decoding.generate import ByCtc
from melcli.models.skip_layers import blocks_of, parse_layers, skipping
from melcli.models.speech_lm_recogniser import SpeechLMRecogniser
from melcli.score import DEFAULT_FOLDER, Report, score
from melcli.score.run import result_folder
from melcli.scoring.tally import cell
from melcli.transcribe import Transcriber
from melcli.transcripts import Transcript

NAME = "skip-layers"  # of the files in a report's folder


class SkippingTranscriber:
    """A transcriber whose model skips some layers at speech positions."""

    def __init__(self, transcriber: Transcriber, layers: Sequence[int]) -> None:
        self.transcriber = transcriber
        self.folder = transcriber.folder
        self.layers = list(layers)
        self.decisions = transcriber.decisions | ({"skipped": f"layer {', '.join(map(str, layers))} at speech positions"} if layers else {})

    def transcribe(self, items: Iterable[AudioInput]) -> Iterator[Transcript]:
        """Transcripts as they are done."""
        with skipping(self.transcriber.recogniser.model, self.layers):
            yield from self.transcriber.transcribe(items)


@dataclass(frozen=True)
class Relevance:
    """What one model scored, whole and with each layer skipped. layers: how many it has."""

    model: str
    layers: int
    whole: Report
    skipped: dict[int, Report]

    def as_dict(self) -> dict[str, Any]:
        """The object of `score --skip-layers -f json`. change: of the average WER, in points, by skipping; above zero the layer helps."""
        whole = self.whole.as_dict()
        rows = []
        for layer, report in self.skipped.items():
            one = report.as_dict()
            sets = {name: {"wer": s["wer"], "change": _change(s["wer"], whole["sets"][name]["wer"])} for name, s in one["sets"].items()}
            change = _change(one["average"]["wer"], whole["average"]["wer"])
            rows.append({"layer": layer, "wer": one["average"]["wer"], "change": change, "sets": sets})
        return whole | {"layers": self.layers, "skipped": rows}

    def table(self) -> tuple[list[str], list[list[str]]]:
        """A row a layer, the whole model first; with several sets the WER of each, and always the average and its change."""
        said = self.as_dict()
        names = list(said["sets"]) if len(said["sets"]) > 1 else []
        rows = [["none", *(cell(said["sets"][name]["wer"]) for name in names), cell(said["average"]["wer"]), ""]]
        for one in said["skipped"]:
            change = "-" if one["change"] is None else f"{one['change']:+.2f}"
            rows.append([str(one["layer"]), *(cell(one["sets"][name]["wer"]) for name in names), cell(one["wer"]), change])
        return ["skipped layer", *names, "WER %", "change"], rows


def _change(wer: float | None, before: float | None) -> float | None:
    return None if wer is None or before is None else round(wer - before, 2)


def score_skipping(
    text: str,
    model: str,
    *,
    load: Callable[[str], Transcriber],
    output: Path | None = None,
    sets: Sequence[str] = (),
    **options: Any,
) -> Relevance:
    """Score a model whole and with each of the layers that `text` names skipped. options: further ones of `score`.

    output: folder of the result files, those without layer k in `skip-k` in it; what is there is gone on with. Raises UsageError for a model that is
    not one of ours, and as `score` does.
    """
    transcriber = load(model)
    recogniser = transcriber.recogniser
    if not isinstance(recogniser, SpeechLMRecogniser):
        raise UsageError(f"--skip-layers is for melcli's own speech models, which {model} is not.")
    if isinstance(recogniser.strategy, ByCtc) and recogniser.model.config.ctc_at_input:
        remedy = "" if recogniser.model.writes_by_ctc else "; --beam 1 has them write"
        raise UsageError(f"--skip-layers: {model} writes what its speech input hears, without its layers{remedy}.")
    count = len(blocks_of(recogniser.model))
    layers = parse_layers(text, count)
    reports: list[Report] = []
    with result_folder(output or (DEFAULT_FOLDER if sets else None)) as folder:
        for layer in (None, *layers):
            skipping_it = SkippingTranscriber(transcriber, [] if layer is None else [layer])
            place = folder if layer is None else folder / f"skip-{layer}"
            reports += score(models=[model], sets=sets, output=place, load=lambda name, one=skipping_it: one, **options)
            console.detail(f"{model}: layer {layer} skipped, done" if layer is not None else f"{model}: whole, done")
    return Relevance(model, count, reports[0], dict(zip(layers, reports[1:], strict=True)))


def write_report(found: Relevance, folder: Path) -> None:
    """skip-layers.json, skip-layers.md and, where matplotlib is installed, skip-layers.png."""
    columns, rows = found.table()
    write_text(folder / f"{NAME}.json", json.dumps(found.as_dict(), indent=2) + "\n")
    lines = [columns, ["---"] * len(columns), *rows]
    write_text(folder / f"{NAME}.md", "\n".join("| " + " | ".join(line) + " |" for line in lines) + "\n")
    if importlib.util.find_spec("matplotlib") is None:
        console.note(f"no {NAME}.png: it needs matplotlib, pip install 'melcli[plot]'")
        return
    _plot(found, folder / f"{NAME}.png")
    console.note(f"report: {folder / NAME}.png, .md, .json")


def _plot(found: Relevance, path: Path) -> None:
    """WER over the skipped layer, a line a set; the whole model's as dashes."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    said = found.as_dict()
    figure = Figure(figsize=(8, 4), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots()
    for number, (name, whole) in enumerate(said["sets"].items()):
        points = [(one["layer"], one["sets"][name]["wer"]) for one in said["skipped"] if one["sets"][name]["wer"] is not None]
        axes.plot([x for x, _ in points], [y for _, y in points], "o-", color=f"C{number % 10}", markersize=4, label=name)
        if whole["wer"] is not None:
            axes.axhline(whole["wer"], color=f"C{number % 10}", linestyle="--", linewidth=1)
    axes.set_xlabel("layer skipped at speech positions (dashes: none)")
    axes.set_ylabel("WER %")
    axes.set_ylim(bottom=0)
    axes.set_title(found.model, fontsize=9, parse_math=False)
    axes.legend(fontsize=8)
    figure.savefig(path, dpi=120)
