"""Model cards of exports: the card that training wrote, with what the export changed; a short one of facts where there is none."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

from melcli import __version__
from melcli.exporting.source import Source
from melcli.untrusted import parse_json

MEASURED = re.compile(r"\n## Measured\n.*?(?=\n##? |\Z)", re.S)
EXPORTED = re.compile(r"\n## Exported\n\nBy melcli \S+\.\n(?:\n(?:- .*\n)+)?(?:\nThese weights have not been measured.*\n)?")  # no more than we wrote
STALE = "These weights have not been measured"

LOAD = """
## Use

    melcli COMMAND

or, with transformers and melcli installed:

```python
import melcli  # registers the model with the Auto classes
from transformers import AutoModelForCausalLM, AutoProcessor

processor = AutoProcessor.from_pretrained("FOLDER")
model = AutoModelForCausalLM.from_pretrained("FOLDER")
```
"""


def hf(source: Source) -> str:
    """README.md of a whole folder."""
    path = source.folder / "README.md"
    text = path.read_text(encoding="utf-8").rstrip() + "\n" if path.is_file() else _plain(source)
    earlier = [line for section in EXPORTED.findall(text) for line in section.splitlines() if line.startswith(("- ", STALE))]
    text = EXPORTED.sub("", text).rstrip() + "\n"
    rates = _rates(source)
    if not source.measured:
        text = MEASURED.sub("", text).rstrip() + "\n"
    elif rates and not MEASURED.search(text):
        text += _measured(rates)
    hears = source.model.config.speech_input["kind"] != "none"
    command = "transcribe talk.wav --model FOLDER" if hears else 'synthesize "Good morning." --model FOLDER -o morning.wav'
    return text + (LOAD.replace("COMMAND", command) if "\n## Use\n" not in text else "") + exported(source, earlier)


def exported(source: Source, earlier: Sequence[str] = ()) -> str:
    """The last section: what this folder was made of, and what was changed on the way. earlier: lines that exports before this one wrote."""
    changes = "".join(f"{line}\n" for line in [*(line for line in earlier if line.startswith("- ")), *(f"- {change}" for change in source.changes)])
    stale = f"\n{STALE}: `melcli score --model FOLDER` does that.\n" if not source.measured or any(line.startswith(STALE) for line in earlier) else ""
    return f"\n## Exported\n\nBy melcli {__version__}.\n" + (f"\n{changes}" if changes else "") + stale


def _plain(source: Source) -> str:
    config, model = source.model.config, source.model
    speaks = config.speech_output is not None
    hears = config.speech_input["kind"] != "none"
    tags = [*(["automatic-speech-recognition"] if hears else []), *(["text-to-speech"] if speaks else [])]
    count = sum(p.numel() for p in model.parameters())
    return f"""---
library_name: melcli
pipeline_tag: {tags[0]}
tags: [{", ".join([*tags[1:], "speech", "mel-spectrogram"])}]
---
# {source.folder.parent.name if source.folder.name == "model" else source.folder.name}

A speech language model on a {config.text_config.model_type} language model, {count:,} parameters.
"""


def _rates(source: Source) -> Mapping[str, Any]:
    try:
        found = parse_json((source.folder / "evaluation.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


def _measured(rates: Mapping[str, Any]) -> str:
    rows = "\n".join(f"| `{name}` | {rate} |" for name, rate in rates.items())
    return f"\n## Measured\n\nAt the end of training.\n\n| evaluation source | WER %, dB or nats |\n| --- | --- |\n{rows}\n"


def backbone(source: Source) -> str:
    """README.md of a stock language model with a speech input beside it."""
    kind = source.model.config.text_config.model_type
    return f"""---
library_name: transformers
pipeline_tag: automatic-speech-recognition
tags: [speech, mel-spectrogram, prompt-embeddings]
---
# The language model of {source.name}

A {kind} language model as transformers and servers know it. It reads speech as prompt embeddings, which `client.py` makes from a recording with
`speech_input.safetensors`; the server needs nothing of melcli, and neither does the client.

    python client.py talk.wav
    vllm serve FOLDER --enable-prompt-embeds
    python client.py talk.wav --server http://localhost:8000/v1 --model FOLDER
{exported(source)}"""


def onnx(source: Source) -> str:
    """README.md of ONNX graphs."""
    return f"""---
library_name: onnx
pipeline_tag: automatic-speech-recognition
tags: [speech, mel-spectrogram, onnxruntime]
---
# {source.name} as ONNX graphs

- `speech.onnx`: log-mel frames of a recording (`mel.safetensors` has the window and the filters, `log_mel.py` the rest) to vectors.
- `embed.onnx`: tokens to vectors.
- `decoder.onnx`: vectors and what is held of those before (keys and values of each layer) to logits of the next token and what is held then.

`client.py` transcribes with them, by numpy and onnxruntime alone:

    python client.py talk.wav
{exported(source)}"""
