"""What a person sees who types `make lab`: the first notebook runs in a browser, its sliders change
the picture, its summary shows its figures, and nothing is loaded from elsewhere.

The pictures that the test takes are kept in the folder of $PFCALIB_SCREENSHOTS, to be looked at.
"""

from __future__ import annotations

import io
import os
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from urllib.parse import urlsplit

import matplotlib.image
import numpy as np
import pytest

from pfcalib.reporting.results import read_results

ROOT = Path(__file__).resolve().parents[1]
CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "chrome"))), None)
SECONDS = 300  # that all cells may take on a busy machine

pytestmark = [
    pytest.mark.lab,
    pytest.mark.skipif(CHROMIUM is None, reason="no chromium on this machine: apt-get install it"),
]
sync_api = pytest.importorskip("playwright.sync_api", reason="needs playwright, of the extra dev")


@pytest.fixture
def clone(tmp_path: Path) -> Path:
    """The notebooks and published results of this clone, where a run does no harm."""
    for name in ("notebooks", "reports", ".jupyter"):
        ignored = shutil.ignore_patterns("__pycache__", ".ipynb_checkpoints", "smoke", "lab")
        shutil.copytree(ROOT / name, tmp_path / "clone" / name, ignore=ignored)
    return tmp_path / "clone"


@pytest.fixture
def address(clone: Path, tmp_path: Path) -> Iterator[str]:
    """Of JupyterLab, started in the clone by the command of `make lab`."""
    recipe = subprocess.run(
        ["make", "-n", "lab"], cwd=ROOT, check=True, capture_output=True, text=True
    ).stdout.splitlines()[-1]
    assert ".venv/bin/jupyter" in recipe
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    token = secrets.token_hex(16)
    command = recipe.replace(".venv/bin/jupyter", f"{Path(sys.executable).parent}/jupyter")
    options = f"--no-browser --allow-root --ServerApp.port={port} --ServerApp.port_retries=0"
    folders = {
        f"JUPYTER{name}": str(tmp_path / "jupyter" / name)
        for name in ("_CONFIG_DIR", "_DATA_DIR", "_RUNTIME_DIR", "LAB_WORKSPACES_DIR")
    } | {"JUPYTERLAB_SETTINGS_DIR": str(tmp_path / "jupyter" / "settings")}
    with (tmp_path / "jupyter.log").open("wb") as log:
        server = subprocess.Popen(
            ["bash", "-c", command + " " + options],
            cwd=clone,
            env=os.environ | folders | {"JUPYTER_TOKEN": token, "PYTHONPATH": str(ROOT)},
            stdout=log,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    try:
        _wait_for(f"http://127.0.0.1:{port}/api", server)
        yield f"http://127.0.0.1:{port}/?token={token}"
    finally:
        os.killpg(server.pid, signal.SIGTERM)
        server.wait(30)


def _wait_for(url: str, server: subprocess.Popen) -> None:
    """Until a server answers."""
    end = time.monotonic() + 60.0
    while time.monotonic() < end:
        assert server.poll() is None, "JupyterLab ended"
        try:
            urllib.request.urlopen(url, timeout=5.0).close()
            return
        except urllib.error.HTTPError:  # it answers: not without the token
            return
        except OSError:
            time.sleep(0.5)
    raise AssertionError(f"{url} does not answer")


@pytest.fixture
def browser() -> Iterator[sync_api.Browser]:
    with sync_api.sync_playwright() as playwright:
        # drawing in three dimensions without a graphics card
        options = ["--no-sandbox", "--use-angle=swiftshader", "--enable-unsafe-swiftshader"]
        yield playwright.chromium.launch(executable_path=CHROMIUM, args=options)


@pytest.fixture
def keep(tmp_path: Path) -> Callable[[str, bytes], np.ndarray]:
    """Keeps a screenshot and gives its pixels, shape (height, width, 3)."""
    folder = Path(os.environ.get("PFCALIB_SCREENSHOTS", tmp_path / "screenshots"))
    folder.mkdir(parents=True, exist_ok=True)

    def kept(name: str, picture: bytes) -> np.ndarray:
        (folder / f"{name}.png").write_bytes(picture)
        return matplotlib.image.imread(io.BytesIO(picture))[..., :3]

    return kept


def changed(before: np.ndarray, after: np.ndarray) -> float:
    """Share of the pixels that differ."""
    assert before.shape == after.shape
    return float((np.abs(before - after).max(axis=-1) > 0.05).mean())


def test_the_first_notebook_runs_in_a_browser_and_its_sliders_change_the_picture(
    address, browser, clone, keep
):
    page = browser.new_page(viewport={"width": 1400, "height": 1000}, color_scheme="dark")
    page.set_default_timeout(1000 * SECONDS)
    elsewhere, errors = [], []
    page.on(
        "request",
        lambda request: (
            elsewhere.append(request.url)
            if urlsplit(request.url).hostname not in ("127.0.0.1", None)
            else None
        ),
    )
    page.on("pageerror", lambda error: errors.append(str(error)))
    page.goto(address)
    notebook = page.locator(".jp-NotebookPanel:visible")
    notebook.get_by_role("heading", name="00 Start").wait_for()
    assert page.locator("body[data-jp-theme-light=false]").count() == 1  # as the system has it
    page.wait_for_timeout(3000)  # news would pop up now
    assert page.locator(".Toastify__toast").count() == 0
    keep("opened", page.screenshot())

    page.get_by_role("menuitem", name="Run", exact=True).click()
    page.get_by_role("menuitem", name="Run All Cells", exact=True).click()
    results = notebook.get_by_role("heading", name="00_start, lab: required checks hold")
    results.wait_for()
    assert notebook.locator("[data-mime-type='application/vnd.jupyter.error']").count() == 0
    assert notebook.locator("[data-mime-type='application/vnd.jupyter.stderr']").count() == 0

    found = read_results(clone / "reports" / "00_start" / "lab" / "results.json")
    assert found["status"] == "passed"
    images = notebook.locator(".jp-RenderedMarkdown img[src^='data:image/png']")
    assert images.count() == len(found["figures"]) > 0
    assert all(images.evaluate_all("all => all.map(image => image.naturalWidth > 100)"))
    results.scroll_into_view_if_needed()
    page.wait_for_timeout(1000)  # what comes into view is drawn
    keep("summary", page.screenshot())
    images.first.scroll_into_view_if_needed()
    page.wait_for_timeout(1000)
    keep("figures", page.screenshot())

    picture = notebook.locator(".js-plotly-plot")
    picture.scroll_into_view_if_needed()
    picture.locator("canvas").first.wait_for()

    def look(name: str, before: np.ndarray | None = None, share: float = 0.0) -> np.ndarray:
        """The picture when it has come to rest, and differs from another one in more than a share
        of its pixels.
        """
        last = None
        for _ in range(60):
            page.wait_for_timeout(1000)
            now = keep(name, picture.locator(".plot-container").screenshot())
            at_rest = last is not None and changed(last, now) == 0.0
            if at_rest and (before is None or changed(before, now) > share):
                return now
            last = now
        raise AssertionError(f"{name}: the picture has not changed")

    first = look("event_0")
    keep("widget", page.screenshot())
    slider = notebook.locator(".widget-slider .noUi-handle")
    slider.first.focus()
    page.keyboard.press("ArrowRight")
    second = look("event_1", first, share=0.02)
    sync_api.expect(picture).to_contain_text("pi+ of")
    slider.nth(1).focus()
    for _ in range(20):
        page.keyboard.press("ArrowRight")
    third = look("threshold", second, share=0.005)
    notebook.get_by_label("truth").check()
    fourth = look("truth", third, share=0.005)
    place = picture.bounding_box()
    x, y = place["x"] + 0.4 * place["width"], place["y"] + 0.5 * place["height"]
    page.mouse.move(x, y)
    page.mouse.down()
    page.mouse.move(x + 160.0, y - 60.0, steps=8)
    page.mouse.up()
    look("turned", fourth, share=0.02)

    notebook.get_by_role("link", name="02", exact=True).click()
    summary = page.locator(".jp-MarkdownViewer:visible")
    pictures = summary.locator("img")
    pictures.first.wait_for()
    page.wait_for_function(
        "all => all.every(image => image.naturalWidth > 100)", arg=pictures.element_handles()
    )
    keep("linked", page.screenshot())
    assert elsewhere == []
    assert errors == []
