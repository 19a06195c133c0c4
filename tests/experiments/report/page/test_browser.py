"""The page in a real Chromium, opened from disk."""

import json
import re
from types import SimpleNamespace

import numpy as np
import pytest

from experiments.report.page import write_page
from tests.experiments.report.page.run_folders import PROMPTS, ablation_run, picture, wide_run, with_seeds

FIGURES = "#rows article:nth-child({row}) figure:nth-child({column}) "
SHIFT_RIGHT = {"key": "ArrowRight", "shiftKey": True, "bubbles": True}
LARGE = (2**53 + 1, 2**53, 2**62, 9)
LABELS = ("syncdiffusion", "multidiffusion", "blended_latent")


@pytest.fixture(scope="module")
def pages(run, tmp_path_factory):
    """table: three methods, hostile prompts; bare: the same without pictures; ablation: ten methods, sixty rows; wide:
    every metric of the miniature's runs; large: seeds beyond 2**53."""
    folder, results = run
    bare, ablation, wide, large = (tmp_path_factory.mktemp(name) for name in ("bare", "ablation", "wide", "large"))
    with_large = with_seeds(LARGE)
    for file in with_large.panoramas["file"].unique():
        (large / file).parent.mkdir(parents=True, exist_ok=True)
        picture(0).save(large / file)
    return SimpleNamespace(
        results=results,
        table=folder / "report" / "index.html",
        bare=write_page(bare, results),
        ablation=write_page(ablation, ablation_run(ablation)),
        wide=write_page(wide, wide_run(wide)),
        large=write_page(large, with_large),
    )


def test_opens_from_disk_without_an_error_or_a_request_to_a_network(page, pages):
    page.open(pages.table)
    page.js("document.getElementById('rows').scrollIntoView()")
    page.until("document.querySelector('#rows img').naturalWidth === 768")
    page.js("document.getElementById('plots').scrollIntoView()")
    page.until("document.querySelector('#plots img').naturalWidth === 400")
    assert page.driver.get_log("browser") == []
    events = [json.loads(entry["message"])["message"] for entry in page.driver.get_log("performance")]
    asked = [event["params"]["request"]["url"] for event in events if event["method"] == "Network.requestWillBeSent"]
    assert len(asked) > 5 and all(url.startswith((pages.table.parent.as_uri(), "data:")) for url in asked)
    assert page.driver.title == page.find("h1").text == "table1"
    assert "not Stable Diffusion" in page.find("#warning").text
    assert page.texts("#plots figcaption") == ["Cost by method"]


def test_no_script_can_reach_a_network(page, pages):
    page.open(pages.table)
    blocked = page.driver.execute_async_script(
        "const done = arguments[0];"
        "document.addEventListener('securitypolicyviolation', (event) => done(event.effectiveDirective));"
        "fetch('http://127.0.0.1:9/').then(() => done('fetched'), () => setTimeout(done, 2000, 'failed'))"
    )
    assert blocked == "connect-src"


def test_prompts_are_text(page, pages):
    page.open(pages.table)
    assert page.rows() == [(prompt, seed) for prompt in PROMPTS for seed in (0, 1)]
    for select in ("#controls [name=prompt]", "#by-prompt select"):
        assert page.texts(f"{select} option")[-6:] == list(PROMPTS)
    page.choose("prompt", PROMPTS[1])
    page.click("#rows .picture")
    assert page.find("#lightbox-title span").get_attribute("textContent") == f"{PROMPTS[1]}, seed 0"
    page.press("\ue00c")
    assert page.js("window.hacked") is None
    assert page.js("document.querySelectorAll('main script, dialog script, [onerror], [src=x]').length") == 0
    assert page.js("document.scripts.length") == 6  # the content and the five files


@pytest.mark.parametrize(("title", "metric"), [("Intra-LPIPS", "intra_lpips"), ("seconds", "seconds")])
def test_tables_sort_by_number(page, pages, title, metric):
    """Seconds are 8, 13 and 24 here: as words they would come as 13, 24, 8."""
    names = {
        "syncdiffusion": "SyncDiffusion",
        "multidiffusion": "MultiDiffusion",
        "blended_latent": "Blended latent diffusion",
    }
    means = pages.results.panoramas.groupby("method")[metric].mean().sort_values()
    ascending = [names[label] for label in means.index]
    page.open(pages.table)
    headings = [text.split("\xa0")[0] for text in page.texts("#results thead button")]
    header = f"#results thead th:nth-child({headings.index(title) + 1})"
    page.click(f"{header} button")
    assert page.find(header).get_attribute("aria-sort") == "ascending"
    assert page.column("#results", 1) == ascending
    page.press("\ue007")  # Enter: the heading that was clicked has the focus
    assert page.find(header).get_attribute("aria-sort") == "descending"
    assert page.column("#results", 1) == ascending[::-1]
    page.press(" ")
    assert page.column("#results", 1) == list(names.values())
    assert page.texts("#results td.best")[1:2]  # some number is the best of its column
    bold = page.js("getComputedStyle(document.querySelector('#results td.best span')).fontWeight")
    assert int(bold) >= 700


def test_a_table_by_prompt_is_chosen_and_remembered(page, pages):
    page.open(pages.table)
    select = page.find("#by-prompt select")
    page.driver.execute_script("arguments[0].value = 3; arguments[0].dispatchEvent(new Event('change'))", select)
    headings = [text.split("\xa0")[0] for text in page.texts("#by-prompt thead button")]
    shown = [float(text) for text in page.column("#by-prompt", headings.index("Intra-LPIPS") + 1)]
    panoramas = pages.results.panoramas
    means = panoramas[panoramas["prompt"] == PROMPTS[3]].groupby("method")["intra_lpips"].mean()
    assert shown == pytest.approx([means[label] for label in LABELS], abs=0.05)
    page.driver.refresh()
    assert page.find("#by-prompt select").get_attribute("value") == "3"


def test_filters_choose_rows_and_columns_and_live_in_the_hash(page, pages):
    page.open(pages.table)
    page.choose("prompt", PROMPTS[3])
    assert page.rows() == [(PROMPTS[3], 0), (PROMPTS[3], 1)]
    page.choose("seed", "1")
    page.click("#methods label:nth-of-type(2) input")
    page.until("location.hash.includes('methods')")
    assert page.rows() == [(PROMPTS[3], 1)]
    assert page.hash() == {"prompt": PROMPTS[3], "seed": "1", "methods": "syncdiffusion,blended_latent"}
    page.driver.refresh()
    assert page.rows() == [(PROMPTS[3], 1)]
    assert page.texts("#rows figcaption") == ["SyncDiffusion", "Blended latent diffusion"]
    assert page.find("#count").text == "1 of 12 rows, 2 of 3 methods"
    page.click("#controls [type=reset]")
    page.until("location.hash === ''")
    assert len(page.rows()) == 12 and len(page.texts("#rows figcaption")) == 36


def test_search_is_in_prompts_whatever_they_contain(page, pages):
    page.open(pages.table)
    for words, found in (("IMG SRC=x", 2), ("🌄", 4), ("{{ braces", 3), ("nowhere", None)):
        page.choose("search", words)
        prompts = {prompt for prompt, _ in page.rows()}
        assert prompts == (set() if found is None else {PROMPTS[found]}), words
    assert page.find("#count").text == "0 of 12 rows, 3 of 3 methods"


def test_rows_sort_by_where_the_shown_methods_disagree(page, pages):
    def expected(labels):
        table = pages.results.panoramas.pivot(index=["prompt", "seed"], columns="method", values="intra_lpips")
        values = table[list(labels)].to_numpy()
        apart = values.max(axis=1) - values.min(axis=1)
        order = np.argsort(-apart)
        return [table.index[place] for place in order], apart[order]

    page.open(pages.table)
    page.choose("order", "intra_lpips")
    rows, apart = expected(LABELS)
    assert page.rows() == rows
    told = [float(text.rpartition(" ")[2]) for text in page.texts("#rows h3 > small:nth-of-type(2)")]
    assert told == pytest.approx(apart, rel=0.005)  # three digits
    page.click("#methods label:nth-of-type(1) input")
    page.until("location.hash.includes('methods')")
    assert page.rows() == expected(LABELS[1:])[0] != rows


def test_windows_lie_where_the_method_places_them(page, pages):
    from syncdiffusion.geometry.windows import place_windows

    placed = place_windows(128 // 8, 768 // 8, 128 // 8, 4)
    boxes = [(left * 8, top * 8, left * 8 + 128, top * 8 + 128) for top, left in placed.corners]
    page.open(pages.table)
    first = FIGURES.format(row=1, column=1)
    assert not page.find(f"{first} .overlay").is_displayed()
    page.click("#controls [name=windows]")
    page.until("location.hash === '#windows=1'")
    drawn = re.findall(r"M(\d+) (\d+)H(\d+)V(\d+)H\1Z", page.find(f"{first} .thin").get_attribute("d"))
    assert [tuple(map(int, box)) for box in drawn] == boxes

    # On the screen: the anchor, N // 2, covers its share of the picture.
    frame, anchor = page.js(
        "[...document.querySelectorAll(arguments[0])].map((each) => each.getBoundingClientRect().toJSON())",
        f"{first} img, {first} path.anchor",
    )
    left, _, right, _ = boxes[len(placed) // 2]
    assert anchor["left"] - frame["left"] == pytest.approx(frame["width"] * left / 768, abs=0.1)
    assert anchor["right"] - frame["left"] == pytest.approx(frame["width"] * right / 768, abs=0.1)
    assert anchor["height"] == pytest.approx(frame["height"], abs=0.1)

    # Of the windows under the pointer the one whose centre is nearest to it.
    overlay = page.find(f"{first} .overlay")
    page.point(overlay, 0.7, 0.5)
    x = 0.7 * 768
    nearest = min(boxes, key=lambda box: abs((box[0] + box[2]) / 2 - x))
    pointed = page.find(f"{first} .pointed").get_attribute("d")
    assert pointed == "M{0} {1}H{2}V{3}H{0}Z".format(*nearest)
    assert page.find(FIGURES.format(row=1, column=2) + ".anchor").get_attribute("d") == ""
    # Blended latent diffusion outpaints from half a window to the next.
    outpainted = re.findall(
        r"M(\d+) 0H(\d+)V128H\1Z", page.find(FIGURES.format(row=1, column=3) + ".thin").get_attribute("d")
    )
    assert [tuple(map(int, box)) for box in outpainted] == [(left, left + 128) for left in range(0, 641, 64)]


def shown_place(page):
    """What point of the picture is in the middle of the view, and screen pixels per pixel."""
    return page.js(
        "(() => { const a = view.getBoundingClientRect(), b = stage.getBoundingClientRect();"
        "return [(a.x + a.width / 2 - b.x) / b.width, (a.y + a.height / 2 - b.y) / b.height, b.width / 768] })()"
    )


def test_lightbox_by_keyboard(page, pages):
    title = "#lightbox-title strong"
    page.open(pages.table)
    page.js("document.querySelector('#rows .picture').focus()")
    page.press("\ue007")
    assert page.find("#lightbox").is_displayed() and page.find(title).text == "SyncDiffusion"
    made = pages.results.panoramas.iloc[0]
    assert f"Intra-LPIPS {made['intra_lpips']:.4g}" in page.find("#lightbox-details").text
    assert f"{made['seconds']:.1f} seconds" in page.find("#lightbox-details").text
    page.until("stage.getBoundingClientRect().width === view.clientWidth")

    page.press(*"+++++")
    left, right, up, down = "\ue012", "\ue014", "\ue013", "\ue015"
    page.driver.execute_script("view.dispatchEvent(new KeyboardEvent('keydown', arguments[0]))", SHIFT_RIGHT)
    place = shown_place(page)
    assert place[2] == pytest.approx(1280 / 768 * 1.5**5, rel=1e-3) and place[0] > 0.5
    page.press(right)
    assert page.find(title).text == "MultiDiffusion"
    page.until("document.querySelector('#stage img').complete")
    assert shown_place(page) == pytest.approx(place, abs=0.5 / 1620)  # half a pixel: the picture is 1620 high
    page.press(right, right, right)  # not past the last
    assert page.find(title).text == "Blended latent diffusion"
    page.press(down)
    assert page.find("#lightbox-title span").text == f"{PROMPTS[0]}, seed 1"
    page.press(up, left, left, "0")
    assert page.find(title).text == "SyncDiffusion"
    # The view's height is counted in whole pixels: half of one, in a picture that is 213 high.
    assert shown_place(page) == pytest.approx([0.5, 0.5, 1280 / 768], abs=0.5 / 213)

    page.press("w")
    assert page.find("#stage .overlay").is_displayed() and page.hash() == {"windows": "1"}
    page.press(".", ".")
    assert page.find("#lightbox-window").text.startswith("window 1 of 0–20: x 32–160")
    page.press(",", ",")
    assert page.find("#lightbox-window").text.startswith("window 20 of 0–20: x 640–768")
    page.press("\ue00c")
    assert not page.find("#lightbox").is_displayed()
    assert page.js("document.activeElement === document.querySelector('#rows .picture')")


def test_wheel_zooms_where_the_pointer_is_and_dragging_moves(page, pages):
    from selenium.webdriver.common.action_chains import ActionChains
    from selenium.webdriver.common.actions.wheel_input import ScrollOrigin

    page.open(pages.table)
    page.click("#rows .picture")
    page.until("stage.getBoundingClientRect().width === view.clientWidth")
    view = page.find("#view")
    under = "(320 - stage.getBoundingClientRect().x) / stage.getBoundingClientRect().width"
    assert page.js(under) == pytest.approx(0.25)
    origin = ScrollOrigin.from_element(view, -320, 0)
    for _ in range(4):
        ActionChains(page.driver).scroll_from_origin(origin, 0, -100).perform()
    assert shown_place(page)[2] == pytest.approx(1280 / 768 * np.exp(4 * 0.3), rel=1e-3)
    assert page.js(under) == pytest.approx(0.25, abs=1e-4)
    ActionChains(page.driver, duration=0).move_to_element(view).click_and_hold().move_by_offset(
        100, 0
    ).release().perform()
    width = 1280 * np.exp(4 * 0.3)
    assert page.js(under) == pytest.approx(0.25 - 100 / width, abs=1e-4)
    page.click("#lightbox [name=close]")
    assert not page.find("#lightbox").is_displayed()


def test_plots_open_large(page, pages):
    page.open(pages.table)
    page.click("#plots .picture")
    assert page.find("#lightbox-title strong").text == "Cost by method"
    page.until("stage.getBoundingClientRect().height === view.clientHeight")


def test_a_page_without_pictures_has_its_tables_and_says_so(page, pages):
    page.open(pages.bare)
    assert "No pictures are here" in page.find("#gallery").text
    assert len(page.column("#results", 1)) == 3 and page.rows() == []
    assert not page.find("#controls").is_displayed() and not page.find("#plots").is_displayed()
    assert page.driver.get_log("browser") == []


@pytest.mark.parametrize("name", ["table", "ablation", "bare"])
def test_a_narrow_screen_is_wide_enough(page, pages, name):
    page.open(getattr(pages, name), "#order=intra_lpips&windows=1", width=400, height=800)
    assert page.js("[document.documentElement.scrollWidth, document.body.scrollWidth]") <= [400, 400]
    if name != "bare":
        page.click("#rows .picture")
        boxes = page.js(
            "[...document.querySelectorAll('#lightbox button')].map((each) => each.getBoundingClientRect().right)"
        )
        assert max(boxes) <= 400


def test_rows_come_in_pieces(page, pages):
    page.open(pages.ablation)
    assert page.find("#count").text == "60 of 60 rows, 10 of 10 methods"
    assert len(page.texts("#rows h3")) == 12
    page.js("scrollTo(0, document.body.scrollHeight)")
    page.driver.execute_async_script("requestAnimationFrame(() => setTimeout(arguments[0], 50))")
    assert len(page.texts("#rows h3")) == 12  # what follows is in reach
    assert page.find("#more button").text == "Show all 60 rows"
    page.click("#more button")
    assert not page.find("#more button").is_displayed()
    for _ in range(4):
        page.js("document.getElementById('end').scrollIntoView()")
        page.driver.execute_async_script("requestAnimationFrame(() => setTimeout(arguments[0], 50))")
    page.until("document.querySelectorAll('#rows article').length === 60")
    assert len(set(page.rows())) == 60
    # Ten columns are wider than the screen: they scroll in their own frame.
    assert page.js("document.body.scrollWidth") <= 1280 < page.js("document.getElementById('rows').scrollWidth")
    page.click("#methods [name=none]")
    page.until("location.hash === '#methods=none'")
    assert page.texts("#rows figure") == []


def test_it_begins_with_the_pictures_and_leads_to_the_rest(page, pages):
    page.open(pages.table)
    tops = "[...document.querySelectorAll('main section')].map((each) => [each.getBoundingClientRect().top, each.id])"
    order = [name for _, name in sorted(page.js(tops))]
    assert order == ["gallery", "results", "by-prompt", "comparisons", "plots"]
    assert page.js("document.querySelector('#rows img').getBoundingClientRect().top") < 1000  # on the first screen
    assert page.texts("nav button") == ["Panoramas", "Results", "Prompt by prompt", "Compared pair by pair", "Plots"]
    in_sight = "(top => top > -300 && top < 1000)(document.getElementById('by-prompt').getBoundingClientRect().top)"
    assert not page.js(in_sight)
    page.click("nav button:nth-of-type(3)")
    page.until(in_sight)
    assert page.hash() == {}


@pytest.mark.parametrize("name", ["wide", "table", "ablation"])
def test_no_column_is_cut_at_1400_pixels(page, pages, name):
    """Every cell lies inside the frame of its table, without scrolling."""
    page.open(getattr(pages, name), width=1400)
    assert len(page.texts("#results thead th")) >= (17 if name == "wide" else 9)
    beyond = page.js(
        "[...document.querySelectorAll('.frame')].map((frame) => Math.max(...[...frame.querySelectorAll('th, td')]"
        ".map((cell) => cell.getBoundingClientRect().right)) - frame.getBoundingClientRect().right)"
    )
    assert max(beyond) <= 0
    assert page.js("document.body.scrollWidth") <= 1400


def test_large_seeds_keep_all_their_digits(page, pages):
    page.open(pages.large)
    ordered = [str(seed) for seed in sorted(LARGE)]
    assert page.texts("#controls [name=seed] option") == ["all", *ordered]
    assert page.texts("#rows h3 > small") == [f"seed {seed}" for seed in ordered * 2]
    page.choose("seed", str(2**53 + 1))
    assert [seed for _, seed in page.rows()] == [2**53 + 1] * 2
    page.click("#rows .picture")
    assert page.find("#lightbox-title span").get_attribute("textContent").endswith(f"seed {2**53 + 1}")


@pytest.mark.parametrize("kind", ["input", "change"])
def test_a_filter_hears_either_event(page, pages, kind):
    page.open(pages.table)
    page.choose("prompt", PROMPTS[3], kind)
    assert page.rows() == [(PROMPTS[3], 0), (PROMPTS[3], 1)]
