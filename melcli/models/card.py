"""Model cards: what a folder of weights is, in Markdown, from facts alone."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from melcli import __version__
from melcli.models.speech_lm import SpeechLM
from melcli.recipe import Recipe


def model_card(
    recipe: Recipe, model: SpeechLM, hours: float, steps: int, chosen: str, rates: Mapping[str, float], origins: Sequence[str | None] = ()
) -> str:
    """The README.md of a trained model. hours: of audio an epoch; rates: what was measured, by evaluation set; origins: of each training source what
    is known of it beyond its name."""
    config, spec = model.config, model.config.mel_spec
    count = sum(p.numel() for p in model.parameters())
    origins = [*origins, *[None] * (len(recipe.data.train) - len(origins))]
    sources = "\n".join(
        f"- `{s.source}`" + (f" ({origin})" if origin else "") + (f", {s.repeat:g} times an epoch" if s.repeat != 1 else "")
        for s, origin in zip(recipe.data.train, origins, strict=True)
    )
    limit = recipe.train.eval_limit
    measured = "\n".join(f"| `{name}` | {rate:.2f} |" for name, rate in rates.items()) or "| none | |"
    hears, speaks = config.speech_input["kind"] != "none", config.speech_output is not None
    llm = f"a {config.text_config.model_type} language model"
    unified, free = config.speech_input["kind"] == "unified", model.speech_input.encoder_free
    heard = (
        "text in training and speech in use go through a unified encoder" if unified else f"log-mel frames go through `{config.speech_input['kind']}`"
    )
    does = [f"{heard} into {llm}"] if hears else []
    if speaks:
        does.append(f"text goes into {llm} and mel frames come out through `{config.speech_output['kind']}`")
    tags = [*(["automatic-speech-recognition"] if hears else []), *(["text-to-speech"] if speaks else [])]
    return f"""---
library_name: melcli
pipeline_tag: {tags[0]}
tags: [{", ".join([*tags[1:], "speech", "mel-spectrogram", *(["encoder-free"] if free else [])])}]
---
# {recipe.name}

{recipe.summary[:1].upper()}{recipe.summary[1:]}. A speech language model{" without a speech encoder" if free else ""}: {"; ".join(does)}.
Made by melcli {__version__} with the `recipe.yaml` beside this file.

| | |
| --- | --- |
| parameters | {count:,} |
| mel | {spec.rate} Hz, {spec.n_mels} bins, {spec.frame_rate:g} frames a second |
| speech attention | {config.speech_attention} |
| training | {steps:,} steps of {recipe.train.tokens_per_batch:,} positions; {hours:.1f} h of audio an epoch |
| weights | {chosen} |

## Trained on

{sources}

## Measured

On at most {limit} utterances a source, texts normalised by `{recipe.data.text}`: word error rates in percent, decoded as by default; where a
source is marked [mel dB], the mean distance in dB of what is said after the true frames; [nats], the mean cross entropy of replies' text.

| evaluation source | WER %, dB or nats |
| --- | --- |
{measured}
"""
