"""All scorers of the settings asked and one outcome told; a scorer that fails costs what it was asked about alone."""

from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from actors.moderator import Moderator, check_moderation, open_moderator
from models.model import TaskMedia
from schemas.config import read_config
from schemas.errors import ConfigError
from schemas.moderation import ModeratedPart, ModerationOutcome, ModerationSettings, OnError
from tests.models.tiny_classifiers import save_frame_classifier, save_text_classifier
from tests.scripted_scorer import AMBER, NAME, RED

ALLOW, FLAG, REFUSE = ModerationOutcome


def moderator(**given: Any) -> Moderator:
    return Moderator(ModerationSettings(**given), read_config())


@pytest.fixture(scope="module")
def scripted() -> Iterator[Moderator]:
    with closing(moderator(scorers=(NAME,), frames=3)) as found:
        yield found


def clip(*colours: tuple[int, int, int]) -> np.ndarray:
    return np.stack([np.full((16, 16, 3), colour, np.uint8) for colour in colours])


def test_prompts_are_told_of_in_order_and_equal_ones_alike(scripted: Moderator) -> None:
    prompts = ["fine", "FORBIDDEN", "", "DOUBTFUL", "fine", "FORBIDDEN"]
    assert [one.outcome for one in scripted.texts(prompts)] == [ALLOW, REFUSE, ALLOW, FLAG, ALLOW, REFUSE]
    (refused,) = scripted.texts(["FORBIDDEN"])
    assert refused.code == "SAFETY.INPUT.TEXT"
    assert str(refused) == f"INPUT.TEXT: violence 0.99 by {NAME} (refuse)"


@pytest.mark.parametrize(("how", "outcome"), [("refuse", REFUSE), ("flag", FLAG), ("off", ALLOW)])
def test_negative_prompts_are_looked_at_as_the_settings_say(
    tmp_path: Path, how: str, outcome: ModerationOutcome
) -> None:
    (tmp_path / "words.toml").write_text('violence = ["behead"]')
    with closing(moderator(word_list=tmp_path / "words.toml", negative_prompts=how)) as found:
        fine, negative, both = found.texts(["a", "b", "behead"], negatives=["", "behead him", "behead her"])
    assert (fine.outcome, negative.outcome, both.outcome) == (ALLOW, outcome, REFUSE)
    assert both.told == "content moderation refused the prompt: violence"
    if outcome is REFUSE:
        assert (negative.code, negative.told) == (
            "SAFETY.INPUT.TEXT",
            "content moderation refused the negative prompt: violence",
        )
    digests = {ModerationSettings(scorers=(NAME,), negative_prompts=one).frames_digest for one in ("refuse", "off")}
    assert len(digests) == 1, "what was refused for its frames is not rendered again for this"


def test_a_public_figure_is_flagged_where_the_client_asked_for_less_strictness(scripted: Moderator) -> None:
    assert scripted.texts(["FAMOUS"])[0].outcome is REFUSE
    assert scripted.texts(["FAMOUS"], "low")[0].outcome is FLAG


def test_images_videos_and_clips_have_codes_of_their_own(scripted: Moderator) -> None:
    red, blue = (Image.new("RGB", (16, 16), colour) for colour in (RED, (0, 0, 255)))
    assert scripted.media(TaskMedia((red,))).code == "SAFETY.INPUT.IMAGE"
    assert scripted.media(TaskMedia(((blue, blue, red),))).code == "SAFETY.INPUT.VIDEO"
    assert scripted.media(TaskMedia((blue,))).outcome is ALLOW
    assert scripted.media(TaskMedia((blue, (blue, blue), red))).code == "SAFETY.INPUT.IMAGE", "every input is looked at"
    found = TaskMedia((blue,), originals=(red,))
    assert scripted.media(found).code == "SAFETY.INPUT.IMAGE", "what a structure was found in is looked at too"
    assert scripted.media(TaskMedia()).outcome is ALLOW
    assert scripted.clip(clip(RED)).code == "SAFETY.OUTPUT.VIDEO"
    assert scripted.clip(clip(AMBER)).outcome is FLAG


def test_of_a_clip_the_first_and_the_last_frame_and_some_between_are_looked_at(scripted: Moderator) -> None:
    black = [(0, 0, 0)] * 9
    for at, outcome in ((0, REFUSE), (4, REFUSE), (8, REFUSE), (2, ALLOW)):
        colours = [*black[:at], RED, *black[at + 1 :]]
        assert scripted.clip(clip(*colours)).outcome is outcome, at


@pytest.mark.parametrize(("deed", "said"), [("RAISE", "RuntimeError: the prompt said so"), ("NONSENSE", "ValueError")])
def test_a_prompt_that_a_scorer_fails_on_is_refused_and_its_neighbours_are_not(
    scripted: Moderator, deed: str, said: str
) -> None:
    before, failed, after = scripted.texts(["fine", deed, "FORBIDDEN"])
    assert (before.outcome, after.code) == (ALLOW, "SAFETY.INPUT.TEXT")
    assert (failed.outcome, failed.code) == (REFUSE, "INTERNAL")
    assert said in str(failed)


def test_what_a_scorer_says_as_it_fails_has_no_words_of_prompts_in_it(scripted: Moderator) -> None:
    prompts = [f"QUOTE the secret\nof n° {number}" for number in range(5)]
    found = scripted.texts(prompts)
    assert all(one.code == "INTERNAL" for one in found)
    assert "cannot read [prompt]" in str(found[0])
    assert "not asked" in str(found[4])
    assert "secret" not in "".join(map(str, found))


@pytest.mark.parametrize(("deed", "said"), [("DIE", "its process ended with code 3"), ("HANG", "not done within")])
def test_one_that_dies_or_hangs_is_begun_again_for_the_others(deed: str, said: str) -> None:
    with closing(moderator(scorers=(NAME,), timeout_s=10.0)) as found:
        before, failed, after = found.texts(["fine", deed, "FORBIDDEN"])
        assert (before.outcome, after.code) == (ALLOW, "SAFETY.INPUT.TEXT")
        assert failed.code == "INTERNAL"
        assert said in str(failed)


def test_failing_open_lets_it_pass_and_says_so() -> None:
    with closing(moderator(scorers=(NAME,), on_error=OnError.ALLOW)) as found:
        (failed,) = found.texts(["RAISE"])
        assert (failed.outcome, failed.code) == (FLAG, "")
        assert "could not score it: RuntimeError" in str(failed)


def test_a_scorer_that_fails_on_everything_is_not_asked_about_the_rest() -> None:
    with closing(moderator(scorers=(NAME,))) as found:
        told = found.texts([f"RAISE {number}" for number in range(5)])
        assert {one.code for one in told} == {"INTERNAL"}
        assert ["not asked" in str(one) for one in told] == [False, False, False, True, True]


def test_one_that_cannot_be_loaded_is_tried_again_after_a_while_only() -> None:
    now = [0.0]
    settings = ModerationSettings(scorers=("tests.scripted_scorer:Gone",))
    with closing(Moderator(settings, read_config(), clock=lambda: now[0])) as found:
        first = found.texts(["fine"])[0]
        assert first.code == "INTERNAL"
        assert "has no attribute 'Gone'" in str(first)
        assert found.texts(["fine"]) == [first]
        now[0] = 31.0
        assert found.texts(["fine"]) == [first]


def test_word_list_and_classifiers_speak_together(tmp_path: Path) -> None:
    words = tmp_path / "words.toml"
    words.write_text("violence = ['behead']")
    given = {
        "word_list": words,
        "text_classifier": str(save_text_classifier(tmp_path / "text")),
        "frame_classifier": str(save_frame_classifier(tmp_path / "frames")),
    }
    with closing(moderator(**given)) as found:
        both, words_only, fine = found.texts(["behead the vile", "behead", "a circle"])
        assert {one.scorer for one in both.findings} == {"words", "text_classifier"}
        assert {one.scorer for one in words_only.findings} == {"words"}
        assert fine.outcome is ALLOW
        red = found.clip(clip(RED))
        assert [(one.category, one.scorer) for one in red.findings] == [("red", "frame_classifier")]
        assert red.code == ModeratedPart.OUTPUT_VIDEO.code
    said = check_moderation(ModerationSettings(**given))
    assert said.startswith(f"moderation by 1 words of {words}, text_classifier ")
    assert said.endswith("what cannot be scored is refused (fails closed)")


def test_without_scorers_nobody_is_asked() -> None:
    assert open_moderator(ModerationSettings(), read_config()) is None
    assert check_moderation(ModerationSettings()) == ""


def test_what_cannot_be_is_said_before_anything_is_rendered(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"word_list: .*gone.toml"):
        check_moderation(ModerationSettings(word_list=tmp_path / "gone.toml"))
    with pytest.raises(ConfigError, match="scorers: unknown 'mine'"):
        check_moderation(ModerationSettings(scorers=("mine",)))
