"""Directing a shot on the page: what is drawn and set there is what the endpoint is told."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from selenium.webdriver import Chrome
from selenium.webdriver.common.action_chains import ActionChains
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys
from selenium.webdriver.support.select import Select

from serve.config import Pools
from tests.serve.http.endpoint import Endpoint, OwnIntake, catalog_with, endpoint, pool
from tests.serve.page.fleet import film
from tests.serve.page.test_page import at, enter, no_errors, photograph, probe, text, until, write

pytestmark = pytest.mark.slow

TOLD = ("first_frame", "last_frame", "source", "mask", "structure:edges", "structure:boxes", "style", "paths", "camera")


@pytest.fixture
def served(tmp_path: Path) -> Iterator[Endpoint]:
    catalog = catalog_with({"directed": 0.6}, directed={"conditions": TOLD})
    pools = Pools(variants=("embedded", "directed", "ltx-2"))
    with endpoint(tmp_path, catalog, OwnIntake(), pools=pools, loras=("owner/ink", "owner/clay")) as running:
        running.note(pool("shapes"), pool("directed"), pool("ltx-2"))
        yield running


@pytest.fixture
def page(browser: Chrome, served: Endpoint) -> Chrome:
    """The part of the form that directs, open, for the model that takes all of it."""
    enter(browser, served)
    until(lambda: len(Select(at(browser, "#variant")).options) > 2, "the models")
    Select(at(browser, "#variant")).select_by_value("directed")
    Select(at(browser, "#ratio")).select_by_value("128:128")
    at(browser, "#direct summary").click()
    return browser


def sent(page: Chrome, served: Endpoint, prompt: str = "a red circle") -> Any:
    """Send the form; the request of the task that it made."""
    before = len(served.store.tasks.recent(20))
    write(page, prompt)
    at(page, "#submit").click()
    until(lambda: len(served.store.tasks.recent(20)) > before or text(page, "#form-error"), "an answer")
    assert text(page, "#form-error") == ""
    return served.store.tasks.recent(1)[0].request


def give(page: Chrome, role: str, file: Path) -> None:
    """Add an input."""
    at(page, "#input-add").click()
    row = page.find_elements(By.CSS_SELECTOR, "#inputs .entry")[-1]
    Select(row.find_element(By.TAG_NAME, "select")).select_by_value(role)
    row = page.find_elements(By.CSS_SELECTOR, "#inputs .entry")[-1]
    row.find_element(By.CSS_SELECTOR, "input[type=file]").send_keys(str(file))
    until(lambda: file.name in text(page, "#inputs .entry"), "the file")


def on_stage(page: Chrome, *places: tuple[float, float], held: bool = False) -> None:
    """Click at each place, in shares of the stage, or go there with the button held down."""
    stage = at(page, "#stage")
    page.execute_script("arguments[0].scrollIntoView({block: 'center'})", stage)
    wide, high = stage.size["width"], stage.size["height"]
    moves = ActionChains(page, duration=20)
    for number, (x, y) in enumerate(places):
        moves.move_to_element_with_offset(stage, round((x - 0.5) * wide), round((y - 0.5) * high))
        if not held:
            moves.click()
        elif number == 0:
            moves.click_and_hold()
    if held:
        moves.release()
    moves.perform()


def slide(page: Chrome, slider: str, value: float) -> None:
    move = "arguments[0].value = arguments[1]; arguments[0].dispatchEvent(new Event('input', {bubbles: true}))"
    page.execute_script(move, at(page, slider), value)


def test_a_path_that_is_drawn_is_the_path_that_is_sent(page: Chrome, served: Endpoint, shots: Path) -> None:
    at(page, "#path-label").send_keys("red circle")
    on_stage(page, (0.1, 0.1), (0.3, 0.3), held=True)
    on_stage(page, (0.8, 0.4), (0.3, 0.8))
    rows = page.find_elements(By.CSS_SELECTOR, "#path-keys li")
    assert len(rows) == 2
    photograph(page, shots / "path.png")
    (path,) = sent(page, served).paths
    assert path.label == "red circle"
    assert path.box == pytest.approx((0.1, 0.1, 0.3, 0.3), abs=0.01)
    assert [(key.x, key.y) for key in path.keys] == [pytest.approx(at, abs=0.01) for at in ((0.8, 0.4), (0.3, 0.8))]
    assert path.keys[1].at_s == pytest.approx(2 * path.keys[0].at_s, abs=0.01), "evenly, until a time is set"
    no_errors(page, "401")


def test_a_path_can_be_written_without_a_pointer(page: Chrome, served: Endpoint) -> None:
    at(page, "#path-key").send_keys(Keys.ENTER)
    for name, value in (("Second", "1.5"), ("x", "0.9"), ("y", "0.2")):
        field = at(page, f"[aria-label='{name} of key 1']")
        field.send_keys(Keys.CONTROL, "a")
        field.send_keys(value)
    Select(at(page, "[aria-label='How it gets to key 1']")).select_by_value("in-out")
    (path,) = sent(page, served).paths
    (key,) = path.keys
    assert (path.point, key.at_s, key.x, key.y) == ((0.25, 0.5), 1.5, 0.9, 0.2)
    assert key.ease == (0.42, 0, 0.58, 1)


def test_the_camera_s_keys_are_those_that_were_set(page: Chrome, served: Endpoint, tmp_path: Path, shots: Path) -> None:
    Image.new("RGB", (64, 64), (200, 40, 40)).save(tmp_path / "first.png")
    at(page, "#image").send_keys(str(tmp_path / "first.png"))
    slide(page, "#camera-at", 1.0)
    slide(page, "#camera-zoom", 1.5)
    slide(page, "#camera-at", 2.0)
    slide(page, "#camera-zoom", 2.0)
    slide(page, "#camera-truck", 0.2)
    slide(page, "#camera-at", 1.5)
    assert at(page, "#camera-zoom").get_attribute("value") == "1.75", "between two keys"
    assert "1 s: zoom 1.5×" in text(page, "#camera-keys")
    photograph(page, shots / "camera.png")
    request = sent(page, served)
    assert [(key.at_s, key.zoom, key.truck) for key in request.camera] == [(1.0, 1.5, 0.0), (2.0, 2.0, 0.2)]
    assert request.camera[0].pan is None, "what rests is not said"
    at(page, "#camera-clear").click()
    assert sent(page, served).camera == ()


def test_a_painted_mask_goes_with_its_source(page: Chrome, served: Endpoint, tmp_path: Path, shots: Path) -> None:
    (tmp_path / "source.mp4").write_bytes(film())
    at(page, "input[name=tool][value=mask]").click()
    assert "add one as an input" in text(page, "#mask-hint")
    give(page, "source", tmp_path / "source.mp4")
    until(lambda: "Paint" in text(page, "#mask-hint"), "ready to be painted on")
    colours = (
        "const s = arguments[0]; return [...s.getContext('2d').getImageData(s.width / 4, s.height / 4, 1, 1).data]"
    )
    until(lambda: page.execute_script(colours, at(page, "#stage"))[2] > 120, "the source's first frame")
    on_stage(page, (0.25, 0.5), (0.75, 0.5), held=True)
    photograph(page, shots / "mask.png")
    inputs = {one.role.value: one for one in sent(page, served).inputs}
    assert set(inputs) == {"source", "mask"}
    painted = np.asarray(Image.open(inputs["mask"].image.removeprefix("file://")).convert("L"))
    high, wide = painted.shape
    assert painted[high // 2, wide // 4 : 3 * wide // 4].min() == 255
    assert painted[: high // 3].max() == 0
    assert painted[:, : wide // 8].max() == 0
    at(page, "#mask-clear").click()
    assert {one.role.value for one in sent(page, served).inputs} == {"source"}


def test_inputs_have_the_roles_that_the_model_takes(page: Chrome, served: Endpoint, tmp_path: Path) -> None:
    for name in ("last", "edges"):
        Image.new("RGB", (64, 64), (20, 40, 200)).save(tmp_path / f"{name}.png")
    give(page, "last_frame", tmp_path / "last.png")
    roles = [option.get_attribute("value") for option in Select(at(page, "#inputs .entry select")).options]
    assert set(roles) == {"first_frame", "last_frame", "source", "mask", "structure", "style"}
    give(page, "structure", tmp_path / "edges.png")
    Select(at(page, "[aria-label='Kind of input 2']")).select_by_value("boxes")
    at(page, "[aria-label='Remove input 1']").click()
    (structure,) = sent(page, served).inputs
    assert (structure.role.value, structure.kind.value) == ("structure", "boxes")
    Select(at(page, "#variant")).select_by_value("shapes")
    until(lambda: "directed" in text(page, "#direct-hint"), "who could do more")
    assert not at(page, "#camera-tools").is_displayed()


def named(page: Chrome, name: str) -> Any:
    return at(page, f"[aria-label='{name}']")


def put(field: Any, value: str) -> None:
    field.send_keys(Keys.CONTROL, "a")
    field.send_keys(value)


def test_several_prompts_are_sent_each_from_its_second(page: Chrome, served: Endpoint, shots: Path) -> None:
    Select(at(page, "#duration")).select_by_value("6")  # more than one call renders
    for number, words in enumerate(("moving right on white", "moving down on white"), 1):
        at(page, "#prompt-add").click()
        named(page, f"Text of prompt {number}").send_keys(words)
    assert named(page, "Second of prompt 2").get_attribute("value") == "3"
    put(named(page, "Second of prompt 2"), "1.5")
    until(lambda: "$" in text(page, "#quote-usd"), "a price without the other prompt")
    photograph(page, shots / "prompts.png")
    request = sent(page, served)
    assert [(one.from_s, one.text) for one in request.prompts] == [
        (0, "moving right on white"),
        (1.5, "moving down on white"),
    ]
    assert request.prompt == "a red circle"
    at(page, "#prompt").clear()
    named(page, "Remove prompt 1").click()
    assert named(page, "Second of prompt 1").get_attribute("value") == "0", "the first begins with the clip"
    at(page, "#submit").click()
    until(lambda: not served.store.tasks.recent(1)[0].request.prompt, "one without the other prompt")
    Select(at(page, "#variant")).select_by_value("shapes")
    assert not at(page, "#prompts-tools").is_displayed()


def test_a_structure_may_be_looked_for_in_a_plain_picture(page: Chrome, served: Endpoint, tmp_path: Path) -> None:
    Image.new("RGB", (64, 64), (20, 40, 200)).save(tmp_path / "plain.png")
    give(page, "structure", tmp_path / "plain.png")
    Select(named(page, "Kind of input 1")).select_by_value("boxes")
    assert not page.find_elements(By.CSS_SELECTOR, "[aria-label='What it is of input 1']"), "nobody finds boxes"
    Select(named(page, "Kind of input 1")).select_by_value("edges")
    (as_it_is,) = sent(page, served).inputs
    Select(named(page, "What it is of input 1")).select_by_value("canny")
    (found,) = sent(page, served).inputs
    assert (as_it_is.extract, found.extract) == (None, "canny")


def test_what_is_made_of_the_clip_is_said_in_its_order(page: Chrome, served: Endpoint, shots: Path) -> None:
    at(page, "#make summary").click()
    at(page, "#finish-add").click()
    Select(named(page, "How much of step 1")).select_by_value("3")
    at(page, "#finish-add").click()
    put(named(page, "Frames a second of step 2"), "24")
    Select(named(page, "By whom of step 2")).select_by_value("motion")
    at(page, "#finish-add").click()
    Select(named(page, "How of step 3")).select_by_value("crop")
    named(page, "Size of step 3").send_keys("300x200")
    at(page, "#finish-add").click()
    put(named(page, "At the end, pan of step 4"), "5")
    at(page, "#lora-add").click()
    Select(named(page, "Source of lora 1")).select_by_value("owner/clay")
    put(named(page, "Weight of lora 1"), "0.5")
    put(at(page, "#samples"), "2")
    photograph(page, shots / "make.png")
    request = sent(page, served)
    *steps, moved = request.finish
    assert [step.model_dump(exclude_none=True, exclude={"reframe"}) for step in steps] == [
        {"upscale": 3.0},
        {"interpolate": 24.0, "by": "motion"},
        {"fit": "crop", "size": "300:200"},
    ]
    assert [(key.at_s, key.pan, key.zoom) for key in moved.reframe] == [(2.125, 5.0, None)]
    assert [(lora.source, lora.weight) for lora in request.loras] == [("owner/clay", 0.5)]
    until(lambda: len(page.find_elements(By.CSS_SELECTOR, ".task")) == 2, "a card for each sample")
    assert len(served.store.tasks.recent(20)) == 2
    named(page, "Remove step 2").click()
    assert [step.told for step in sent(page, served).finish if step.interpolate] == []


def test_sound_is_asked_for_where_the_model_makes_it(page: Chrome, served: Endpoint) -> None:
    at(page, "#make summary").click()
    assert not at(page, "#sound").is_displayed()
    Select(at(page, "#variant")).select_by_value("ltx-2")
    assert at(page, "#sound").is_displayed()
    Select(at(page, "#sound")).select_by_value("without")
    assert sent(page, served).audio is False
    Select(at(page, "#variant")).select_by_value("directed")
    assert sent(page, served).audio is None


def test_the_guide_is_seen_before_anything_is_sent(page: Chrome, served: Endpoint, tmp_path: Path, shots: Path) -> None:
    write(page, "a red circle")
    at(page, "#guide-show").click()
    until(lambda: "text only" in text(page, "#guide-said"), "nothing to be seen")
    on_stage(page, (0.2, 0.5), (0.8, 0.5))
    at(page, "#guide-show").click()
    until(lambda: "white" in text(page, "#guide-said"), "a guide")
    ready = "const v = arguments[0]; return v.readyState >= 2 && !v.error && v.videoWidth === 2 * v.videoHeight"
    until(lambda: page.execute_script(ready, at(page, "#guide")), "the guide plays")
    photograph(page, shots / "guide.png")
    assert not served.store.tasks.recent(1)
    slide(page, "#camera-at", 1.0)
    slide(page, "#camera-pan", 20)
    at(page, "#guide-show").click()
    until(lambda: "camera" in text(page, "#form-error"), "a camera needs something to move over")
    no_errors(page, "401", "400")


def test_it_can_be_read_and_is_labelled(page: Chrome, served: Endpoint, tmp_path: Path, shots: Path) -> None:
    Image.new("RGB", (64, 64), (20, 40, 200)).save(tmp_path / "style.png")
    give(page, "style", tmp_path / "style.png")
    on_stage(page, (0.2, 0.5), (0.8, 0.5))
    slide(page, "#camera-pan", 20)
    at(page, "#prompt-add").click()
    at(page, "#make summary").click()
    for add in ("#finish-add", "#finish-add", "#finish-add", "#finish-add", "#lora-add"):
        at(page, add).click()
    assert page.execute_script(probe("unnamed")) == []
    for theme in ("dark", "light"):
        page.execute_script("document.documentElement.dataset.theme = arguments[0]", theme)
        assert page.execute_script(probe("contrast")) == []
        photograph(page, shots / f"direct-{theme}.png")
    page.execute_cdp_cmd(
        "Emulation.setDeviceMetricsOverride", {"width": 390, "height": 844, "deviceScaleFactor": 2, "mobile": True}
    )
    until(lambda: page.execute_script("return innerWidth") <= 400, "a phone")
    wide = "return document.documentElement.scrollWidth - document.documentElement.clientWidth"
    assert page.execute_script(wide) == 0
    photograph(page, shots / "direct-phone.png")
