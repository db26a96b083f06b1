"""The site in a browser: nothing fails to load, nothing scrolls sideways, search and switches work.

Runs with Debian's chromium; screenshots go to ``PFCALIB_SCREENSHOTS`` where that names a folder,
and ``AXE_CORE`` names the axe.min.js of the npm package axe-core that looks for barriers.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from pfcalib.reporting.apipages import build_api

sync_api = pytest.importorskip("playwright.sync_api")
CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser"))), None)
AXE = os.environ.get("AXE_CORE", "")
WIDTHS = (390, 1024, 1920)
STUDY = "03_classification/index.html"
PAGES = ("index.html", STUDY, "10_domain_shift/index.html", "guide.html")

pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="needs chromium: apt-get install chromium")


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    """A browser without a window."""
    with sync_api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield browser
        browser.close()


@pytest.fixture
def complaints() -> list[str]:
    """What the browser complained of; a test that opens pages ends with none."""
    return []


@pytest.fixture
def visit(browser: Any, site: Path, complaints: list[str]) -> Iterator[Any]:
    """Opens a page of the site at a width, in light or dark; errors, failed loads and requests
    that leave the folder are complaints.
    """
    contexts = []

    def open_page(name: str, width: int = 1024, scheme: str = "light") -> Any:
        contexts.append(
            browser.new_context(viewport={"width": width, "height": 900}, color_scheme=scheme)
        )
        page = contexts[-1].new_page()
        page.on("console", lambda said: complaints.append(f"console: {said.text}"))
        page.on("pageerror", lambda error: complaints.append(f"error: {error}"))
        page.on("requestfailed", lambda request: complaints.append(f"failed: {request.url}"))
        page.on(
            "request",
            lambda request: (
                request.url.startswith((f"file://{site}", "data:"))
                or complaints.append(f"left the site: {request.url}")
            ),
        )
        page.goto(f"file://{site / name}")
        return page

    yield open_page
    for context in contexts:
        context.close()


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", WIDTHS)
def test_pages_load_whole_and_never_scroll_sideways(visit, complaints, width, scheme, tmp_path):
    folder = Path(os.environ.get("PFCALIB_SCREENSHOTS", tmp_path))
    folder.mkdir(parents=True, exist_ok=True)
    for name in PAGES:
        page = visit(name, width, scheme)
        page.evaluate("document.querySelectorAll('img').forEach(image => image.loading = 'eager')")
        page.wait_for_function("[...document.images].every(image => image.complete)")
        broken = "[...document.images].filter(i => !i.naturalWidth || !i.alt).map(i => i.src)"
        assert page.evaluate(broken) == []
        assert page.evaluate("document.documentElement.scrollWidth") <= width, name
        if name in PAGES[:2]:
            shot = f"{name.replace('/', '-').removesuffix('.html')}-{width}-{scheme}.png"
            page.screenshot(path=folder / shot, full_page=scheme == "light")
    assert complaints == []


def test_light_and_dark_follow_the_system_and_the_switch_is_remembered(visit, complaints):
    paper = "getComputedStyle(document.body).backgroundColor"
    light, dark = (visit("index.html", scheme=scheme) for scheme in ("light", "dark"))
    is_light, is_dark = light.evaluate(paper), dark.evaluate(paper)
    assert is_light != is_dark
    light.click("#theme")
    assert light.evaluate(paper) == is_dark
    light.goto(light.url.replace("index.html", "guide.html"))
    assert light.evaluate(paper) == is_dark
    assert complaints == []


def test_the_search_finds_a_metric_and_leads_to_it_by_the_keyboard(visit, complaints):
    page = visit("guide.html")
    page.keyboard.press("/")
    page.keyboard.type("auc_gbdt_shapes_geant4")
    page.wait_for_selector("#hits li:first-child a:has-text('auc_gbdt_shapes_geant4')")
    page.keyboard.press("ArrowDown")
    page.keyboard.press("Enter")
    page.wait_for_url("**/03_classification/index.html#m-auc_gbdt_shapes_geant4")
    assert page.locator("#m-auc_gbdt_shapes_geant4").is_visible()
    page.fill("#query", "nothing is called like this")
    page.wait_for_selector("text=Nothing found")
    assert complaints == []


def test_code_is_folded_until_one_button_opens_all_of_it(visit, complaints):
    page = visit(STUDY)
    codes = page.locator("details.code pre")
    assert codes.count() > 10
    assert not codes.first.is_visible()
    page.click(".fold")
    assert all(codes.nth(k).is_visible() for k in range(codes.count()))
    page.click(".fold")
    assert not codes.first.is_visible()
    assert complaints == []


def test_the_contents_lead_to_each_part_of_a_study(visit):
    page = visit(STUDY)
    for link in page.locator("nav[aria-label='Contents of this page'] a").all():
        anchor = (link.get_attribute("href") or "").removeprefix("#")
        assert page.locator(f"[id='{anchor}']").count() == 1


@pytest.fixture(scope="module")
def api_page(site: Path) -> str:
    """A page of the API, built for this test."""
    build_api(site / "api", "pfcalib.metrics")
    return "api/pfcalib/metrics/response.html"


@pytest.mark.parametrize("width", WIDTHS)
def test_a_page_of_the_api_has_the_header_and_search_of_the_site(
    visit, complaints, api_page, width
):
    page = visit(api_page, width)
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    assert page.locator("nav.pdoc li >> nth=0").is_visible() == (width >= 992)
    page.fill("#query", "auc_gbdt_shapes_geant4")
    page.click("#hits li:first-child a:has-text('auc_gbdt_shapes_geant4')")
    page.wait_for_url("**/03_classification/index.html#m-auc_gbdt_shapes_geant4")
    assert complaints == []


@pytest.mark.skipif(not Path(AXE).is_file(), reason="needs AXE_CORE=.../axe-core/axe.min.js (npm)")
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_axe_finds_no_serious_barrier(visit, scheme, api_page):
    for name in (*PAGES, api_page):
        page = visit(name, scheme=scheme)
        page.evaluate("document.querySelectorAll('details').forEach(part => part.open = true)")
        page.evaluate(Path(AXE).read_text("utf-8"))
        found = page.evaluate("axe.run().then(results => results.violations)")
        serious = [
            f"{name}: {each['id']}: {each['nodes'][0]['html'][:200]} ({len(each['nodes'])})"
            for each in found
            if each["impact"] in ("serious", "critical")
        ]
        assert serious == []
