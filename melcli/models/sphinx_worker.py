"""What a process that only runs pocketsphinx needs: no torch, so that it starts at once."""

from __future__ import annotations

import functools
from typing import Any


@functools.cache
def _decoder() -> Any:
    """The decoder with the US English model that comes with pocketsphinx; one a process."""
    from pocketsphinx import Decoder

    return Decoder(samprate=16000, cmn="batch", loglevel="FATAL")


def decode(pcm: bytes) -> str:
    """The words heard in 16-bit mono samples at 16 kHz.

    The whole utterance is given at once, so that its cepstral mean is its own: then nothing that was heard before changes what is heard.
    """
    decoder = _decoder()
    decoder.start_stream()  # forgets the noise of what was heard before
    decoder.start_utt()
    decoder.process_raw(pcm, no_search=False, full_utt=True)
    decoder.end_utt()
    best = decoder.hyp()
    return "" if best is None else best.hypstr
