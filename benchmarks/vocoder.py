"""How fast do vocoders turn mels into audio, on one thread and on two?

    python benchmarks/vocoder.py [--seconds 10] [--repeats 3] [--threads 1 2] [--vocoder NAME ...] [--json FILE]

All contenders go once a round over mels of the same length in seconds, made of speech-like noise, and the best round of each counts, so that what
else the machine does hits all alike. Published vocoders have random weights of their published sizes: speed does not depend on the weights.
vocos and bigvgan take part where their packages are installed. `stream` is the same audio in pieces of half a second. The unit is seconds of
audio a second.
"""

from __future__ import annotations

import argparse
import gc
import sys
import time
from collections.abc import Callable
from pathlib import Path

import torch
from figures import write
from torch import Tensor

from melcli.audio.griffin_lim import GriffinLim
from melcli.audio.mel import log_mel
from melcli.audio.mel_spec import MelSpec, preset
from melcli.audio.tiny_vocos import TinyVocos
from melcli.audio.tiny_vocos_net import TinyVocosConfig, TinyVocosNet
from melcli.audio.vocoder import Vocoder
from melcli.audio.vocoder_families import BigVGAN, SpeechT5HifiGan, UnivNet, Vocos, generator_reach

PIECE_SECONDS = 0.5


def tiny_vocoder() -> Vocoder:
    return TinyVocos(TinyVocosNet(TinyVocosConfig(mel=preset("speecht5"))))


def griffin_lim() -> Vocoder:
    return GriffinLim(preset("speecht5"))


def hifigan() -> Vocoder:
    import transformers

    config = transformers.SpeechT5HifiGanConfig()
    return SpeechT5HifiGan(transformers.SpeechT5HifiGan(config), preset("speecht5"), generator_reach(vars(config)))


def univnet() -> Vocoder:
    import transformers

    return UnivNet(transformers.UnivNetModel(transformers.UnivNetConfig()), preset("bigvgan-24k"), None)


def vocos() -> Vocoder:
    """charactr/vocos-mel-24khz's sizes."""
    from vocos.heads import ISTFTHead
    from vocos.models import VocosBackbone

    net = torch.nn.ModuleDict({"backbone": VocosBackbone(100, 512, 1536, 8), "head": ISTFTHead(512, 1024, 256, "center")})
    return Vocos(net, preset("vocos-24k"), 31)


def bigvgan() -> Vocoder:
    """nvidia/bigvgan_v2_22khz_80band_fmax8k_256x's sizes."""
    import contextlib
    import io

    from bigvgan.bigvgan import AttrDict
    from bigvgan.bigvgan import BigVGAN as Net

    fields = {
        "resblock": "1",
        "num_mels": 80,
        "upsample_rates": [4, 4, 2, 2, 2, 2],
        "upsample_kernel_sizes": [8, 8, 4, 4, 4, 4],
        "upsample_initial_channel": 1536,
        "resblock_kernel_sizes": [3, 7, 11],
        "resblock_dilation_sizes": [[1, 3, 5], [1, 3, 5], [1, 3, 5]],
        "activation": "snakebeta",
        "snake_logscale": True,
        "use_tanh_at_final": False,
        "use_bias_at_final": False,
    }
    with contextlib.redirect_stdout(io.StringIO()):
        net = Net(AttrDict(fields))
        net.remove_weight_norm()
    return BigVGAN(net, preset("bigvgan-22k"), generator_reach(fields, activation=8))


def torchaudio_griffin_lim() -> Callable[[Tensor], Tensor]:
    """torchaudio's own way from the same mel: inverse mel scale by least squares, then as many iterations with the same momentum."""
    from torchaudio.transforms import GriffinLim as Peer
    from torchaudio.transforms import InverseMelScale

    spec = preset("speecht5")
    inverse = InverseMelScale(513, 80, spec.rate, spec.f_min, spec.f_max, norm="slaney", mel_scale="slaney")
    limner = Peer(n_fft=1024, n_iter=32, hop_length=256, power=1.0, momentum=0.99)
    return lambda mel_TM: limner(inverse(10.0**mel_TM.T))


MAKERS: dict[str, Callable[[], Vocoder]] = {
    "tiny-vocoder": tiny_vocoder,
    "griffin-lim": griffin_lim,
    "speecht5-hifigan": hifigan,
    "univnet": univnet,
    "vocos": vocos,
    "bigvgan": bigvgan,
}
PEER = "torchaudio InverseMelScale + GriffinLim"


def made_mel(spec: MelSpec, seconds: float) -> Tensor:
    """The mel of noise in syllables."""
    samples = int(seconds * spec.rate)
    noise_S = torch.randn(samples, generator=torch.Generator().manual_seed(0))
    return log_mel(spec, 0.1 * noise_S * (torch.arange(samples) * (10.0 / spec.rate)).sin().abs())


def in_pieces(vocoder: Vocoder, mel_TM: Tensor) -> None:
    stream = vocoder.stream()
    for piece_TM in mel_TM.split(max(1, round(PIECE_SECONDS * vocoder.spec.frame_rate))):
        stream.push(piece_TM)
    stream.flush()


def contenders(names: list[str], seconds: float) -> tuple[dict[str, Callable[[], object]], dict[str, int]]:
    """What to time, by name, and the parameters of each vocoder."""
    found: dict[str, Callable[[], object]] = {}
    sizes = {}
    for name in names:
        try:
            vocoder = MAKERS[name]()
        except ImportError as error:
            print(f"{name}: {error.name} is not installed: left out", file=sys.stderr)
            continue
        mel_TM = made_mel(vocoder.spec, seconds)
        sizes[name] = sum(p.numel() for p in vocoder.net.parameters()) if hasattr(vocoder, "net") else 0
        found[name] = lambda vocoder=vocoder, mel_TM=mel_TM: vocoder(mel_TM[None])
        found[f"{name}, stream"] = lambda vocoder=vocoder, mel_TM=mel_TM: in_pieces(vocoder, mel_TM)
        if name == "griffin-lim":
            peer = torchaudio_griffin_lim()
            found[PEER] = lambda peer=peer, mel_TM=mel_TM: peer(mel_TM)
    return found, sizes


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=10.0, help="of audio in a round")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--threads", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--vocoder", choices=list(MAKERS), action="append", help="only this one; may be repeated")
    parser.add_argument("--json", type=Path, help="write the figures here, too")
    options = parser.parse_args()

    runs, sizes = contenders(options.vocoder or list(MAKERS), options.seconds)
    best = {(name, threads): float("inf") for name in runs for threads in options.threads}
    for round_number in range(options.repeats + 1):  # the first one does not count
        for name, threads in best:
            torch.set_num_threads(threads)
            gc.collect()
            began = time.perf_counter()
            with torch.inference_mode():
                runs[name]()
            if round_number:
                best[name, threads] = min(best[name, threads], time.perf_counter() - began)
    speeds = {name: {threads: options.seconds / best[name, threads] for threads in options.threads} for name in runs}
    print(f"{options.seconds:g} s of audio a round, best of {options.repeats}; seconds of audio a second")
    print(f"{'':42s}" + "".join(f"{threads:>8d} thread{'s' if threads > 1 else ' '}" for threads in options.threads) + f"{'parameters':>14s}")
    for name, found in speeds.items():
        size = f"{sizes[name]:,}" if sizes.get(name) else ""
        print(f"{name:42s}" + "".join(f"{found[threads]:>15.1f}" for threads in options.threads) + f"{size:>14s}")
    write(options.json, {"seconds_per_second": speeds, "parameters": sizes, "seconds": options.seconds})


if __name__ == "__main__":
    main()
