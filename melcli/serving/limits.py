"""What one request, and all of them together, may ask of the server."""

from __future__ import annotations

from dataclasses import dataclass

MEGABYTE = 1_000_000


@dataclass(frozen=True, slots=True)
class Limits:
    """upload: bytes of a body. audio: seconds of a recording. text: characters to speak. queue: requests under way, uploads included.
    seconds: from the head of a request to the last byte of its answer. gather: seconds an idle model waits for more requests to join the first."""

    upload: int = 25 * MEGABYTE
    audio: float = 3600.0
    text: int = 4096
    queue: int = 128
    seconds: float = 300.0
    gather: float = 0.005
