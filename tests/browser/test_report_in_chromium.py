"""The report page in a real browser: it opens, draws, sorts, filters, prints, and is quiet."""

from __future__ import annotations

import base64
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from deqcert.results import RunFolder
from tests.browser.conftest import DIGITS, requested

if TYPE_CHECKING:
    from selenium.webdriver.chrome.webdriver import WebDriver

Open = Callable[[Path], "WebDriver"]

VISIBLE = """
return document.querySelector(`[data-picture="${arguments[0]}"]`).data
  .map((trace) => ({ ...trace.meta, visible: trace.visible !== false }))
"""


def css(browser: WebDriver, selector: str) -> Any:
    return browser.find_element("css selector", selector)


def all_css(browser: WebDriver, selector: str) -> list[Any]:
    return browser.find_elements("css selector", selector)


def column(browser: WebDriver, number: int, table: str = "table[data-rows=L2]") -> list[str]:
    """Return the texts of a column of the rows that are shown."""
    return browser.execute_script(
        "return [...document.querySelectorAll(arguments[0])].map((cell) => cell.textContent)",
        f"{table} tbody tr td:nth-child({number})",
    )


def info(browser: WebDriver) -> str:
    return css(browser, "#images-L2 .dt-info").text


def choose(browser: WebDriver, label: str, text: str) -> None:
    """Choose an option of a filter of the L2 table by what is written beside and in it."""
    browser.execute_script(
        """
        const form = document.querySelector("[data-filters=L2]");
        const label = [...form.querySelectorAll("label")]
          .find((found) => found.firstChild.textContent === arguments[0]);
        const control = label.querySelector("select, input");
        if (control.tagName === "SELECT") {
          control.value = [...control.options].find((o) => o.textContent === arguments[1]).value;
        } else control.value = arguments[1];
        control.dispatchEvent(new Event("input", { bubbles: true }));
        """,
        label,
        text,
    )


def press(browser: WebDriver, *keys: str) -> None:
    from selenium.webdriver.common.action_chains import ActionChains

    for key in keys:
        ActionChains(browser).send_keys(key).perform()


def focused(browser: WebDriver) -> str:
    return browser.execute_script("return document.activeElement.outerHTML.slice(0, 300)")


def tab_until(browser: WebDriver, wanted: str, most: int = 200) -> None:
    """Press Tab until the element with the focus contains `wanted`."""
    from selenium.webdriver.common.keys import Keys

    for _ in range(most):
        press(browser, Keys.TAB)
        if wanted in focused(browser):
            return
    raise AssertionError(f"no Tab of {most} reached {wanted}")


def test_it_opens_without_a_word_and_asks_for_nothing(opened: Open, digits_page: Path) -> None:
    browser = opened(digits_page)
    assert "digits" in browser.title
    assert [entry["message"] for entry in browser.get_log("browser")] == []
    asked = [url for url in requested(browser) if not url.startswith(("data:", "blob:"))]
    assert asked == [digits_page.as_uri()]
    assert not css(browser, "#trouble").is_displayed()
    plots = all_css(browser, "[data-picture] svg.main-svg")
    assert len(plots) >= 5


def test_the_policy_stops_what_is_not_the_page(opened: Open, digits_page: Path) -> None:
    browser = opened(digits_page)
    blocked = browser.execute_async_script(
        """
        const done = arguments[0];
        const script = document.createElement("script");
        script.textContent = "window.pwned = 1";
        document.head.append(script);
        const image = new Image();
        image.onerror = () => done(window.pwned === undefined);
        image.onload = () => done(false);
        image.src = "file:///usr/share/pixmaps/none.png";
        """
    )
    assert blocked
    assert any("Content Security Policy" in e["message"] for e in browser.get_log("browser"))


def test_a_curve_is_hidden_and_shown_in_all_figures(opened: Open, digits_page: Path) -> None:
    browser = opened(digits_page)
    for key in ("curves-L2", "pareto-L2", "solvers-L2"):
        assert any(t["visible"] for t in browser.execute_script(VISIBLE, key) if t.get("run") == 1)
    css(browser, "#curves-L2-run-1").click()
    for key in ("curves-L2", "pareto-L2", "solvers-L2"):
        traces = browser.execute_script(VISIBLE, key)
        assert not any(t["visible"] for t in traces if t.get("run") == 1)
        assert any(t["visible"] for t in traces if t.get("run") == 0)
        assert not css(browser, f"#{key}-run-1").is_selected()
    css(browser, "#solvers-L2-run-1").click()
    assert any(
        t["visible"] for t in browser.execute_script(VISIBLE, "curves-L2") if t.get("run") == 1
    )


def test_bands_and_claims(opened: Open, digits_page: Path) -> None:
    browser = opened(digits_page)
    bands = [t for t in browser.execute_script(VISIBLE, "curves-L2") if t.get("part") == "band"]
    assert {t["run"] for t in bands} == {0, 1}
    assert any(t["visible"] for t in bands)
    css(browser, "[data-bands=L2]").click()
    traces = browser.execute_script(VISIBLE, "curves-L2")
    assert not any(t["visible"] for t in traces if t.get("part") == "band")
    css(browser, "[data-kind=L2][value=together]").click()
    traces = browser.execute_script(VISIBLE, "curves-L2")
    assert {t["kind"] for t in traces if t["visible"]} == {"together"}
    assert {t["run"] for t in traces if t["visible"]} == {0, 1}  # srs-paper claims nothing


def test_zooming_by_buttons(opened: Open, digits_page: Path) -> None:
    browser = opened(digits_page)
    reading = "return document.querySelector('[data-picture=curves-L2]').layout.xaxis.range"
    whole = browser.execute_script(reading)
    css(browser, "[data-zoom=in][data-figure=curves-L2]").click()
    inside = browser.execute_script(reading)
    assert whole[0] < inside[0] < inside[1] < whole[1]
    css(browser, "[data-zoom=all][data-figure=curves-L2]").click()
    assert browser.execute_script(reading) == whole


def test_another_cost_and_result(opened: Open, digits_page: Path) -> None:
    browser = opened(digits_page)
    reading = "const p = document.querySelector('[data-picture=pareto-L2]');"
    title = f"{reading} return [p.layout.xaxis.title.text, p.layout.yaxis.title.text]"
    before = browser.execute_script(title)
    choice = css(browser, "[data-pareto=result]")
    choice.find_elements("css selector", "option")[2].click()
    css(browser, "[data-pareto=cost]").find_elements("css selector", "option")[1].click()
    after = browser.execute_script(title)
    assert after[0] == "seconds per image"
    assert "certified accuracy at" in after[1]
    assert after != before


def test_sorting_shows_the_largest_radii_first(opened: Open, digits_page: Path) -> None:
    browser = opened(digits_page)
    radii = [
        record["radius"]
        for name in ("standard", "srs", "srs-paper")
        for record in RunFolder.open(DIGITS / name).records()
    ]
    heading = next(h for h in all_css(browser, "table[data-rows=L2] th") if "radius (L2)" in h.text)
    heading.click()
    heading.click()
    assert heading.get_attribute("aria-sort") == "descending"
    place = [h.text for h in all_css(browser, "table[data-rows=L2] th")].index(heading.text) + 1
    shown = [float(text.split()[0]) for text in column(browser, place)]
    assert len(shown) == 25
    for found, radius in zip(shown, sorted(radii, reverse=True), strict=False):
        assert radius - 1e-4 < found <= radius


def test_filters_add_up_and_clear(opened: Open, digits_page: Path) -> None:
    browser = opened(digits_page)
    everything = info(browser)
    choose(browser, "run", "srs")
    choose(browser, "label", "7")
    wanted = [r for r in RunFolder.open(DIGITS / "srs").records() if r["label"] == 7]
    assert info(browser).startswith(f"1 to {len(wanted)} of {len(wanted)}")
    assert set(column(browser, 3)) == {"7"}
    choose(browser, "radius at least", "0.5")
    most = [r for r in wanted if r["radius"] >= 0.5]
    assert len(column(browser, 1)) == max(1, len(most))
    css(browser, "[data-filters=L2] button[type=reset]").click()
    browser.execute_async_script("setTimeout(arguments[0], 50)")
    assert info(browser) == everything


def test_an_image_and_the_next_one(opened: Open, digits_page: Path) -> None:
    browser = opened(digits_page)
    choose(browser, "run", "srs")
    css(browser, "table[data-rows=L2] tbody tr").click()
    view = css(browser, "#view")
    assert view.is_displayed()
    first = next(iter(RunFolder.open(DIGITS / "srs").records()))
    assert f"Image {first['index']}" in view.text
    assert "This image in all runs" in view.text
    assert len(all_css(browser, "#view .wide:last-child tbody tr")) == 3
    picture = css(browser, "#view img.thumb")
    assert browser.execute_script("return arguments[0].naturalWidth", picture) == 8
    title = css(browser, "#view-title").text
    css(browser, "#view [data-step='1']").click()
    assert css(browser, "#view-title").text != title
    from selenium.webdriver.common.keys import Keys

    press(browser, Keys.ARROW_LEFT)
    assert css(browser, "#view-title").text == title
    press(browser, Keys.ESCAPE)
    assert not css(browser, "#view").is_displayed()


def test_keys_alone_are_enough(opened: Open, digits_page: Path) -> None:
    from selenium.webdriver.common.keys import Keys

    browser = opened(digits_page)
    press(browser, Keys.TAB)
    assert "Skip to the results" in focused(browser)
    press(browser, Keys.ENTER)
    tab_until(browser, 'id="curves-L2-run-0"')
    press(browser, Keys.SPACE)
    assert not css(browser, "#curves-L2-run-0").is_selected()
    press(browser, Keys.SPACE)
    browser.execute_script("document.querySelector('#images-L2 .scroll').focus()")
    tab_until(browser, "radius (L2)")
    press(browser, Keys.ENTER)
    assert all_css(browser, "table[data-rows=L2] th[aria-sort=ascending]")[0].text.startswith(
        "radius"
    )
    tab_until(browser, 'class="pick"')
    press(browser, Keys.ENTER)
    assert css(browser, "#view").is_displayed()
    assert ">Close<" in focused(browser)
    press(browser, Keys.ENTER)
    assert not css(browser, "#view").is_displayed()
    assert 'class="pick"' in focused(browser)


def test_everything_that_can_be_pressed_has_a_name(opened: Open, digits_page: Path) -> None:
    browser = opened(digits_page)
    css(browser, "table[data-rows=L2] tbody tr").click()
    nameless = browser.execute_script(
        """
        return [...document.querySelectorAll("button, input, select, a, [role=button], img")]
          .filter((node) => !(node.textContent.trim() || node.getAttribute("aria-label") || node.alt
            || node.closest("label")?.textContent.trim() || node.labels?.[0]?.textContent.trim()))
          .map((node) => node.outerHTML.slice(0, 120));
        """
    )
    assert nameless == []


@pytest.mark.parametrize("width", [360, 390, 768])
def test_a_phone_needs_no_sideways_scrolling(opened: Open, digits_page: Path, width: int) -> None:
    browser = opened(digits_page)
    size = {"width": width, "height": 844, "deviceScaleFactor": 1, "mobile": True}
    try:
        browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
        browser.refresh()
        opened(digits_page)
        wide = browser.execute_script(
            "return [document.documentElement.scrollWidth, document.documentElement.clientWidth]"
        )
        assert wide == [width, width]
        for plot in all_css(browser, "[data-picture]"):
            assert plot.size["width"] <= width
        css(browser, "table[data-rows=L2] tbody tr").click()
        assert css(browser, "#view").size["width"] <= width
    finally:
        browser.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})


def test_paper_gets_figures_and_words_but_no_buttons(opened: Open, digits_page: Path) -> None:
    browser = opened(digits_page)
    browser.execute_script("document.querySelector('.run').scrollIntoView()")
    printed = browser.execute_cdp_cmd("Page.printToPDF", {"printBackground": True})
    content = base64.b64decode(printed["data"])
    assert content.startswith(b"%PDF")
    assert len(content) > 50_000
    # On the screen everything is as it was.
    assert not any(part.get_attribute("open") for part in all_css(browser, "details"))
    try:
        browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"media": "print"})
        for hidden in ("nav", ".tools", ".dt-paging"):
            assert not css(browser, hidden).is_displayed()
        assert css(browser, "[data-picture=curves-L2]").is_displayed()
        assert css(browser, ".claim").is_displayed()
    finally:
        browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"media": ""})


def test_names_of_strangers_stay_text(opened: Open, many_page: Path) -> None:
    browser = opened(many_page)
    assert "1 to 25 of 3,000" in info(browser)
    css(browser, "table[data-rows=L2] tbody tr").click()
    assert "<img src=x" in css(browser, "#view-title").text
    assert "<img src=x" in css(browser, "#view-plot").text
    assert browser.execute_script("return window.pwned") is None
    images = "return [...document.images].filter((image) => image.src.endsWith('/x')).length"
    assert browser.execute_script(images) == 0
    assert [entry["message"] for entry in browser.get_log("browser")] == []


def test_the_last_of_many_rows(opened: Open, many_page: Path) -> None:
    browser = opened(many_page)
    css(browser, "#images-L2 .dt-paging-button.last").click()
    assert info(browser).startswith("2,976 to 3,000 of 3,000")
    assert column(browser, 1)[-1] == "2999"
    choose(browser, "image", "2999")
    assert info(browser).startswith("1 to 1 of 1")
