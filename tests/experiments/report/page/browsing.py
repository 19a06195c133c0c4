"""Chromium, and what tests do to a page in it, in few words."""

import shutil
from pathlib import Path
from urllib.parse import parse_qs

CHROMIUM, DRIVER = shutil.which("chromium"), shutil.which("chromedriver")
FLAGS = (
    "--headless=new --no-sandbox --disable-gpu --disable-quic --no-first-run --disable-background-networking "
    "--disable-component-update --disable-sync --force-device-scale-factor=1 --enable-unsafe-swiftshader"
).split()


def start(profile: Path):
    """A WebDriver of a Chromium that keeps its things in `profile`, and logs its console and what it requests."""
    from selenium import webdriver
    from selenium.webdriver.chrome.service import Service

    options = webdriver.ChromeOptions()
    options.binary_location = CHROMIUM
    for flag in (*FLAGS, f"--user-data-dir={profile}"):
        options.add_argument(flag)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    return webdriver.Chrome(options=options, service=Service(DRIVER))


class Page:
    """What the tests do to a page, in few words."""

    def __init__(self, driver):
        self.driver = driver

    def open(self, path, hash="", width=1280, height=1000):
        self.driver.execute_cdp_cmd(
            "Emulation.setDeviceMetricsOverride",
            {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": False},
        )
        self.driver.get("about:blank")
        for log in ("browser", "performance"):
            self.driver.get_log(log)
        self.driver.get(f"{path.as_uri()}{hash}")

    def js(self, script, *arguments):
        return self.driver.execute_script(f"return {script}", *arguments)

    def find(self, selector):
        return self.driver.find_element("css selector", selector)

    def texts(self, selector):
        return self.js("[...document.querySelectorAll(arguments[0])].map((each) => each.textContent)", selector)

    def until(self, script, *arguments):
        from selenium.webdriver.support.ui import WebDriverWait

        return WebDriverWait(self.driver, 30, 0.05).until(lambda _: self.js(script, *arguments))

    def choose(self, name, value, kind="input"):
        """Set a control of the gallery as a reader does, and wait until the hash says so."""
        before = self.js("location.hash")
        self.driver.execute_script(
            "const each = document.forms.controls.elements[arguments[0]]; each.value = arguments[1];"
            "each.dispatchEvent(new Event(arguments[2], { bubbles: true }))",
            name,
            value,
            kind,
        )
        self.until("location.hash !== arguments[0]", before)

    def click(self, selector):
        from selenium.webdriver.support.ui import WebDriverWait

        element = self.find(selector)
        self.js("arguments[0].scrollIntoView({ block: 'center' })", element)
        WebDriverWait(self.driver, 10).until(lambda _: element.is_displayed())
        element.click()

    def press(self, *keys):
        from selenium.webdriver.common.action_chains import ActionChains

        ActionChains(self.driver).send_keys(*keys).perform()

    def point(self, element, x, y):
        """Move the mouse to (x, y), fractions of the element."""
        from selenium.webdriver.common.action_chains import ActionChains

        size = element.size
        place = round((x - 0.5) * size["width"]), round((y - 0.5) * size["height"])
        ActionChains(self.driver, duration=0).move_to_element_with_offset(element, *place).perform()

    def hash(self):
        return {name: values[0] for name, values in parse_qs(self.js("location.hash.slice(1)")).items()}

    def rows(self):
        """(prompt, seed) of the rows that are shown."""
        prompts = self.texts("#rows h3 > span")
        seeds = self.texts("#rows h3 > small:nth-of-type(1)")
        return [(prompt, int(seed.removeprefix("seed "))) for prompt, seed in zip(prompts, seeds, strict=True)]

    def column(self, table, number):
        return self.texts(f"{table} tbody tr > :nth-child({number}) > span:first-child")
