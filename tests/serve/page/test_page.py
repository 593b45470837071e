"""The page in a real browser, over the real endpoint and store."""

import base64
import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from PIL import Image
from selenium.common.exceptions import StaleElementReferenceException
from selenium.webdriver import Chrome
from selenium.webdriver.common.action_chains import ActionChains
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys
from selenium.webdriver.remote.webelement import WebElement
from selenium.webdriver.support.select import Select

from schemas.clip import Status
from tests.serve.http.endpoint import Endpoint
from tests.serve.page.fleet import Fleet

pytestmark = pytest.mark.slow


def until(ask: Callable[[], Any], what: str, timeout_s: float = 60.0) -> Any:
    """What `ask` gives once that is true."""
    end, last = time.monotonic() + timeout_s, None
    while time.monotonic() < end:
        try:
            last = ask()
            if last:
                return last
        except StaleElementReferenceException:
            last = None
        time.sleep(0.05)
    raise AssertionError(f"{what}: still {last!r} after {timeout_s} s")


def at(browser: Chrome, selector: str) -> WebElement:
    return browser.find_element(By.CSS_SELECTOR, selector)


def text(browser: Chrome, selector: str) -> str:
    return " ".join(one.text for one in browser.find_elements(By.CSS_SELECTOR, selector))


def enter(browser: Chrome, served: Endpoint) -> None:
    """Open the page and give the key."""
    browser.get(served.url)
    at(browser, "#key").send_keys(served.secret + Keys.ENTER)
    until(lambda: "pools up" in text(browser, "#pulse-text"), "connected")


def write(browser: Chrome, prompt: str) -> None:
    field = at(browser, "#prompt")
    field.clear()
    field.send_keys(prompt)


def render(browser: Chrome, prompt: str) -> WebElement:
    """Send it; the card of the task."""
    write(browser, prompt)
    at(browser, "#submit").click()
    return until(
        lambda: next((card for card in browser.find_elements(By.CSS_SELECTOR, ".task") if prompt in card.text), None),
        "a card",
    )


def photograph(browser: Chrome, file: Path) -> None:
    """The whole page, not only what fits the window."""
    picture = browser.execute_cdp_cmd("Page.captureScreenshot", {"captureBeyondViewport": True})
    file.write_bytes(base64.b64decode(picture["data"]))


def probe(name: str) -> str:
    return (Path(__file__).parent / "probes" / f"{name}.js").read_text()


def no_errors(browser: Chrome, *allowed: str) -> None:
    entries = [entry["message"] for entry in browser.get_log("browser") if entry["level"] == "SEVERE"]
    assert not [message for message in entries if not any(part in message for part in allowed)]


def test_a_clip_from_its_quote_to_its_playback(browser: Chrome, served: Endpoint, fleet: Fleet, shots: Path) -> None:
    enter(browser, served)
    write(browser, "a red circle moving left on a blue background")
    until(lambda: "$" in text(browser, "#quote-usd"), "a price")
    assert "in " in text(browser, "#quote-eta")
    assert "9 of 10" in text(browser, "#quote-p90")
    assert "shapes" in text(browser, "#quote-sentence")
    at(browser, "#quote-why summary").click()
    assert "chosen:" in text(browser, "#quote-steps")
    assert "shapes-turbo" in text(browser, "#quote-alternatives")

    fleet.halfway.clear()
    card = render(browser, "a red circle moving left on a blue background")
    until(lambda: "Waiting" in card.text, "waiting")
    fleet.go.set()
    until(lambda: "denoising 50 %" in card.text, "half of the steps")
    assert float(card.find_element(By.CSS_SELECTOR, "progress").get_attribute("value") or 0) == 0.5
    fleet.halfway.set()
    until(lambda: "Done" in card.text, "done")
    video = until(lambda: card.find_elements(By.CSS_SELECTOR, "video"), "a video")[0]
    playing = (
        "const v = arguments[0]; return v.readyState >= 2 && v.videoWidth === 192 && !v.error && v.currentTime > 0"
    )
    until(lambda: browser.execute_script(playing, video), "the film plays")
    assert "billed $" in card.text
    photograph(browser, shots / "done.png")
    no_errors(browser, "401")


def test_progress_comes_over_the_stream_and_not_by_asking(browser: Chrome, served: Endpoint, fleet: Fleet) -> None:
    enter(browser, served)
    card = render(browser, "one")
    task_id = card.get_attribute("data-id")
    asked = "return performance.getEntriesByType('resource').filter(e => e.name.includes(arguments[0])).length"
    before = browser.execute_script(asked, task_id)
    fleet.go.set()
    until(lambda: "Done" in card.text, "done")
    assert browser.execute_script(asked, task_id) - before <= 1  # the clip itself


def test_cancel_ends_a_running_task_and_says_so(browser: Chrome, served: Endpoint, fleet: Fleet) -> None:
    enter(browser, served)
    fleet.halfway.clear()
    fleet.go.set()
    card = render(browser, "never mind")
    until(lambda: "Rendering" in card.text, "rendering")
    card.find_element(By.XPATH, ".//button[text()='Cancel']").click()
    until(lambda: "Cancelled" in card.text, "cancelled")
    until(lambda: card.get_attribute("data-id") in fleet.seen_cancelled, "the replica was told")
    # The replica stops at its next step, and tells then.
    until(lambda: served.store.tasks.counts().by_status[Status.CANCELLED] == 1, "the end of it in the store")


def test_a_failure_is_told_on_the_card_and_in_the_list(
    browser: Chrome, served: Endpoint, fleet: Fleet, shots: Path
) -> None:
    fleet.go.set()
    enter(browser, served)
    card = render(browser, "this will fail")
    until(lambda: "no clip" in card.text, "its failure")
    assert "INTERNAL.BAD_OUTPUT.NAN" in card.text
    until(lambda: "no clip" in text(browser, "#failures"), "in the list of failures")
    until(lambda: "1" in text(browser, "#counts div:last-child dd"), "given up")
    assert "down" in text(browser, "#pools")


HOSTILE = "<img src=x onerror=\"document.title='owned'\"><script>document.title='owned'</script>\u202e{{7*7}}'\"`"


def test_a_hostile_prompt_stays_text(browser: Chrome, served: Endpoint, fleet: Fleet) -> None:
    fleet.go.set()
    enter(browser, served)
    card = render(browser, HOSTILE)
    until(lambda: "Done" in card.text, "done")
    shown = card.find_element(By.CSS_SELECTOR, ".prompt")
    assert browser.execute_script("return arguments[0].textContent", shown) == HOSTILE
    assert browser.execute_script("return arguments[0].childElementCount", shown) == 0
    browser.refresh()
    until(lambda: browser.find_elements(By.CSS_SELECTOR, ".task"), "the list after a reload")
    assert browser.title == "Rushes"
    assert not browser.find_elements(By.CSS_SELECTOR, "main img[src='x']")


def test_the_key_stays_in_the_tab(browser: Chrome, served: Endpoint, fleet: Fleet) -> None:
    browser.get(served.url)
    until(lambda: "A key is needed" in text(browser, "#pulse-text"), "asks for a key")
    assert "rushes keys create" in text(browser, "#notice")
    at(browser, "#key").send_keys("rsh_" + "x" * 43 + Keys.ENTER)
    until(lambda: "not valid" in text(browser, "#notice"), "refuses a wrong one")
    assert at(browser, "#key").get_attribute("aria-invalid") == "true"
    at(browser, "#key").clear()
    at(browser, "#key").send_keys(served.secret + Keys.ENTER)
    until(lambda: "pools up" in text(browser, "#pulse-text"), "connected")
    kept = "return [JSON.stringify(localStorage), document.cookie, location.href].join(' ')"
    assert served.secret not in browser.execute_script(kept)
    browser.refresh()
    until(lambda: "pools up" in text(browser, "#pulse-text"), "still known after a reload")
    browser.switch_to.new_window("tab")
    browser.get(served.url)
    until(lambda: "A key is needed" in text(browser, "#pulse-text"), "another tab does not know it")


def test_a_refusal_marks_the_field_and_says_what_would_do(browser: Chrome, served: Endpoint, fleet: Fleet) -> None:
    enter(browser, served)
    write(browser, "x" * 1001)
    until(lambda: "1000" in text(browser, "#form-error"), "the limit")
    assert at(browser, "#prompt").get_attribute("aria-invalid") == "true"
    write(browser, "shorter")
    until(lambda: "$" in text(browser, "#quote-usd"), "a price again")
    assert at(browser, "#prompt").get_attribute("aria-invalid") is None


def test_sizes_and_lengths_follow_the_model(browser: Chrome, served: Endpoint, fleet: Fleet) -> None:
    enter(browser, served)
    Select(at(browser, "#variant")).select_by_value("tiny-random")
    sizes = [option.text for option in Select(at(browser, "#ratio")).options]
    assert "128 × 128" in sizes
    assert "RANDOM" in text(browser, "#variant-note")
    write(browser, "noise")
    until(lambda: at(browser, "#quote").get_attribute("data-refused") == "true", "tiny-random is down")
    Select(at(browser, "#variant")).select_by_value("shapes")
    assert "128 × 128" not in [option.text for option in Select(at(browser, "#ratio")).options]
    until(lambda: at(browser, "#quote").get_attribute("data-refused") == "false", "shapes is up")


def test_a_template_is_filled_and_its_prompt_shown_with_what_looks_like_a_mistake(
    browser: Chrome, served: Endpoint, fleet: Fleet, shots: Path
) -> None:
    enter(browser, served)
    Select(until(lambda: at(browser, "#template"), "templates")).select_by_value("motion")
    assert not at(browser, "#prompt").is_displayed()
    at(browser, "#slot-subject").send_keys("a red circel")
    Select(at(browser, "#slot-direction")).select_by_value("left")
    until(lambda: "circle" in text(browser, "#quote-findings"), "a suggestion")
    photograph(browser, shots / "template.png")
    at(browser, "#slot-subject").clear()
    at(browser, "#slot-subject").send_keys("a red circle")
    until(lambda: text(browser, "#quote-prompt") == "a red circle moving left", "the prompt")
    until(lambda: not at(browser, "#quote-findings").is_displayed(), "no findings")
    at(browser, "#submit").click()
    until(lambda: "a red circle moving left" in text(browser, "#tasks"), "the clip's card")
    no_errors(browser, "401")


def test_an_image_goes_in_as_the_first_frame(browser: Chrome, served: Endpoint, fleet: Fleet, tmp_path: Path) -> None:
    Image.new("RGB", (64, 64), (200, 40, 40)).save(tmp_path / "first.png")
    enter(browser, served)
    at(browser, "#image").send_keys(str(tmp_path / "first.png"))
    until(lambda: at(browser, "#image-preview").is_displayed(), "a preview")
    card = render(browser, "from an image")
    task = served.store.tasks.get(card.get_attribute("data-id") or "")
    assert task is not None
    assert (task.kind, task.request.inputs[0].uri) == ("image_to_video", "s3://bucket/inputs/image")
    no_errors(browser, "401")


def test_everything_can_be_done_from_the_keyboard(browser: Chrome, served: Endpoint, fleet: Fleet) -> None:
    fleet.go.set()
    enter(browser, served)
    at(browser, "#prompt").send_keys("by keyboard", Keys.CONTROL, Keys.ENTER)
    until(lambda: "Done" in text(browser, ".task"), "done")
    seen = set()
    for _ in range(40):
        ActionChains(browser).send_keys(Keys.TAB).perform()
        focused = browser.switch_to.active_element
        seen.add(focused.get_attribute("id") or focused.text)
    assert {"key", "theme", "prompt", "variant", "ratio", "duration", "seed", "image", "submit", "filter"} <= seen
    assert {"Use again", "Delete", "Download"} <= seen


def test_every_field_has_a_label_and_every_image_a_text(browser: Chrome, served: Endpoint, fleet: Fleet) -> None:
    fleet.go.set()
    enter(browser, served)
    card = render(browser, "labelled")
    until(lambda: "Done" in card.text, "done")
    unnamed = browser.execute_script(probe("unnamed"))
    assert unnamed == []


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_it_reads_well_in_both_themes_and_on_a_phone(
    browser: Chrome, served: Endpoint, fleet: Fleet, shots: Path, theme: str
) -> None:
    fleet.go.set()
    enter(browser, served)
    cards = [render(browser, "a green square resting"), render(browser, "two triangles; this one will fail")]
    until(lambda: all("Done" in card.text or "Failed" in card.text for card in cards), "both ended")
    fleet.halfway.clear()
    running = render(browser, "a red circle moving left on a blue background")
    until(lambda: "50 %" in running.text, "one is under way")
    render(browser, "a yellow triangle rising slowly over a purple background, seen from far away")
    until(lambda: "1" in text(browser, "#counts div:first-child dd"), "one waits")
    browser.execute_script("localStorage.setItem('rushes-theme', arguments[0])", theme)
    browser.refresh()
    until(lambda: len(browser.find_elements(By.CSS_SELECTOR, ".task")) == 4, "the list")
    write(browser, "a white star crossing a dark sky")
    until(lambda: "$" in text(browser, "#quote-usd"), "a price")
    at(browser, "#quote-why summary").click()
    until(lambda: browser.find_elements(By.CSS_SELECTOR, ".task video"), "a film")
    until(lambda: browser.execute_script("return document.querySelector('.task video').readyState >= 2"), "a picture")
    assert browser.execute_script(probe("contrast")) == []
    photograph(browser, shots / f"{theme}.png")

    browser.execute_cdp_cmd(
        "Emulation.setDeviceMetricsOverride", {"width": 390, "height": 844, "deviceScaleFactor": 2, "mobile": True}
    )
    wide = "return document.documentElement.scrollWidth - document.documentElement.clientWidth"
    until(lambda: browser.execute_script("return innerWidth") <= 400, "a phone")
    assert browser.execute_script(wide) == 0
    photograph(browser, shots / f"{theme}-phone.png")


def test_nothing_comes_from_elsewhere(browser: Chrome, served: Endpoint, fleet: Fleet) -> None:
    fleet.go.set()
    enter(browser, served)
    card = render(browser, "at home")
    until(lambda: card.find_elements(By.CSS_SELECTOR, "video"), "a video")
    loaded = browser.execute_script("return performance.getEntriesByType('resource').map((e) => e.name)")
    assert [name for name in loaded if not name.startswith((served.url, "data:"))] == []
    browser.execute_script(
        """
        const script = document.createElement('script');
        script.textContent = "document.title = 'owned'";
        document.head.append(script);
        """
    )
    assert browser.title == "Rushes"
    refused = [entry for entry in browser.get_log("browser") if "Content Security Policy" in entry["message"]]
    assert refused, json.dumps(browser.get_log("browser"))


def test_it_says_when_the_dispatcher_is_silent(browser: Chrome, served: Endpoint) -> None:
    browser.get(served.url)
    at(browser, "#key").send_keys(served.secret + Keys.ENTER)
    until(lambda: "Dispatcher silent" in text(browser, "#pulse-text"), "silent")
    assert "accepted and kept" in text(browser, "#pools-age")
    card = render(browser, "kept all the same")
    until(lambda: "Waiting" in card.text, "accepted")
