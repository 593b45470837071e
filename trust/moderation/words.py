"""The word list: words and phrases by category, found in prompts however they are written, within reason.

    violence = ["behead", "blow up*"]                       # one of them: a score of 1
    public_figure = { score = 0.6, words = ["jane doe"] }

A word is found as a whole, in any case; a phrase as those words one after the other, whatever stands between them; with
`*` at its end it also is the beginning of a longer word. Entries in scripts that put no spaces between words (Chinese,
Japanese, Thai …) are found anywhere.

| written as | found |
| --- | --- |
| `BEHEAD`, `Béhead`, `ｂｅｈｅａｄ` (other forms of letters), with invisible characters in it | yes |
| `b3head`, `behe@d`, `$hoot` (digits and signs for letters) | yes |
| `b e h e a d`, `b.e.h.e.a.d`, `斬 首` | yes |
| `behеad` (letters of other alphabets among Latin ones that they look like, and the other way round) | yes |
| `🅑🅔🅗🅔🅐🅓`, `ʙᴇʜᴇᴀᴅ`, `bɇhɇad` (in circles and boxes, small capitals, with strokes) | yes |
| `behhhead` (one letter drawn out), `behead2` (numbers at an end) | yes |
| with or without accents, and vowel signs of Hebrew and Arabic | yes |
| other words for it, misspellings, other languages, `beheaded` without `*`, phrases run together (`blowup`), the word
backwards, in Base64, with all of its letters of another alphabet … | no |

Nor does it understand: "nobody is beheaded" has the word in it. What it does not find is for a classifier.
"""

import re
import tomllib
import unicodedata
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from schemas.errors import ConfigError

# Marks are parts of words where vowels are written around their letters: of India and its neighbours, the Near East.
_MARKS = "".join(
    chr(code)
    for first, below in ((0x300, 0x1C00), (0xA800, 0xAC00), (0x11000, 0x11A00))
    for code in range(first, below)
    if unicodedata.category(chr(code)) in ("Mn", "Mc")
)
_LETTER = rf"(?:[^\W_]|[{_MARKS}])"
_WORD, _ASCII_WORD = re.compile(rf"{_LETTER}+"), re.compile(r"[^\W_]+")
# As above, with the signs that stand for letters; at the end an exclamation mark is one.
_DISGUISED = re.compile(rf"(?:{_LETTER}|[@$€]|!(?=[^\W_]|[@$!€]+[^\W_]))+")
_SIGN = re.compile(r"[\d@$!€]")
_LETTERS_FOR = str.maketrans("4@3€0$57", "aaeeosst")
_ONE_FOR = (str.maketrans("1!", "ii"), str.maketrans("1!", "ll"))
_NUMBERED = re.compile(r"^\d+|\d+$")
_DRAWN_OUT = re.compile(r"(\w)\1{2,}")
_SPELT_OUT = 3  # single letters in a row are a word from so many on
# Thai, Lao, Tibetan, Burmese, Khmer, Tai; kana, bopomofo; Han.
_UNSPACED = re.compile(
    "[\u0e00-\u109f\u1780-\u17ff\u1950-\u19df\u1a20-\u1aaf\u3040-\u312f\u31a0-\u31ff\u3400-\u4dbf\u4e00-\u9fff"
    "\ua9e0-\ua9ff\uaa60-\uaadf\uf900-\ufaff\U00020000-\U0003ffff]"
)
_LATIN = re.compile("[a-z\u00df-\u024f\u0250-\u02af\u1d00-\u1d22\ua730\ua731]")
_CONTROLS = {code: None for code in (*range(9), *range(14, 28), *range(127, 160)) if not chr(code).isspace()}
# Not seen though they are no format characters: joiners, choosers of forms, fillers.
_UNSEEN = "\u034f\u115f-\u1160\u17b4-\u17b5\u180b-\u180f\u3164\ufe00-\ufe0f\uffa0\U000e0100-\U000e01ef"
# Words are the same without: accents, strokes and circles over letters, vowel signs of Hebrew and Arabic, what draws
# Arabic words out.
_ACCENTS = (
    "\u0300-\u036f\u0483-\u0489\u0591-\u05bd\u05bf\u05c1\u05c2\u05c4\u05c5\u05c7\u0610-\u061a\u0640\u064b-\u065f"
    "\u0670\u06d6-\u06dc\u06df-\u06e4\u06e7\u06e8\u06ea-\u06ed\u1ab0-\u1aff\u1dc0-\u1dff\u20d0-\u20ff\ufe20-\ufe2f"
)
_LEFT_OUT = re.compile(f"[{_UNSEEN}{_ACCENTS}]")
# White letters on black circles and boxes, which Unicode takes for pictures.
_BOXED = {first + letter: chr(ord("a") + letter) for first in (0x1F150, 0x1F170) for letter in range(26)}
# Each Latin letter with those that look like it, in lower case: Cyrillic, Greek, Armenian, Latin ones with strokes and
# hooks, small capitals.
_LOOK_ALIKES = {
    ord(other): group[0]
    for group in " ".join(
        (
            "aаαɑɐɒᴀ bвьβƀɓʙъ cсɕᴄςƈ dԁđɖɗᴅժ eеєεҽǝəɘɛɇᴇ fғƒꜰք gɡɠɢցԍ hһнħɦʜհ iіιıɨɩɪ jјɉʝᴊյ kкκқҝҡҟƙᴋ",
            "lӏłƚɫɬɭʟլ mмɱᴍ nпηɲɳŋɴոռ oоοσøɵɔօᴏ pрρƥᴘ qԛʠզ rгɍɽɾʀ sѕʂꜱ tтτŧʈᴛ uυμʉսᴜ vνѵʋᴠ wωԝɯʍաᴡ xхχҳ",
            "yуүұγɏʏ zᴢƶʐʑ",
        )
    ).split()
    for other in group[1:]
}

View = tuple[str, ...]


@dataclass(frozen=True)
class _Entry:
    words: View
    is_prefix: bool
    category: str


@dataclass(frozen=True)
class WordList:
    """A list that has been read: small, and travels. `scores`: of each category, where one of its words is found."""

    scores: Mapping[str, float]
    entries: tuple[_Entry, ...]
    unspaced: tuple[tuple[str, str], ...]  # text, category

    def __post_init__(self) -> None:
        by_first: dict[str, list[_Entry]] = {}
        prefixes: dict[str, list[str]] = {}
        for entry in self.entries:
            if entry.is_prefix and len(entry.words) == 1:
                prefixes.setdefault(entry.words[0], []).append(entry.category)
            else:
                by_first.setdefault(entry.words[0], []).append(entry)
        object.__setattr__(self, "_by_first", by_first)
        object.__setattr__(self, "_prefixes", prefixes)
        object.__setattr__(self, "_prefix_lengths", tuple(sorted({len(prefix) for prefix in prefixes})))

    def score_text(self, prompts: Sequence[str]) -> list[dict[str, float]]:
        """The categories of which a prompt has a word."""
        return [{category: self.scores[category] for category in sorted(self.found(prompt))} for prompt in prompts]

    def found(self, prompt: str) -> set[str]:
        text = _plain(prompt)
        found: set[str] = set()
        if self.unspaced and _UNSPACED.search(text):
            spelt = " ".join(_spelt_out(tuple(_WORD.findall(text)), 2))
            found.update(category for entry, category in self.unspaced if entry in text or entry in spelt)
        for view in dict.fromkeys(_views(text)):
            found.update(self._in(view))
        return found

    def _in(self, view: View) -> Iterator[str]:
        by_first: Mapping[str, list[_Entry]] = self._by_first  # type: ignore[attr-defined]
        prefixes: Mapping[str, list[str]] = self._prefixes  # type: ignore[attr-defined]
        for at, word in enumerate(view):
            for length in self._prefix_lengths:  # type: ignore[attr-defined]
                yield from prefixes.get(word[:length], ())
            for entry in by_first.get(word, ()):
                if _matches(view[at : at + len(entry.words)], entry):
                    yield entry.category


def read_word_list(path: Path) -> WordList:
    """The list in a TOML file. Raises ConfigError with file, category and what is wrong."""
    path = path.expanduser()
    try:
        table = tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeError, tomllib.TOMLDecodeError) as error:
        raise ConfigError(f"word_list: {path}: {error}") from error
    try:
        return word_list(table)
    except ValueError as error:
        raise ConfigError(f"word_list: {path}: {error}") from error


def word_list(table: Mapping[str, Any]) -> WordList:
    """From words by category, as the file has them. Raises ValueError with category and entry."""
    scores: dict[str, float] = {}
    entries: list[_Entry] = []
    unspaced: list[tuple[str, str]] = []
    for category, given in table.items():
        words, score = (given.get("words"), given.get("score", 1.0)) if isinstance(given, dict) else (given, 1.0)
        if isinstance(given, dict) and (odd := given.keys() - {"words", "score"}):
            raise ValueError(f"{category}: unknown {min(odd)!r}; available: score, words")
        if not isinstance(words, list) or not words:
            raise ValueError(f"{category}: must be a list of words, or a table with `words` and `score`")
        if isinstance(score, bool) or not isinstance(score, int | float) or not 0 < score <= 1:
            raise ValueError(f"{category}: the score {score!r} is not above 0 and at most 1")
        scores[category] = float(score)
        for word in words:
            if not isinstance(word, str):
                raise ValueError(f"{category}: {word!r} is no text")
            text, is_prefix = _plain(word.removesuffix("*")).strip(), word.endswith("*")
            if _UNSPACED.search(text):
                unspaced.append((text, category))
                continue
            parts = tuple(_WORD.findall(text))
            if not parts:
                raise ValueError(f"{category}: {word!r} has no letter or digit")
            entries.append(_Entry(parts, is_prefix, category))
            if not text.isascii():
                entries.append(_Entry(tuple(map(_as_looked_at, parts)), is_prefix, category))
    if not scores:
        raise ValueError("no categories in it")
    return WordList(scores, tuple(entries), tuple(unspaced))


def _matches(words: View, entry: _Entry) -> bool:
    if len(words) < len(entry.words) or words[:-1] != entry.words[:-1]:
        return False
    last = entry.words[-1]
    return words[-1].startswith(last) if entry.is_prefix else words[-1] == last


def _plain(text: str) -> str:
    """One form of each letter, without case, accents and what is not seen."""
    text = text.translate(_CONTROLS)
    if text.isascii():
        return text.lower()
    folded = unicodedata.normalize("NFKD", unicodedata.normalize("NFKC", text.translate(_BOXED)).casefold())
    kept = (char for char in _LEFT_OUT.sub("", folded) if char.isascii() or unicodedata.category(char) != "Cf")
    return unicodedata.normalize("NFC", "".join(kept))


def _views(text: str) -> Iterator[View]:
    """The text's words as they stand, and as they would be read by somebody who sees through a disguise. Most texts
    have none, and one view."""
    plain = seen = tuple((_ASCII_WORD if text.isascii() else _WORD).findall(text))
    yield plain
    yield _spelt_out(plain)
    if not text.isascii():
        seen = tuple(map(_without_look_alikes, plain))
        yield seen
        yield tuple(_as_looked_at(word) if _LATIN.search(word) else word for word in plain)
    if _DRAWN_OUT.search(text):
        for letters in (r"\1", r"\1\1"):
            yield tuple(_DRAWN_OUT.sub(letters, word) for word in seen)
    if _SIGN.search(text):
        disguised = tuple(map(_without_look_alikes, _DISGUISED.findall(text)))
        for words in (disguised, _spelt_out(disguised)):
            for one in _ONE_FOR:
                yield tuple(_undisguised(word, one) for word in words)
        yield tuple(_NUMBERED.sub("", word) or word for word in seen)


def _without_look_alikes(word: str) -> str:
    """A word of another alphabet is one of its own language: only in mixed company do its letters pretend."""
    return word.translate(_LOOK_ALIKES) if _LATIN.search(word) else word


def _as_looked_at(word: str) -> str:
    """A word that is not all Latin as it looks. With a mark: what looks so and is Latin is another word."""
    return word if word.isascii() else "\0" + word.translate(_LOOK_ALIKES)


def _undisguised(word: str, one: dict[int, int]) -> str:
    """Digits and signs among letters read as the letters that they stand for; numbers and prices stay what they are."""
    is_number = _SIGN.sub("", word) == "" and any(map(str.isdigit, word))
    return word if is_number else word.translate(one).translate(_LETTERS_FOR)


def _spelt_out(words: View, least: int = _SPELT_OUT) -> View:
    """Runs of single characters as the words that they spell; () where there is none."""
    found: list[str] = []
    run: list[str] = []
    for word in (*words, "--"):
        if len(word) == 1:
            run.append(word)
            continue
        if len(run) >= least:
            found.append("".join(run))
        run = []
    return tuple(found)
