"""The payload of a watermark: 64 bits as 12 symbols of 8, of which any 2 may be wrong, or any 4 be missing.

Reed–Solomon over GF(256), by `reedsolo`. A symbol that was read with little certainty is given up beforehand (an
erasure), which costs half as much as one that is wrong.
"""

import hashlib
from collections.abc import Sequence
from typing import Any

from trust.extra import library

PAYLOAD_BYTES = 8
SYMBOLS = 12
# The fewer are given up, the surer it is that what comes out is what went in: with all four any symbols would do.
_ERASED = (0, 1, 2, 3)


def payload_of(fingerprint: str) -> bytes:
    """The first 64 bits of a fingerprint; of an id that is none, of its digest."""
    digits = fingerprint[: 2 * PAYLOAD_BYTES]
    if len(digits) == 2 * PAYLOAD_BYTES and all(digit in "0123456789abcdef" for digit in digits):
        return bytes.fromhex(digits)
    return hashlib.sha256(fingerprint.encode()).digest()[:PAYLOAD_BYTES]


def symbols_of(payload: bytes) -> bytes:
    """The payload and its check symbols. ConfigError without the extra."""
    if len(payload) != PAYLOAD_BYTES:
        raise ValueError(f"a payload of {len(payload)} bytes; it has {PAYLOAD_BYTES}")
    return bytes(_codec().encode(payload))


def read_symbols(symbols: bytes, certainty: Sequence[float]) -> bytes | None:
    """The payload, when the symbols are near enough to one; the least certain are given up, as few as do."""
    codec, reedsolo = _codec(), library("reedsolo")
    least = sorted(range(SYMBOLS), key=lambda at: certainty[at])
    for count in _ERASED:
        try:
            return bytes(codec.decode(symbols, erase_pos=least[:count])[0])
        except reedsolo.ReedSolomonError:
            continue
    return None


def _codec() -> Any:
    return library("reedsolo").RSCodec(SYMBOLS - PAYLOAD_BYTES)
