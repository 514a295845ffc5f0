"""How fast are log-mels, preset by preset, beside the libraries that compute the same thing?

    python benchmarks/featurize_mel.py [--audio DIR] [--seconds 300] [--repeats 5] [--json FILE]

Everything runs on one thread over the same waveforms, decoded beforehand: those under DIR, or noise shaped like speech, of 2 to 16 seconds.
Every contender goes once a round, and its best round counts, so that what else the machine does hits all alike. The unit is seconds of audio
per second of processor time. `x` is melcli, one utterance at a time, over the contender.
"""

from __future__ import annotations

import argparse
import gc
import logging
import sys
import time
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path

import torch
from figures import write
from torch import Tensor

from melcli.audio.io import load
from melcli.audio.mel import LogMel
from melcli.audio.mel_spec import PRESETS, MelSpec
from melcli.errors import AudioError

Contender = Callable[[list[Tensor]], object]
BATCH = 16  # utterances a call, for libraries that take batches
SUFFIXES = (".opus", ".flac", ".wav", ".mp3")


def made_waves(rate: int, seconds: float) -> list[Tensor]:
    """Noise that falls 6 dB an octave, in syllables of a third of a second with pauses between."""
    generator = torch.Generator().manual_seed(0)
    waves, total = [], 0.0
    while total < seconds:
        length = 2.0 + 14.0 * float(torch.rand((), generator=generator))
        noise_S = torch.randn(int(length * rate), generator=generator)
        spectrum_F = torch.fft.rfft(noise_S) / (torch.fft.rfftfreq(len(noise_S), 1 / rate) + 200.0)
        voiced_S = torch.fft.irfft(spectrum_F, len(noise_S))
        envelope_S = (torch.sin(torch.arange(len(noise_S)) * (2 * torch.pi * 1.5 / rate)) + 0.2).clamp_min(0.001)
        waves.append(0.3 * voiced_S / voiced_S.abs().max() * envelope_S)
        total += length
    return waves


def real_waves(folder: Path, rate: int, seconds: float) -> list[Tensor]:
    paths = sorted(path for path in folder.rglob("*") if path.suffix in SUFFIXES)
    waves, total = [], 0.0
    for path in paths[:: max(1, len(paths) // 400)]:
        wave_S = load(path, rate)
        if len(wave_S) < rate // 2:
            continue
        waves.append(wave_S)
        total += len(wave_S) / rate
        if total >= seconds:
            return waves
    if not waves:
        raise AudioError(f"{folder}: no audio of at least half a second")
    return waves


def batches(waves: list[Tensor]) -> Iterator[list[Tensor]]:
    for first in range(0, len(waves), BATCH):
        yield waves[first : first + BATCH]


def one_by_one(extract: Callable[[Tensor], object]) -> Contender:
    return lambda waves: [extract(wave_S) for wave_S in waves]


def transformers_phi4() -> Iterator[tuple[str, Contender]]:
    from transformers.models.phi4_multimodal.feature_extraction_phi4_multimodal import Phi4MultimodalFeatureExtractor

    extractor = Phi4MultimodalFeatureExtractor()
    yield "transformers Phi4Multimodal", one_by_one(lambda wave_S: extractor(wave_S, sampling_rate=16000))
    yield (
        f"transformers Phi4Multimodal, batches of {BATCH}",
        lambda waves: [extractor([wave_S.numpy() for wave_S in batch], sampling_rate=16000) for batch in batches(waves)],
    )


def kaldi(spec: MelSpec) -> Iterator[tuple[str, Contender]]:
    """Filter banks of the same size; window and log floor are their own, which costs them nothing."""
    from torchaudio.compliance.kaldi import fbank

    yield (
        "torchaudio kaldi.fbank",
        one_by_one(
            lambda wave_S: fbank(
                wave_S[None], num_mel_bins=80, high_freq=spec.f_max, window_type="hamming", dither=0.0, remove_dc_offset=False, use_energy=False
            )
        ),
    )
    try:
        from lhotse import Fbank, FbankConfig
    except ImportError:
        print("lhotse is not installed: left out", file=sys.stderr)
        return
    extractor = Fbank(FbankConfig(num_mel_bins=80, high_freq=spec.f_max, snip_edges=True, remove_dc_offset=False, window_type="hamming"))
    yield "lhotse Fbank", one_by_one(lambda wave_S: extractor.extract(wave_S, 16000))
    yield f"lhotse Fbank, batches of {BATCH}", lambda waves: [extractor.extract_batch(batch, 16000) for batch in batches(waves)]


def transformers_whisper(n_mels: int) -> Iterator[tuple[str, Contender]]:
    from transformers import WhisperFeatureExtractor

    extractor = WhisperFeatureExtractor(n_mels)
    yield "transformers Whisper, not padded", one_by_one(lambda wave_S: extractor(wave_S.numpy(), sampling_rate=16000, padding=False))
    yield "transformers Whisper, padded to 30 s", one_by_one(lambda wave_S: extractor(wave_S.numpy(), sampling_rate=16000))


def transformers_speecht5() -> Iterator[tuple[str, Contender]]:
    from transformers import SpeechT5FeatureExtractor

    extractor = SpeechT5FeatureExtractor()
    yield "transformers SpeechT5", one_by_one(lambda wave_S: extractor(audio_target=wave_S.numpy(), sampling_rate=16000))


def torchaudio_mel(spec: MelSpec) -> Iterator[tuple[str, Contender]]:
    """torchaudio's spectrogram, filters and torch's logarithm: for vocos this is the wheel's own extractor."""
    from torchaudio.transforms import MelSpectrogram

    slaney = spec.mel_scale == "slaney"
    mel = MelSpectrogram(
        spec.rate,
        spec.n_fft,
        spec.win_length,
        spec.hop_length,
        spec.f_min,
        spec.f_max,
        n_mels=spec.n_mels,
        power=spec.power,
        norm="slaney" if slaney else None,
        mel_scale="slaney" if slaney else "htk",
    )
    logarithm = torch.log if spec.log == "ln" else torch.log10
    yield "torchaudio MelSpectrogram + log", one_by_one(lambda wave_S: logarithm(mel(wave_S).clamp_min(spec.floor)))


def bigvgan_formula(spec: MelSpec) -> Iterator[tuple[str, Contender]]:
    """What the bigvgan wheel's mel_spectrogram does, with its filters made once."""
    from melcli.audio.mel import mel_filters

    filters_MF, window_W = mel_filters(spec).float().T.contiguous(), torch.hann_window(1024)

    def extract(wave_S: Tensor) -> Tensor:
        padded_S = torch.nn.functional.pad(wave_S[None, None], (384, 384), mode="reflect")[0, 0]
        spectrum_FT = torch.stft(padded_S, 1024, 256, 1024, window_W, center=False, return_complex=True)
        return torch.log((filters_MF @ torch.sqrt(torch.view_as_real(spectrum_FT).pow(2).sum(-1) + 1e-9)).clamp_min(1e-5))

    yield "bigvgan's formula in torch", one_by_one(extract)


def contenders(name: str) -> Iterator[tuple[str, Contender]]:
    spec = PRESETS[name]
    mel = LogMel(spec)
    yield "melcli", one_by_one(lambda wave_S: mel.many([wave_S]))
    yield f"melcli, {BATCH} joined", lambda waves: [mel.many(batch) for batch in batches(waves)]
    if name == "phi4mm":
        yield from transformers_phi4()
        yield from kaldi(spec)
        return
    if name.startswith("whisper"):
        yield from transformers_whisper(spec.n_mels)
    elif name == "speecht5":
        yield from transformers_speecht5()
    elif name == "bigvgan-22k":
        yield from bigvgan_formula(spec)
    yield from torchaudio_mel(spec)


def measure(name: str, waves: list[Tensor], repeats: int) -> dict[str, float]:
    """Seconds of audio per processor second of each contender, best of `repeats` rounds after a first one that does not count."""
    audio = sum(len(wave_S) for wave_S in waves) / PRESETS[name].rate
    rivals = dict(contenders(name))
    best = dict.fromkeys(rivals, float("inf"))
    for round_number in range(repeats + 1):
        for rival, run in rivals.items():
            gc.collect()
            began = time.process_time()
            run(waves)
            if round_number:
                best[rival] = min(best[rival], time.process_time() - began)
    return {rival: audio / seconds for rival, seconds in best.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--audio", type=Path, help="a folder of recordings, instead of made signals")
    parser.add_argument("--seconds", type=float, default=300.0, help="of audio in a round")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--preset", choices=list(PRESETS), action="append", help="only this one; may be repeated")
    parser.add_argument("--json", type=Path, help="write the figures here, too")
    options = parser.parse_args()
    warnings.filterwarnings("ignore")
    logging.disable(logging.WARNING)
    torch.set_num_threads(1)

    report: dict[str, dict[str, object]] = {}
    for name in options.preset or PRESETS:
        rate = PRESETS[name].rate
        waves = real_waves(options.audio, rate, options.seconds) if options.audio else made_waves(rate, options.seconds)
        figures = measure(name, waves, options.repeats)
        peers = {rival: value for rival, value in figures.items() if not rival.startswith("melcli")}
        fastest = max(peers, key=lambda rival: peers[rival])
        report[name] = {"seconds_per_second": figures, "fastest_peer": fastest, "ratio_to_fastest_peer": figures["melcli"] / peers[fastest]}
        print(f"\n{name}: {len(waves)} utterances, {sum(map(len, waves)) / rate:.0f} s")
        for rival, value in figures.items():
            mark = "  <- fastest peer" if rival == fastest else ""
            print(f"  {rival:48s} {value:8.0f} s/s  {figures['melcli'] / value:6.2f} x{mark}")
    write(options.json, {"presets": report})


if __name__ == "__main__":
    main()
