"""Transcribe with the language model in this folder, here or on a server that takes prompt embeddings. Needs no melcli.

    python client.py talk.wav                                             # here, by transformers
    vllm serve FOLDER --enable-prompt-embeds                              # on the server, and then
    python client.py talk.wav --server http://localhost:8000/v1 --model FOLDER

Needs torch, numpy, safetensors and soundfile, and transformers where there is no --server. Recordings must have the sample rate of speech_input.json
and be no longer than its max_seconds.
"""

import argparse
import base64
import io
import json
import math
import urllib.request
from pathlib import Path

import soundfile
import torch
from log_mel import log_mel
from safetensors.torch import load_file
from speech_input import embed

HERE = Path(__file__).resolve().parent
SETTINGS = json.loads((HERE / "speech_input.json").read_text())


def read(path: str) -> tuple[torch.Tensor, int]:
    """Prompt embeddings [L, D] of a recording, and how many tokens its transcript may have."""
    wave, rate = soundfile.read(path, dtype="float32", always_2d=True)
    if rate != SETTINGS["mel"]["rate"] or len(wave) > rate * SETTINGS["max_seconds"] or not len(wave):
        raise SystemExit(f"{path}: must hold up to {SETTINGS['max_seconds']} s at {SETTINGS['mel']['rate']} Hz")
    weights = load_file(HERE / "speech_input.safetensors")
    wave = wave.mean(1)
    if SETTINGS["reads"] == "mel":
        features = torch.from_numpy(log_mel(wave, SETTINGS["mel"], weights["mel.window"].numpy(), weights["mel.filters"].numpy()))
    else:
        features = torch.from_numpy(wave)[:, None]
    speech = embed(features, weights, SETTINGS["speech_input"])
    limit = SETTINGS["spare_tokens"] + math.ceil(SETTINGS["tokens_per_frame"] * len(features))
    return torch.cat([weights["prompt.before"], speech, weights["prompt.after"]]), limit


def here(prompts: list[tuple[torch.Tensor, int]]) -> list[list[int]]:
    """Tokens that transformers' generate() writes after each prompt."""
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(HERE, dtype=torch.float32)
    options = {"do_sample": False, "num_beams": 1, "eos_token_id": SETTINGS["stop_token_ids"], "suppress_tokens": SETTINGS["never"]}
    found = []
    for embeddings, limit in prompts:
        mask = torch.ones(1, len(embeddings), dtype=torch.long)
        found.append(model.generate(inputs_embeds=embeddings[None], attention_mask=mask, max_new_tokens=limit, **options)[0].tolist())
    return [[token for token in tokens if token not in SETTINGS["stop_token_ids"]] for tokens in found]


def there(server: str, model: str, embeddings: torch.Tensor, limit: int) -> str:
    """Text that a server of OpenAI's Completions API with `prompt_embeds` writes after a prompt."""
    packed = io.BytesIO()
    torch.save(embeddings, packed)
    body = {"model": model, "prompt": "", "prompt_embeds": base64.b64encode(packed.getvalue()).decode(), "max_tokens": limit, "temperature": 0}
    body |= {"stop_token_ids": SETTINGS["stop_token_ids"], "logit_bias": {str(token): -100 for token in SETTINGS["never"]}}
    headers = {"Content-Type": "application/json"}
    request = urllib.request.Request(f"{server.rstrip('/')}/completions", json.dumps(body).encode(), headers)
    with urllib.request.urlopen(request) as answer:
        return json.load(answer)["choices"][0]["text"].strip()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("audio", nargs="+")
    parser.add_argument("--server", help="address of the API, such as http://localhost:8000/v1")
    parser.add_argument("--model", default=str(HERE), help="what the server calls the model")
    parser.add_argument("--tokens", action="store_true", help="print token ids, where there is no --server")
    asked = parser.parse_args()
    with torch.inference_mode():
        prompts = [read(path) for path in asked.audio]
        if asked.server:
            print(*[there(asked.server, asked.model, *prompt) for prompt in prompts], sep="\n")
            return
        found = here(prompts)
    if asked.tokens:
        print(json.dumps(found))
        return
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(HERE)
    print(*[tokenizer.decode(tokens, skip_special_tokens=True).strip() for tokens in found], sep="\n")


if __name__ == "__main__":
    main()
