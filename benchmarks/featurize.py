"""How fast are features: mel extraction alone, then the whole of featurize, each beside its peers.

    python benchmarks/featurize.py --root ../shared/data --results benchmarks/results

Runs featurize_mel.py on real recordings and featurize_store.py on an hour of them; see there for what exactly is measured.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
from pathlib import Path


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--root", type=Path, default=Path("../shared/data"), help="where corpora are")
    parser.add_argument("--results", type=Path, help="a folder for the figures as JSON")
    options = parser.parse_args()
    here = Path(__file__).parent
    audio = options.root / "librispeech" / "LibriSpeech" / "train-clean-100"
    runs = {
        "featurize_mel": ["--audio", str(audio)] if audio.is_dir() else [],
        "featurize_store": ["--root", str(options.root)],
    }
    for name, arguments in runs.items():
        report = ["--json", str(options.results / f"{name}.json")] if options.results else []
        subprocess.run([sys.executable, str(here / f"{name}.py"), *arguments, *report], check=True)


if __name__ == "__main__":
    main()
