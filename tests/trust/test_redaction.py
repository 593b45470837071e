"""Words of prompts are not where nobody asked for them."""

import json

import pytest

from trust.redaction import without_words

PROMPT = 'a "fox"\nin Köln\\'


@pytest.mark.parametrize("form", [PROMPT, repr(PROMPT), json.dumps(PROMPT), json.dumps(PROMPT, ensure_ascii=False)])
def test_a_prompt_is_taken_out_of_what_somebody_else_wrote(form: str) -> None:
    said = without_words(f"cannot read {form}, nor {form}: too odd", "", PROMPT)
    assert said.count("[prompt]") == 2
    assert "fox" not in said
    assert said.endswith("too odd")


def test_short_prompts_go_as_words_alone() -> None:
    assert without_words("at: a bad 'a'", "a") == "at: [prompt] bad '[prompt]'"
    assert without_words("the rest stays", "", "   ") == "the rest stays"
