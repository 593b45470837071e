"""Examples on the page: a button fills the form with all that its example says, and nothing is sent."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from PIL import Image
from selenium.webdriver import Chrome
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys
from selenium.webdriver.support.select import Select

from schemas.examples import Example
from serve.config import Pools
from tests.serve.http.endpoint import Endpoint, OwnIntake, catalog_with, endpoint, pool
from tests.serve.page.test_direct import TOLD, give, on_stage, slide
from tests.serve.page.test_page import at, enter, no_errors, photograph, probe, text, until, write

pytestmark = pytest.mark.slow

SHIPPED = catalog_with()["directed"].examples
(FRAME,) = next(one for one in SHIPPED if one.roles == ("first_frame",)).request["inputs"]  # type: ignore[misc,union-attr]
MOVED = Example(
    title="All of a camera",
    request={
        "promptText": "a red circle",
        "ratio": "160:96",
        "duration": 4.125,
        "seed": 7,
        "inputs": [FRAME],
        "camera": [{"atSeconds": 1, "zoom": 1.5, "ease": "in"}, {"atSeconds": 2, "zoom": 2.0, "pan": 10}],
    },
)
DRAWN = Example(
    title="All of a path",
    request={
        "promptText": "a red circle moves",
        "paths": [
            {
                "label": "red circle",
                "box": [0.1, 0.2, 0.3, 0.4],
                "keys": [
                    {"atSeconds": 0.5, "x": 0.8, "y": 0.4, "ease": "in-out"},
                    {"atSeconds": 2, "x": 0.3, "y": 0.8},
                ],
            }
        ],
    },
)
TIMED = Example(
    title="All in time",
    request={
        "duration": 5,
        "prompts": [{"fromSeconds": 0, "text": "moving right"}, {"fromSeconds": 2.5, "text": "moving down"}],
    },
)
PLAIN = Example(title="Only words", request={"promptText": "a green square"})


@pytest.fixture
def served(tmp_path: Path) -> Iterator[Endpoint]:
    catalog = catalog_with(
        {"directed": 0.6}, directed={"conditions": TOLD, "examples": (MOVED, DRAWN, TIMED, PLAIN, *SHIPPED)}
    )
    pools = Pools(variants=("embedded", "directed", "tiny-random"))
    with endpoint(tmp_path, catalog, OwnIntake(), pools=pools, loras=("owner/ink",)) as running:
        running.note(pool("shapes"), pool("directed"), pool("tiny-random"))
        yield running


@pytest.fixture
def page(browser: Chrome, served: Endpoint) -> Chrome:
    enter(browser, served)
    until(lambda: buttons(browser), "the examples")
    return browser


def buttons(page: Chrome) -> list[str]:
    return [one.text for one in page.find_elements(By.CSS_SELECTOR, "#examples button") if one.is_displayed()]


def press(page: Chrome, title: str) -> None:
    page.find_element(By.XPATH, f"//div[@id='examples']//button[text()='{title}']").send_keys(Keys.ENTER)


def submit(page: Chrome, served: Endpoint) -> Any:
    """The request of the task that the form as it is makes."""
    before = len(served.store.tasks.recent(50))
    page.execute_script("arguments[0].click()", at(page, "#submit"))
    until(lambda: len(served.store.tasks.recent(50)) > before or text(page, "#form-error"), "an answer")
    assert text(page, "#form-error") == ""
    return served.store.tasks.recent(1)[0].request


def test_the_model_whose_examples_direct_the_shot_is_chosen_first(page: Chrome, served: Endpoint) -> None:
    assert at(page, "#variant").get_attribute("value") == "directed"
    assert buttons(page) == [one.title for one in served.context.catalog["directed"].examples]


def test_an_example_fills_all_that_it_says_and_sends_nothing(page: Chrome, served: Endpoint, shots: Path) -> None:
    press(page, "All of a camera")
    assert page.switch_to.active_element.text == "All of a camera", "who uses the keyboard stays where they are"
    shown = {name: at(page, f"#{name}").get_attribute("value") for name in ("prompt", "ratio", "duration", "seed")}
    assert shown == {"prompt": "a red circle", "ratio": "160:96", "duration": "4.125", "seed": "7"}
    assert at(page, "#inputs img").get_attribute("src") == FRAME["image"]
    assert "1 s: zoom 1.5×" in text(page, "#camera-keys")
    orange = (
        "const s = arguments[0]; return [...s.getContext('2d').getImageData(s.width * .3, s.height / 2, 1, 1).data]"
    )
    until(lambda: page.execute_script(orange, at(page, "#stage"))[0] > 200, "the frame on the stage")
    until(lambda: "$" in text(page, "#quote-usd"), "a price")
    assert page.execute_script(probe("unnamed")) == []
    photograph(page, shots / "example.png")
    assert not served.store.tasks.recent(1), "only a quote was asked for"
    request = submit(page, served)
    assert (request.prompt, request.seed, request.ratio, request.duration_s) == ("a red circle", 7, "160:96", 4.125)
    assert [one.role.value for one in request.inputs] == ["first_frame"]
    assert [(key.at_s, key.zoom, key.pan) for key in request.camera] == [(1, 1.5, 0), (2, 2, 10)]
    assert request.camera[0].ease != request.camera[1].ease
    no_errors(page, "401")


def test_an_example_draws_its_path_at_its_times(page: Chrome, served: Endpoint) -> None:
    press(page, "All of a path")
    assert at(page, "#path-label").get_attribute("value") == "red circle"
    assert len(page.find_elements(By.CSS_SELECTOR, "#path-keys li")) == 2
    (path,) = submit(page, served).paths
    assert (path.label, path.box) == ("red circle", (0.1, 0.2, 0.3, 0.4))
    assert [(key.at_s, key.x, key.y) for key in path.keys] == [(0.5, 0.8, 0.4), (2, 0.3, 0.8)]
    assert path.keys[0].ease == (0.42, 0, 0.58, 1)


def test_one_example_after_another_leaves_nothing_of_the_first(page: Chrome, served: Endpoint) -> None:
    for title in ("All of a camera", "All of a path", "All in time"):
        press(page, title)
    request = submit(page, served)
    assert [(one.from_s, one.text) for one in request.prompts] == [(0, "moving right"), (2.5, "moving down")]
    assert (request.prompt, request.seed, request.duration_s) == ("", None, 5)
    assert (request.inputs, request.paths, request.camera) == ((), (), ())


def test_an_example_leaves_nothing_of_what_the_form_held(page: Chrome, served: Endpoint, tmp_path: Path) -> None:
    Image.new("RGB", (64, 64), (20, 40, 200)).save(tmp_path / "mine.png")
    at(page, "#direct summary").click()
    at(page, "#make summary").click()
    at(page, "#image").send_keys(str(tmp_path / "mine.png"))
    until(lambda: at(page, "#image-preview").is_displayed(), "a preview")
    give(page, "style", tmp_path / "mine.png")
    at(page, "#path-label").send_keys("mine")
    on_stage(page, (0.2, 0.5), (0.8, 0.5))
    slide(page, "#camera-at", 1.0)
    slide(page, "#camera-pan", 20)
    for add in ("#prompt-add", "#finish-add", "#lora-add"):
        at(page, add).click()
    at(page, "[aria-label='Text of prompt 1']").send_keys("mine")
    at(page, "#samples").send_keys(Keys.CONTROL, "a")
    at(page, "#samples").send_keys("2")
    at(page, "#seed").send_keys("11")
    Select(at(page, "#duration")).select_by_value("6")
    Select(at(page, "#ratio")).select_by_value("96:160")
    write(page, "mine")
    press(page, "Only words")
    assert not at(page, "#image-preview").is_displayed()
    assert not page.find_elements(By.CSS_SELECTOR, ".entry"), "no row of any list is left"
    request = submit(page, served)
    default = served.context.catalog["directed"].shape.default()
    assert (request.prompt, request.ratio) == ("a green square", f"{default.width}:{default.height}")
    assert request.duration_s == pytest.approx(default.frames / 8, abs=0.001)
    held = (request.inputs, request.paths, request.camera, request.prompts, request.finish, request.loras)
    assert (held, request.samples) == (((),) * 6, 1)
    assert len(served.store.tasks.recent(50)) == 1


def test_a_template_gives_way_to_an_example(page: Chrome, served: Endpoint) -> None:
    Select(until(lambda: at(page, "#template"), "templates")).select_by_value("motion")
    press(page, "Only words")
    assert at(page, "#prompt").is_displayed()
    assert submit(page, served).prompt == "a green square"


def test_each_example_that_ships_is_rendered_as_the_page_sends_it(page: Chrome, served: Endpoint) -> None:
    for example in SHIPPED:
        press(page, example.title)
        request = submit(page, served)
        asked = example.request
        assert request.prompt == asked.get("promptText", "")
        assert tuple(one.role for one in request.inputs) == example.roles
        assert len(request.paths) == len(asked.get("paths", []))  # type: ignore[arg-type]
        assert [one.text for one in request.prompts] == [one["text"] for one in asked.get("prompts", [])]  # type: ignore[index,union-attr,call-overload]
    no_errors(page, "401")


def test_a_model_without_examples_shows_no_row_of_them(page: Chrome) -> None:
    for name, there in (("tiny-random", False), ("shapes", True), ("auto", False), ("directed", True)):
        Select(at(page, "#variant")).select_by_value(name)
        assert at(page, "#examples").is_displayed() is there
        assert bool(buttons(page)) is there


def test_an_example_fits_a_phone_and_reads_well(page: Chrome, shots: Path) -> None:
    press(page, "A path")
    for theme in ("dark", "light"):
        page.execute_script("document.documentElement.dataset.theme = arguments[0]", theme)
        assert page.execute_script(probe("contrast")) == []
    page.execute_cdp_cmd(
        "Emulation.setDeviceMetricsOverride", {"width": 390, "height": 844, "deviceScaleFactor": 2, "mobile": True}
    )
    until(lambda: page.execute_script("return innerWidth") <= 400, "a phone")
    wide = "return document.documentElement.scrollWidth - document.documentElement.clientWidth"
    assert page.execute_script(wide) == 0
    photograph(page, shots / "example-phone.png")
