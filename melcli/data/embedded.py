"""Audio that is kept inside a data set: the bytes behind the addresses of utterances."""

from __future__ import annotations

from melcli.data import hf, parquet

EMBEDDED = ("hf:", parquet.PREFIX)


def load_bytes(address: str) -> bytes:
    """The encoded audio that an address with a prefix of EMBEDDED stands for. Raises ManifestError."""
    return (parquet if address.startswith(parquet.PREFIX) else hf).load_bytes(address)
