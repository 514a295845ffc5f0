"""The README.md of a trained vocoder, from facts alone."""

from __future__ import annotations

from collections.abc import Mapping

from melcli import __version__
from melcli.audio.mel_spec import preset
from melcli.vocoder_recipe import VocoderRecipe


def card(recipe: VocoderRecipe, record: Mapping[str, float | int], errors: Mapping[str, float], griffin_lim: Mapping[str, float]) -> str:
    """record: what the training took. errors, griffin_lim: mel errors by evaluation source."""
    spec = preset(recipe.vocoder.mel)
    sources = "\n".join(f"- `{s.source}`" + (f", {s.repeat:g} times as often" if s.repeat != 1 else "") for s in recipe.data.train)
    measured = "\n".join(f"| `{name}` | {error:.4f} | {griffin_lim[name]:.4f} |" for name, error in errors.items()) or "| none | | |"
    return f"""---
library_name: melcli
pipeline_tag: text-to-speech
tags: [vocoder, mel-spectrogram]
---
# {recipe.name}

{recipe.summary[:1].upper()}{recipe.summary[1:]}. A vocoder of melcli's kind `tiny-vocos`: ConvNeXt blocks and an inverse STFT on a harmonic and a
noise source. Made by melcli {__version__} with the `recipe.yaml` beside this file.

| | |
| --- | --- |
| parameters | {record["parameters"]:,} |
| mel | `{recipe.vocoder.mel}`: {spec.rate} Hz, {spec.n_mels} bins, {spec.frame_rate:g} frames a second |
| training | {record["steps"]:,} steps, {record["audio_hours"]:g} h of pieces drawn from the recordings |

## Trained on

{sources}

## Measured

Mel error: mean absolute difference between the log-mel of held-out recordings and that of the audio made of it, in the mel's units, values more than
50 dB below a recording's loudest counting as 50 dB.

| evaluation source | this | Griffin-Lim |
| --- | --- | --- |
{measured}
"""
