"""Rings in a real Chromium, opened from disk: turned around by key and by drag, the edge passing by unseen."""

import base64
import io
import json
import shutil
import time

import numpy as np
import pytest
from PIL import Image

from experiments.report.page import write_page
from tests.experiments.report.page.run_folders import ring_colour, ring_run

SIZE = {"width": 800, "height": 600}
SHOWN = "document.getElementById('ring').dataset.shown"
YAW = "around.viewer.getYaw()"


@pytest.fixture(scope="module")
def ring(tmp_path_factory):
    folder = tmp_path_factory.mktemp("ring")
    return write_page(folder, ring_run(folder))


@pytest.fixture
def turned(page, ring):
    """The page with its first ring turned to its middle."""
    page.open(ring, **SIZE)
    page.click("#rows .turn")
    page.until(SHOWN)
    return page


def at_rest(page) -> float:
    """The direction in degrees, once nothing moves any more."""
    before, now = None, page.js(YAW)
    while before != now:
        time.sleep(0.3)
        before, now = now, page.js(YAW)
    return now


def sight(page) -> np.ndarray:
    """What the ring's part of the screen shows, [height, width, 3] in [0, 1]."""
    box = page.js("(({ x, y, width, height }) => [x, y, width, height])(around.element.getBoundingClientRect())")
    taken = page.driver.execute_cdp_cmd("Page.captureScreenshot", {"format": "png"})
    whole = Image.open(io.BytesIO(base64.b64decode(taken["data"]))).convert("RGB")
    left, top, width, height = map(round, box)
    return np.asarray(whole.crop((left, top, left + width, top + height))) / 255


def seen_from_inside(shape, yaw: float, hfov: float) -> np.ndarray:
    """What a pinhole camera sees in the middle of a cylinder that `ring_picture` (six times as wide as high) covers."""
    height, width, _ = shape
    focal = width / 2 / np.tan(np.radians(hfov) / 2)
    x, y = np.meshgrid(np.arange(width) + 0.5 - width / 2, height / 2 - np.arange(height) - 0.5)
    across = 0.5 + yaw / 360 + np.arctan2(x, focal) / (2 * np.pi)
    up = y / np.hypot(x, focal) * 6 / (2 * np.pi)  # on a cylinder one high and six around
    return ring_colour(across % 1, 0.5 - up)


def check_sight(page, yaw: float) -> None:
    shown = sight(page)
    expected = seen_from_inside(shown.shape, yaw, page.js("around.viewer.getHfov()"))
    # WebP at quality 90, rows resampled twice, 8 bits: 0.01 on average; a jump at the edge, or another place, shows.
    assert np.abs(shown - expected).mean() < 0.01 and np.abs(shown - expected).max() < 0.08


def test_it_opens_from_disk_without_an_error_or_a_request_to_a_network(turned, ring):
    assert turned.find("#ring").is_displayed() and not turned.find("#view").is_displayed()
    assert turned.js("document.activeElement.id") == "ring"
    check_sight(turned, 0)
    messages = [entry for entry in turned.driver.get_log("browser") if "GPU stall" not in entry["message"]]
    assert messages == []  # nor one of the page's policy, which is as strict as without rings
    events = [json.loads(entry["message"])["message"] for entry in turned.driver.get_log("performance")]
    asked = [event["params"]["request"]["url"] for event in events if event["method"] == "Network.requestWillBeSent"]
    assert any(url.endswith("pannellum.js") for url in asked)
    assert all(url.startswith((ring.parent.as_uri(), "data:")) for url in asked)


def test_the_edge_passes_by_without_a_jump(turned):
    for yaw in (180, -170):
        turned.js(f"around.viewer.setYaw({yaw}, false) && null")
        assert abs(at_rest(turned)) == abs(yaw)
        check_sight(turned, yaw)


def test_keys_turn_it_past_the_edge(turned):
    from selenium.webdriver.common.action_chains import ActionChains

    right, title = "\ue014", turned.find("#lightbox-title strong").text
    turned.js("around.viewer.setYaw(178, false) && null")
    ActionChains(turned.driver).key_down(right).perform()
    turned.until(f"{YAW} < 0")
    ActionChains(turned.driver).key_up(right).perform()
    yaw = at_rest(turned)
    assert -180 < yaw < 0
    check_sight(turned, yaw)
    assert turned.find("#lightbox-title strong").text == title  # arrows do not leave the ring
    wide = turned.js("around.viewer.getHfov()")
    turned.js("zoom(1.5) && null")
    turned.until(f"Math.abs(around.viewer.getHfov() - {wide / 1.5}) < 1e-3")  # it gets there in some frames


def test_dragging_turns_it_past_the_edge(turned):
    from selenium.webdriver.common.action_chains import ActionChains

    turned.js("around.viewer.setYaw(170, false) && null")
    at_rest(turned)
    drag = ActionChains(turned.driver, duration=100).move_to_element(turned.find("#ring")).click_and_hold()
    drag.move_by_offset(-250, 0).release().perform()
    yaw = at_rest(turned)
    assert -180 < yaw < -90  # to the right by more than 20 degrees
    check_sight(turned, yaw)


def test_it_goes_flat_and_on_to_others_and_ends(turned):
    turned.press("r")
    assert not turned.find("#ring").is_displayed() and turned.js("around.viewer") is None
    turned.until("stage.getBoundingClientRect().width === view.clientWidth")
    turned.press("\ue014")
    assert turned.find("#lightbox-title strong").text == "MultiDiffusion"
    turned.press("r")
    turned.until(SHOWN)
    turned.click("#lightbox [name=next]")
    turned.until(SHOWN)
    assert turned.find("#lightbox-title strong").text == "Profile matching"
    turned.press("\ue00c")  # Escape
    assert not turned.find("#lightbox").is_displayed() and turned.js("around.viewer") is None


def test_flat_panoramas_have_no_such_thing(page, ring, run):
    page.open(ring, **SIZE)
    figures = page.js("document.querySelectorAll('#rows figure').length")
    assert page.js("document.querySelectorAll('#rows .turn').length") == figures - 1 == 11
    assert page.texts("#rows figcaption")[-1] == "open"
    page.click("#rows figure:last-child .picture")
    page.press("r")
    assert not page.find("#lightbox [name=turn]").is_displayed() and page.find("#view").is_displayed()
    assert not (run[0] / "report" / "pannellum").exists()
    assert not list((run[0] / "report" / "images").glob("*.js"))


def test_what_cannot_be_turned_says_so_and_may_still_be_seen_flat(page, ring, tmp_path):
    shutil.copytree(ring.parent, tmp_path / "report")
    for script in (tmp_path / "report" / "images").glob("*.js"):
        script.unlink()
    page.open(tmp_path / "report" / "index.html", **SIZE)
    page.click("#rows .turn")
    page.until("document.getElementById('ring').textContent")
    assert page.find("#ring").text.startswith("It cannot be turned here: images/")
    page.press("r")
    page.until("stage.getBoundingClientRect().width === view.clientWidth")
