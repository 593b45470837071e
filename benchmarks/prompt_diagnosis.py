"""Does the diagnosis of a prompt predict that the clip misses? `python -m benchmarks.prompt_diagnosis [--quick]`.

Held-out combinations of colour, shape and motion are asked of the embedded model in the plain sentence, with harmless
words around it, and with what people get wrong: a misspelt word, a synonym that it never heard, the sentence behind
more words than its encoder reads, a "without". Each prompt is diagnosed (`prompts.diagnosis`) before it is rendered,
and each clip measured from its pixels. Reported: the share of misses with and without a finding, and their ratio. The
mistakes are made here, so the shares of findings say nothing of prompts that people write.
"""

import argparse
import json
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from benchmarks.embedded_quality import Case, cases, render
from benchmarks.report import write_report
from evaluation.clip_measure import judge, measure
from evaluation.statistics import Share, share_of
from models.embedded_variants import FPS, FRAMES, Sampler, variants
from prompts.diagnosis import Asked, diagnose
from schemas.catalog import shipped_catalog

_SYNONYMS = {
    "red": "vermilion", "orange": "apricot", "yellow": "lemon", "lime": "chartreuse", "green": "jade",
    "cyan": "cerulean", "blue": "cobalt", "purple": "mauve", "pink": "fuchsia", "circle": "roundel",
    "square": "quadrate", "triangle": "trigon", "star": "asterisk", "cross": "crucifix", "ring": "annulus",
}  # fmt: skip
_FILLER = "a beautiful clip with a simple design and smooth motion in a quiet place on a good day "


def _swapped(word: str) -> str:
    """A word with two letters in the other's place."""
    return word[0] + word[2] + word[1] + word[3:] if word[1] != word[2] else word[:-2] + word[:-3:-1]


def _another(shape: str) -> str:
    return "star" if shape != "star" else "circle"


SAYINGS: dict[str, Callable[[Case], str]] = {
    "plain": lambda case: case.prompt,
    "harmless words around": lambda case: f"a simple clip of {case.prompt}, smooth motion, clean design",
    "shape misspelt": lambda case: case.prompt.replace(case.shape, _swapped(case.shape)),
    "colour misspelt": lambda case: case.prompt.replace(case.colour, _swapped(case.colour), 1),
    "shape by an unheard synonym": lambda case: case.prompt.replace(case.shape, _SYNONYMS[case.shape]),
    "colour by an unheard synonym": lambda case: case.prompt.replace(case.colour, _SYNONYMS[case.colour], 1),
    "behind too many words": lambda case: _FILLER * 4 + case.prompt,
    "without another shape": lambda case: f"{case.prompt} without a {_another(case.shape)}",
}
"""Ways to ask for one case; what is asked for stays the same."""


@dataclass(frozen=True)
class Asking:
    """One prompt with what was found before, and whether the clip missed."""

    saying: str
    prompt: str
    found: tuple[str, ...]
    missed: bool


def ask(sampler: Sampler, wanted: Sequence[Case], batch: int) -> list[Asking]:
    """Every case in every way."""
    variant = shipped_catalog()["shapes" if sampler.variant.name == "embedded" else "shapes-turbo"]
    made: list[Asking] = []
    for saying, say in SAYINGS.items():
        told = [(case, say(case)) for case in wanted]
        clips, _ = render(sampler, [_Said(**asdict(case), said=prompt) for case, prompt in told], batch)
        for (case, prompt), clip in zip(told, clips, strict=True):
            asked = Asked(case.width, case.height, FPS, FRAMES / FPS)
            found = tuple(one.code for one in diagnose(prompt, "", asked, variant))
            verdict = judge(measure(clip), case.colour, case.shape, case.motion)
            made.append(Asking(saying, prompt, found, not verdict.everything))
    return made


@dataclass(frozen=True)
class _Said(Case):
    """A case that is asked for in other words."""

    said: str = ""

    @property
    def prompt(self) -> str:
        return self.said


def misses(askings: Sequence[Asking]) -> Share:
    """The share of clips that are not what was asked for."""
    return share_of([one.missed for one in askings])


def _line(name: str, share: Share) -> str:
    counted = f"{share.obeyed}/{share.asked}"
    return f"{name:34} {share.share:6.1%} {counted:>9}   [{share.low:.0%} to {share.high:.0%}]"


def main(arguments: Sequence[str] | None = None) -> None:
    """Parse, run, print."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.prompt_diagnosis", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="12 combinations, one seed")
    parser.add_argument("--seeds", type=int, default=2)
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--variant", default="embedded", choices=[one.name for one in variants()])
    parser.add_argument("--json", type=Path, help="write the report here")
    given = parser.parse_args(arguments)
    wanted = cases(1, 12) if given.quick else cases(given.seeds)
    sampler = Sampler(next(one for one in variants() if one.name == given.variant))
    made = ask(sampler, wanted, given.batch)
    with_finding = misses([one for one in made if one.found])
    without = misses([one for one in made if not one.found])
    print(f"{given.variant}: clips that miss, of {len(made)}; Wilson 95 %")
    print(_line("with a finding", with_finding))
    print(_line("without", without))
    ratio = with_finding.share / without.share if without.share else float("inf")
    print(f"a prompt with a finding misses {ratio:.1f} times as often")
    by_saying = {saying: misses([one for one in made if one.saying == saying]) for saying in SAYINGS}
    for saying, share in by_saying.items():
        codes = sorted({code for one in made if one.saying == saying for code in one.found})
        print(_line(saying, share), ", ".join(codes) or "nothing found")
    figures = {
        "variant": given.variant,
        "with_a_finding": asdict(with_finding),
        "without": asdict(without),
        "ratio": ratio,
        "by_saying": {saying: asdict(share) for saying, share in by_saying.items()},
        "askings": [asdict(one) for one in made],
    }
    print(f"written: {write_report('prompt_diagnosis', json.loads(json.dumps(figures)), given.json)}")


if __name__ == "__main__":
    main()
