"""Synthetic speech: `synth:` addresses (voices.py) are spoken here; `corpus` and `plan` (synth_plan.py) write hours of them as ordinary utterances.

Shapes: S samples. An address is pure text, so a plan costs nothing until its utterances are loaded, by featurize or while training.
"""

from __future__ import annotations

import math
import subprocess
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from melcli.data.synth_plan import corpus, plan
from melcli.data.voices import PACKAGES, Delivery, Voice, voice
from melcli.errors import AudioError

if TYPE_CHECKING:
    from torch import Tensor

__all__ = ["corpus", "plan", "speak"]

TIMEOUT = 30.0
"""Seconds after which a synthesiser is given up; the slowest voice needs 0.4 s for a long sentence."""
RATE_STEP = 200
"""Hz. `shift` is rounded so that the sample rate is a multiple: resampling it to 16 or 24 kHz stays cheap."""
RHVOICE = (Path("/usr/share/RHVoice"), Path("/usr/local/share/RHVoice"))
SILENCE = 10 ** (-40 / 20)
"""A frame of 10 ms this far below the loudest frame is silence (flite's awb breathes at -44 dB); one more frame is kept for soft consonants."""


def speak(address: str) -> tuple[Tensor, int]:
    """A `synth:` address spoken: (wave_S float32 mono in [-1, 1], rate in Hz).

    The rate is the synthesiser's times `shift`, a multiple of 200 Hz. Leading and trailing silence is exactly `lead` and `tail` seconds.
    AudioError for a bad address, a program or voice that is not installed (with the Debian package), and speech that came out empty.
    """
    delivery, text = Delivery.parse(address)
    one = voice(delivery.voice)
    wave_S, rate = _read_wav(_SPEAKERS[one.program](one, delivery, text), address)
    rate = max(1, round(rate * delivery.shift / RATE_STEP)) * RATE_STEP
    return _trimmed(wave_S, rate, delivery, address), rate


def _flite(one: Voice, delivery: Delivery, text: str) -> bytes:
    command = ["flite", "-voice", one.voice, "--setf", f"duration_stretch={delivery.stretch * delivery.shift:.4g}"]
    if one.pitched and delivery.pitch != 1:
        command += ["--setf", f"int_f0_target_mean={one.f0 * delivery.pitch:.4g}"]
    return _run([*command, "-t", " " + text, "-o", "/dev/stdout"])


def _espeak(one: Voice, delivery: Delivery, text: str) -> bytes:
    words_a_minute = min(450, max(80, round(175 / (delivery.stretch * delivery.shift))))
    pitch = min(99, max(0, round(50 + math.log(delivery.pitch) / 0.0093)))  # measured: -p 20 is 0.76 of the voice's pitch, -p 80 is 1.33
    return _run(["espeak-ng", "-v", one.voice, "-s", str(words_a_minute), "-p", str(pitch), "--stdout", "--stdin"], text)


def _festival(one: Voice, delivery: Delivery, text: str) -> bytes:
    """festival cannot write to a pipe (it seeks back to the header), so a file in memory or /tmp is used."""
    said = text.replace("\\", " ").replace('"', " ")
    with tempfile.TemporaryDirectory(prefix="melcli-") as folder:
        out = Path(folder) / "said.wav"
        lisp = [f"(voice_{one.voice})", f"(Parameter.set 'Duration_Stretch {delivery.stretch * delivery.shift:.4g})"]
        if one.pitched:
            lisp.append(
                f"(set! int_lr_params '((target_f0_mean {one.f0 * delivery.pitch:.4g}) (target_f0_std 14) (model_f0_mean 170) (model_f0_std 34)))"
            )
        lisp.append(f'(utt.save.wave (utt.synth (Utterance Text "{said}")) "{out}" \'riff)')
        _run(["festival", "-b", *lisp])
        return out.read_bytes() if out.exists() else b""


def _rhvoice(one: Voice, delivery: Delivery, text: str) -> bytes:
    if not any((folder / "voices" / one.voice).is_dir() for folder in RHVOICE):  # else it speaks in another without a word
        raise AudioError(f"RHVoice has no voice {one.voice} here: apt-get install {PACKAGES[one.program]}.")
    rate, pitch = 100 / (delivery.stretch * delivery.shift), 100 * delivery.pitch
    return _run(["RHVoice-test", "-p", one.voice, "-r", f"{rate:.0f}", "-t", f"{pitch:.0f}", "-o", "/dev/stdout"], text)


def _pico(one: Voice, delivery: Delivery, text: str) -> bytes:
    """pico2wave writes to files only, and reads marks of its own in the text, which no text may hold therefore."""
    speed = min(500, max(20, 100 * (delivery.stretch * delivery.shift) ** -1.04))  # measured: level 150 takes 0.68 of the time of 100, 80 takes 1.24
    pitch = min(200, max(50, 100 * delivery.pitch))
    said = text.replace("<", " ").replace(">", " ")
    with tempfile.TemporaryDirectory(prefix="melcli-") as folder:
        out = Path(folder) / "said.wav"
        _run(["pico2wave", "-l", one.voice, "-w", str(out), f"<speed level='{speed:.0f}'><pitch level='{pitch:.0f}'>{said}</pitch></speed>"])
        return out.read_bytes() if out.exists() else b""


_SPEAKERS = {"flite": _flite, "espeak-ng": _espeak, "festival": _festival, "RHVoice-test": _rhvoice, "pico2wave": _pico}


def _run(command: list[str], text: str = "") -> bytes:
    program = command[0]
    try:
        done = subprocess.run(command, input=text.encode(), capture_output=True, timeout=TIMEOUT, check=False)
    except FileNotFoundError:
        raise AudioError(f"The speech synthesiser '{program}' is not installed: apt-get install {PACKAGES[program]}.") from None
    except subprocess.TimeoutExpired:
        raise AudioError(f"{program} said nothing for {TIMEOUT:g} s and was stopped.") from None
    except (OSError, ValueError) as error:  # a text that is too long for a command line, or holds what no command line can
        raise AudioError(f"{program} cannot be given the text: {error}.") from None
    complaint = done.stderr.decode(errors="replace").strip().replace("\n", " ")
    if done.returncode or "SIOD ERROR" in complaint:
        missing = f" Is the voice installed? apt-get install {PACKAGES[program]}." if "unbound variable : voice_" in complaint else ""
        raise AudioError(f"{program} failed (exit {done.returncode}): {complaint[-200:]}.{missing}")
    return done.stdout


def _read_wav(wav: bytes, address: str) -> tuple[Tensor, int]:
    """The 16-bit mono samples of a RIFF file; its length fields are ignored, since programs that write to a pipe cannot fill them in."""
    import torch

    start = wav.find(b"data", 12) + 8
    samples = (len(wav) - start) // 2
    if wav[:4] != b"RIFF" or start < 44 or samples < 1:
        raise AudioError(f"The synthesiser gave no sound for '{address[:100]}'.")
    rate = int.from_bytes(wav[24:28], "little")
    return torch.frombuffer(bytearray(wav), dtype=torch.int16, count=samples, offset=start).float() / 32768, rate


def _trimmed(wave_S: Tensor, rate: int, delivery: Delivery, address: str) -> Tensor:
    """The speech with exactly `lead` and `tail` seconds of silence around it; what the synthesiser left is used before zeros are."""
    import torch

    frame = rate // 100
    frames = len(wave_S) // frame
    level_F = wave_S[: frames * frame].view(frames, frame).square().mean(1).sqrt() if frames else wave_S.new_zeros(0)
    loud = torch.nonzero(level_F > SILENCE * level_F.max()).flatten() if frames and level_F.max() > 1e-4 else level_F[:0]
    if len(loud) == 0:
        raise AudioError(f"The synthesiser gave silence for '{address[:100]}'.")
    first, last = max(0, int(loud[0]) - 1) * frame, min(len(wave_S), (int(loud[-1]) + 2) * frame)
    lead, tail = round(delivery.lead * rate), round(delivery.tail * rate)
    kept = wave_S[max(0, first - lead) : last + tail]
    return torch.nn.functional.pad(kept, (max(0, lead - first), max(0, tail - (len(wave_S) - last))))
