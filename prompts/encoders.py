"""What a variant's text encoder reads of a prompt: how many tokens, and which words are in its vocabulary.

With the tokenizer on this machine (weights in a folder, embedded ones, a hub's snapshot in the cache) tokens are
counted exactly, by the very tokenizer that the pipeline uses. Without it nothing is fetched: the count is an estimate
from the words, and says so.
"""

import re
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

from models.weights import local_tokenizer
from schemas.catalog import Variant

# The default of `max_sequence_length` in the call of each class (diffusers 0.42), held against the signatures by a
# test; CLIP has 77 places.
_MOST_TOKENS = {
    "AnimateDiff": 77,
    "Hotshot": 77,
    "CogVideoX": 226,
    "Cosmos2_5": 512,
    "HunyuanVideo15": 1000,
    "HunyuanVideo": 256,
    "LTX2": 1024,
    "LTXCondition": 256,
    "LTX": 128,
    "Lucy": 512,
    "Mochi": 256,
    "Wan": 512,
}
# A rule of thumb for English; punctuation counts as a token. Nothing hangs on it but a warning that says "about".
_TOKENS_A_WORD = 1.3
_MOST_WORDS = 100_000
_WORD_OR_MARK = re.compile(r"\w+(?:['’]\w+)?|[^\w\s]")


@dataclass(frozen=True)
class TokenCount:
    """Of one text. `read` is how much of it the encoder reads: an index into the text; None where that is not known."""

    tokens: int
    exact: bool
    read: int | None


class TextEncoder:
    """What the text encoder of a variant takes. `most_tokens` is None where no limit is known."""

    def __init__(self, most_tokens: int | None, tokenizer_file: Path | None = None) -> None:
        self.most_tokens = most_tokens
        self._tokenizer: Any = None
        self._unknown: int | None = None
        self._lacking: dict[str, tuple[str, ...]] = {}
        if tokenizer_file is not None:
            from tokenizers import Tokenizer

            self._tokenizer = Tokenizer.from_file(str(tokenizer_file))
            # A file may carry the padding and the cut of whoever saved it.
            self._tokenizer.no_padding()
            self._tokenizer.no_truncation()
            found = [self._tokenizer.token_to_id(name) for name in ("<unk>", "[UNK]")]
            self._unknown = next((one for one in found if one is not None), None)

    @property
    def is_exact(self) -> bool:
        """Whether its tokenizer is here."""
        return self._tokenizer is not None

    def count(self, text: str) -> TokenCount:
        """How many tokens a text has."""
        if self._tokenizer is None:
            return TokenCount(round(len(_WORD_OR_MARK.findall(text)) * _TOKENS_A_WORD), False, None)
        made = self._tokenizer.encode(text)
        read = len(text)
        if self.most_tokens is not None and len(made.ids) > self.most_tokens:
            # The last place is the end mark's.
            read = next((start for start, end in made.offsets[self.most_tokens - 1 :] if end > start), len(text))
        return TokenCount(len(made.ids), True, read)

    def unknown(self, text: str) -> tuple[str, ...]:
        """The parts of a text that the encoder's vocabulary lacks, each once; none without the tokenizer."""
        if self._tokenizer is None:
            return ()
        found: dict[str, None] = {}
        for word in text.split():  # a manifest has few words in many rows
            lacking = self._lacking.get(word)
            if lacking is None:
                if len(self._lacking) >= _MOST_WORDS:
                    self._lacking.clear()
                lacking = self._lacking[word] = self._unknown_parts(word)
            found |= dict.fromkeys(lacking)
        return tuple(found)

    def _unknown_parts(self, word: str) -> tuple[str, ...]:
        made = self._tokenizer.encode(word)
        spans = zip(made.ids, made.offsets, strict=True)
        return tuple(word[start:end] for one, (start, end) in spans if end > start and one == self._unknown)


def most_tokens(variant: Variant) -> int | None:
    """Tokens of a prompt that the variant's pipeline reads: what its catalog entry says, else its class's default."""
    said = variant.call_options.get("max_sequence_length")
    if isinstance(said, int) and not isinstance(said, bool):
        return said
    return next((most for name, most in _MOST_TOKENS.items() if variant.pipeline.startswith(name)), None)


def text_encoder_of(variant: Variant) -> TextEncoder:
    """The text encoder of a variant, with its tokenizer where that is on this machine."""
    return _text_encoder(most_tokens(variant), variant.weights, variant.revision)


@lru_cache(maxsize=64)
def _text_encoder(most: int | None, weights: str, revision: str | None) -> TextEncoder:
    return TextEncoder(most, local_tokenizer(weights, revision))
