"""Words of prompts beside the audit log: what stands in the log is their salted hash.

With salt and words, anybody can check that these are the words. With the salt alone, that words which he has are those:
so equal prompts are found though none is kept. Without either, nobody can learn anything: that is what erasing does.
"""

import hashlib
import json
import os
import re

from schemas.audit import AuditPrompts, Prompt, canonical, storable

_SALT_BYTES = 16


def words_of(prompt: str, negative_prompt: str = "") -> str:
    """What is hashed of a request: a canonical text of all that its client wrote."""
    told = {"prompt": storable(prompt)}
    if negative_prompt:
        told["negative_prompt"] = storable(negative_prompt)
    return canonical(told)


def redacted(words: str, keep: AuditPrompts) -> tuple[str, Prompt]:
    """(what stands in the log, what lies beside it), with a salt of its own."""
    salt = os.urandom(_SALT_BYTES).hex()
    return hash_of(words, salt), Prompt(salt, words if keep is AuditPrompts.KEEP else None)


def hash_of(words: str, salt: str) -> str:
    """SHA-256 over the salt's bytes and the words in UTF-8. Raises ValueError for a salt that is not hexadecimal."""
    return hashlib.sha256(bytes.fromhex(salt) + words.encode("utf-8", "surrogatepass")).hexdigest()


def matches(prompt_sha256: str | None, beside: Prompt | None, words: str) -> bool:
    """Whether these are the words of an entry; of one that was erased nobody can say."""
    return prompt_sha256 is not None and beside is not None and hash_of(words, beside.salt) == prompt_sha256


def without_words(text: str, *prompts: str) -> str:
    """What somebody else wrote, an error of a model or a scorer, without the prompts that it quotes: as they are, or as
    Python and JSON write them."""
    for prompt in filter(None, (prompt.strip() for prompt in prompts)):
        forms = (prompt, repr(prompt)[1:-1], json.dumps(prompt)[1:-1], json.dumps(prompt, ensure_ascii=False)[1:-1])
        for form in sorted(set(forms), key=len, reverse=True):
            if form in text:
                # As words: a prompt of one letter is in every text.
                text = re.sub(rf"(?<!\w){re.escape(form)}(?!\w)", "[prompt]", text)
    return text
