"""Transcribe with the ONNX graphs in this folder. Needs numpy, onnxruntime, safetensors, soundfile and tokenizers; no torch, no melcli.

    python client.py talk.wav

Recordings must have the sample rate of speech_input.json and be no longer than its max_seconds.
"""

import argparse
import json
import math
from pathlib import Path

import numpy as np
import onnxruntime
import soundfile
from log_mel import log_mel
from safetensors.numpy import load_file

HERE = Path(__file__).resolve().parent
SETTINGS = json.loads((HERE / "speech_input.json").read_text())


def features(path: str, tables: dict[str, np.ndarray]) -> np.ndarray:
    """Log-mel frames [T, M] of a recording, or its samples [T, 1]."""
    wave, rate = soundfile.read(path, dtype="float32", always_2d=True)
    if rate != SETTINGS["mel"]["rate"] or len(wave) > rate * SETTINGS["max_seconds"] or not len(wave):
        raise SystemExit(f"{path}: must hold up to {SETTINGS['max_seconds']} s at {SETTINGS['mel']['rate']} Hz")
    wave = wave.mean(1)
    return log_mel(wave, SETTINGS["mel"], tables["mel.window"], tables["mel.filters"]) if SETTINGS["reads"] == "mel" else wave[:, None]


def transcribe(sessions: dict[str, onnxruntime.InferenceSession], frames: np.ndarray) -> list[int]:
    """Tokens, the most probable one at each step."""
    before, after = (sessions["embed"].run(None, {"input_ids": np.array([ids], np.int64)})[0] for ids in SETTINGS["prompt_ids"])
    speech = sessions["speech"].run(None, {"features": frames})[0][None]
    embeddings = np.concatenate([before, speech, after], 1)
    among = np.tril(np.ones((embeddings.shape[1],) * 2, bool))
    if SETTINGS["speech_attention"] == "bidirectional":
        heard = slice(before.shape[1], before.shape[1] + speech.shape[1])
        among[heard, heard] = True
    cache = {name: np.zeros(shape, np.float32) for name, shape in SETTINGS["cache"].items()}
    tokens: list[int] = []
    position = 0
    while len(tokens) < SETTINGS["spare_tokens"] + math.ceil(SETTINGS["tokens_per_frame"] * len(frames)):
        places = np.arange(position, position + embeddings.shape[1], dtype=np.int64)[None]
        logits, *states = sessions["decoder"].run(None, {"inputs_embeds": embeddings, "among": among, "position_ids": places, **cache})
        logits[:, SETTINGS["never"]] = -np.inf
        token = int(logits[0].argmax())
        if token in SETTINGS["stop_token_ids"]:
            break
        tokens.append(token)
        position += embeddings.shape[1]
        cache = dict(zip(cache, states, strict=True))
        embeddings, among = sessions["embed"].run(None, {"input_ids": np.array([[token]], np.int64)})[0], np.ones((1, 1), bool)
    return tokens


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("audio", nargs="+")
    parser.add_argument("--tokens", action="store_true", help="print token ids")
    asked = parser.parse_args()
    options = onnxruntime.SessionOptions()
    options.add_session_config_entry("session.disable_quant_qdq", "1")  # weights of eight bits are multiplied out, and nothing else is rounded
    sessions = {name: onnxruntime.InferenceSession(HERE / f"{name}.onnx", options, ["CPUExecutionProvider"]) for name in SETTINGS["graphs"]}
    tables = load_file(HERE / "mel.safetensors") if SETTINGS["reads"] == "mel" else {}
    found = [transcribe(sessions, features(path, tables)) for path in asked.audio]
    if asked.tokens:
        print(json.dumps(found))
        return
    from tokenizers import Tokenizer

    tokenizer = Tokenizer.from_file(str(HERE / "tokenizer.json"))
    print(*[tokenizer.decode(tokens).strip() for tokens in found], sep="\n")


if __name__ == "__main__":
    main()
