"""Log-mel spectrograms by numpy alone, for a client without melcli.

Shapes: S samples, T frames, W window, F FFT bins, M mel bins.
"""

import numpy as np


def log_mel(wave_S: np.ndarray, mel: dict, window_W: np.ndarray, filters_FM: np.ndarray) -> np.ndarray:
    """mel_TM float32 of samples in [-1, 1] at mel["rate"] Hz, computed in float64. window and filters lie in the safetensors file beside this one."""
    wave_S = np.pad(wave_S.astype(np.float64), (0, max(0, mel["span"] - len(wave_S))))
    frames = (len(wave_S) + 2 * mel["fft_pad"] - mel["span"]) // mel["hop_length"] + 1 - mel["drop_last"]
    wave_S = np.pad(wave_S[mel["skipped"] :], mel["reflected"], mode="reflect") if mel["reflected"] else wave_S[mel["skipped"] :]
    frames_TW = np.lib.stride_tricks.sliding_window_view(wave_S, mel["win_length"])[:: mel["hop_length"]][:frames]
    if mel["preemphasis"]:
        frames_TW = frames_TW - mel["preemphasis"] * np.concatenate([frames_TW[:, :1], frames_TW[:, :-1]], 1)
    power_TF = np.abs(np.fft.rfft(frames_TW * window_W, n=mel["n_fft"])) ** 2 + mel["magnitude_epsilon"]
    mel_TM = (power_TF if mel["power"] == 2 else np.sqrt(power_TF)) @ filters_FM
    mel_TM = np.log(np.maximum(mel_TM, mel["floor"])) / (1.0 if mel["log"] == "ln" else np.log(10.0))
    if mel["dynamic_range"] is not None:
        mel_TM = np.maximum(mel_TM, mel_TM.max() - mel["dynamic_range"])
    return ((mel_TM + mel["shift"]) * mel["scale"]).astype(np.float32)
