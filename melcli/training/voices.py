"""From a recipe's `data.voice_prompts` to what draws them, with who can have one."""

from __future__ import annotations

from collections.abc import Sequence

from melcli.audio.mel_spec import MelSpec
from melcli.data.voice_prompts import VoicePrompts
from melcli.errors import ConfigError
from melcli.recipe import DataSection
from melcli.training.setup import TrainingData


def voice_prompts(
    section: DataSection, data: TrainingData, text_ids: Sequence[Sequence[int]], spec: MelSpec, stride: int, seed: int
) -> VoicePrompts | None:
    """What draws voice prompts, None where the recipe wants none. stride: frames a step. Raises ConfigError where no utterance can have any.

    The same name in two sources may be two people, so speakers are those of a source; where shards are shuffled, those of a shard, lest each
    batch want twice as many shards.
    """
    wanted, features = section.voice_prompts, data.features
    if wanted is None:
        return None
    if "tts" not in data.tasks:
        raise ConfigError("data.voice_prompts is for speech that is said, and no data is of task tts: leave it out")
    sources = [number for number, source in enumerate(features.sources) for _ in source.utterances]
    near = features.blocks().tolist() if section.shuffle == "shards" else sources
    said = [task == "tts" for task in data.tasks]
    speakers = [(place, u.speaker) if says and u.speaker else None for place, u, says in zip(near, features.utterances, said, strict=True)]
    least, most = (round(seconds * spec.frame_rate) for seconds in wanted.seconds)
    options = {"share": wanted.share, "told": wanted.told, "least": least, "most": most, "fingerprint": data.fingerprint, "seed": seed}
    prompts = VoicePrompts(speakers, features.frames, [len(ids) for ids in text_ids], stride, **options)
    if not prompts.able_N.any():
        why = "names its speaker: give `speaker` in the manifest, or leave data.voice_prompts out"
        if any(speakers):
            why = f"has another of its speaker of {wanted.seconds[0]:g} s or more: shorten data.voice_prompts.seconds, or leave it out"
        raise ConfigError(f"data.voice_prompts: of {sum(said)} utterances to be said none {why}")
    return prompts


def decided(section: DataSection, data: TrainingData, prompts: VoicePrompts) -> str:
    """What is said of them at the start."""
    wanted, able = section.voice_prompts, int(prompts.able_N.sum())
    said = [u for u, task in zip(data.features.utterances, data.tasks, strict=True) if task == "tts"]
    unnamed = sum(not u.speaker for u in said)
    counts = {"of unknown speakers": unnamed, "with no other of their speaker that fits": len(said) - able - unnamed}
    without = ", ".join(f"{n} {why}" for why, n in counts.items() if n)
    least, most = wanted.seconds
    drawn = f"before {wanted.share:.0%} of {able} utterances, {least:g} to {most:g} s, {wanted.told:.0%} told"
    return f"{drawn}; none for {without}" if without else drawn
