"""What hotwords do: how many rare words are found with and without them, what they cost elsewhere, and what false ones do.

    python benchmarks/hotwords.py --root DATA --source "librispeech:dev-clean?speakers=1272,1673,174,2412" --limit 100

The hotwords are words of the references that are rare (at most `--rare` times in the set, at least 5 letters): for each utterance its own, among
`--distractors` rare words of other utterances. A line an amount of bonus; 0 is without hotwords.
"""

from __future__ import annotations

import argparse
import random
from collections import Counter
from pathlib import Path

from figures import write

from melcli.data.load import load_utterance
from melcli.data.manifest import read_source
from melcli.models.decoding.dictionary_search import Spelling
from melcli.models.decoding.generate import ByCtc
from melcli.models.decoding.hotwords import Hotwords
from melcli.models.speech_lm_recogniser import SpeechLMRecogniser
from melcli.scoring import normalize, wer
from melcli.transcribe import Transcriber


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--root", type=Path)
    arguments.add_argument("--source", default="speechocean762:dev")
    arguments.add_argument("--model", default="tiny-en")
    arguments.add_argument("--beam", type=int)
    arguments.add_argument("--limit", type=int, default=100)
    arguments.add_argument("--rare", type=int, default=2)
    arguments.add_argument("--distractors", type=int, default=20)
    arguments.add_argument("--bonus", type=float, nargs="+", default=[0, 0.5, 1, 1.5, 2, 3])
    arguments.add_argument("--json", type=Path)
    options = arguments.parse_args()

    clean = normalize.get("plain")
    utterances = read_source(options.source, root=options.root)
    random.Random(1).shuffle(utterances)
    utterances = utterances[: options.limit]
    texts = [clean(u.text or "") for u in utterances]
    counts = Counter(word for text in texts for word in text.split())
    rare = sorted(word for word, count in counts.items() if count <= options.rare and len(word) >= 5)
    listener = Transcriber.load(options.model, beam=options.beam).recogniser
    if not isinstance(listener, SpeechLMRecogniser):
        arguments.error("--model: give a model of melcli")
    waves = [load_utterance(u, listener.rate) for u in utterances]
    groups = [range(first, min(first + 20, len(texts))) for first in range(0, len(texts), 20)]
    rows = []
    print(f"{len(texts)} utterances, {len(rare)} rare words; {'bonus':>6}{'WER %':>8}{'rare found %':>14}{'rare invented':>15}")
    for bonus in options.bonus:
        heard = [""] * len(texts)
        for group in groups:
            own = [word for i in group for word in texts[i].split() if word in set(rare)]
            others = random.Random(group[0]).sample(rare, min(options.distractors, len(rare)))
            words = sorted({*own, *others}) if bonus else []
            if isinstance(listener.strategy, ByCtc):
                listener.processor = listener.processor.listening_for(words, Spelling(hotword_bonus=bonus))
            else:
                listener.hotwords = Hotwords(listener.processor.tokenizer, words, bonus) if words else None
            for batch in listener.recognise([waves[i] for i in group]):
                for i, found in batch.items():
                    heard[group[i]] = clean(found.text)
        said = sum((Counter(t.split()) & Counter(h.split()))[w] for t, h in zip(texts, heard, strict=True) for w in rare)
        total = sum(counts[w] for w in rare)
        invented = sum((Counter(h.split()) - Counter(t.split()))[w] for t, h in zip(texts, heard, strict=True) for w in rare)
        row = {"bonus": bonus, "wer": round(wer.score(texts, heard).wer, 2), "found": round(100 * said / max(total, 1), 1), "invented": invented}
        rows.append(row)
        print(f"{'':>{len(str(len(texts))) + 34}}{bonus:>6}{row['wer']:>8}{row['found']:>14}{row['invented']:>15}", flush=True)
    if options.json:
        named = {"source": options.source, "model": options.model, "beam": options.beam, "utterances": len(texts), "rare_words": len(rare)}
        write(options.json, named | {"rows": rows})


if __name__ == "__main__":
    main()
