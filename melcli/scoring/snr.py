"""How noisy a recording is, guessed from the recording alone."""

from __future__ import annotations

import numpy as np

FRAME_SECONDS, HOP_SECONDS = 0.025, 0.010
NOISE, SPEECH = 10, 95  # percentiles of the frames' powers
SILENCE = 1e-9  # power, -90 dB under full scale: about what 16 bits cannot hold
FEWEST_FRAMES = 30


def estimate_snr(wave_S: np.ndarray, rate: int) -> float | None:
    """The signal-to-noise ratio in dB; None for a recording of less than a third of a second or of silence.

    10 log10((P95 - P10) / P10), where P10 and P95 are the 10th and 95th percentiles of the power of 25 ms frames every 10 ms: the noise is what the
    pauses hold, the speech what its loud syllables hold. P10 is never taken lower than -90 dB under full scale.
    Limits: it is some 5 dB above a ratio of mean powers, since speech is taken at its peaks; it is too low where there are no pauses, and too
    high where the noise stops in them (noise gates, synthetic speech); echoes, other voices and music count as speech when they are loud.
    """
    size, hop = round(FRAME_SECONDS * rate), round(HOP_SECONDS * rate)
    frames = 1 + (len(wave_S) - size) // hop
    if frames < FEWEST_FRAMES:
        return None
    ends_S = np.concatenate([[0.0], np.cumsum(np.square(wave_S, dtype=np.float64))])
    starts = hop * np.arange(frames)
    noise, speech = np.percentile((ends_S[starts + size] - ends_S[starts]) / size, [NOISE, SPEECH])
    noise = max(noise, SILENCE)
    return float(10 * np.log10(max(speech - noise, 0.1 * noise) / noise)) if speech > SILENCE else None
