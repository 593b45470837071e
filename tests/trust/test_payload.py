"""The payload survives symbols that are wrong or missing, up to what was promised."""

import random

import pytest

from trust.payload import PAYLOAD_BYTES, SYMBOLS, payload_of, read_symbols, symbols_of

PAYLOAD = bytes.fromhex("0123456789abcdef")


def broken(wrong: int, seed: int) -> tuple[bytes, list[int]]:
    symbols, chosen = bytearray(symbols_of(PAYLOAD)), random.Random(seed)
    places = chosen.sample(range(SYMBOLS), wrong)
    for place in places:
        symbols[place] ^= chosen.randrange(1, 256)
    return bytes(symbols), places


@pytest.mark.parametrize("seed", range(20))
@pytest.mark.parametrize("wrong", [0, 1, 2])
def test_symbols_that_are_wrong_with_certainty_are_mended(wrong: int, seed: int) -> None:
    symbols, _ = broken(wrong, seed)
    assert read_symbols(symbols, [1.0] * SYMBOLS) == PAYLOAD


@pytest.mark.parametrize("seed", range(20))
def test_three_that_were_read_with_little_certainty_are_mended(seed: int) -> None:
    symbols, places = broken(3, seed)
    assert read_symbols(symbols, [0.1 if at in places else 1.0 for at in range(SYMBOLS)]) == PAYLOAD


def test_symbols_of_no_payload_are_not_read() -> None:
    chosen = random.Random(1)
    read = [read_symbols(chosen.randbytes(SYMBOLS), [1.0] * SYMBOLS) for _ in range(20)]
    assert None in read


def test_the_payload_is_the_beginning_of_the_fingerprint_or_of_an_ids_digest() -> None:
    assert payload_of("0123456789abcdef" * 2) == PAYLOAD
    assert payload_of("3f2c-9a") != payload_of("3f2c-9b")
    assert len(payload_of("x")) == PAYLOAD_BYTES
    with pytest.raises(ValueError, match="a payload of 3 bytes"):
        symbols_of(b"abc")
