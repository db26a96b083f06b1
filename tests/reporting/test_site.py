"""The site says what the results say, is complete, and needs no network."""

from __future__ import annotations

import base64
import collections
import html.parser
import json
import re
import shutil
import urllib.parse
from pathlib import Path
from typing import Any

import nbformat
import pytest
from matplotlib.figure import Figure

from pfcalib import provenance
from pfcalib.errors import ConfigError, ValidationError
from pfcalib.reporting.apipages import build_api
from pfcalib.reporting.catalogue import find_studies
from pfcalib.reporting.entries import choose_entry, collect_entries, open_entry
from pfcalib.reporting.results import Report, read_results, write_results
from pfcalib.reporting.site import MARKERS, build_index, render_readme, write_readme
from pfcalib.reporting.studypage import render_notebook

SENTENCE = "The area is {auc_dnn}."


class Page(html.parser.HTMLParser):
    """What a page links to, shows and names."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.ids: list[str] = []
        self.links: list[str] = []
        self.images: list[dict[str, str | None]] = []
        self.feed(path.read_text("utf-8"))

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        found = dict(attrs)
        self.ids += [found["id"]] if found.get("id") else []
        self.links += [found[key] or "" for key in ("href", "src") if key in found]
        self.images += [found] if tag == "img" else []


def faults(site: Path) -> list[str]:
    """Dead links, names that are given twice, pictures without text or size, of all pages."""
    pages = {path: Page(path) for path in site.rglob("*.html")}
    found = []
    for path, page in pages.items():
        where = path.relative_to(site)
        twice = [name for name, n in collections.Counter(page.ids).items() if n > 1]
        found += [f"{where}: id {name} is there twice" for name in twice]
        for image in page.images:
            lacking = [name for name in ("alt", "width", "height") if not image.get(name)]
            found += [f"{where}: {str(image['src'])[:60]} has no {name}" for name in lacking]
        for link in page.links:
            if re.match(r"https?:|data:|mailto:", link):
                continue
            file, _, anchor = urllib.parse.unquote(link).partition("#")
            target = (path.parent / file).resolve() if file else path
            if not target.is_file() or site not in target.parents:
                found.append(f"{where}: {link} leads nowhere in the site")
            elif anchor and target.suffix == ".html" and anchor not in pages[target].ids:
                found.append(f"{where}: {link} leads to no place in its page")
    return found


@pytest.fixture
def clone(tmp_path: Path) -> Path:
    """A clone with one published study, which was built in the smoke profile too."""
    new = nbformat.v4
    cells = [
        new.new_markdown_cell("# 01 Tiny\n\nIs $E = mc^2$?\n\nAn answer is a number."),
        new.new_code_cell("seed = 1", metadata={"tags": ["parameters"]}),
        new.new_markdown_cell("## The end"),
    ]
    (tmp_path / "notebooks" / "profiles").mkdir(parents=True)
    about = {"headlines": ["auc_dnn"], "theme": "tests", "result": SENTENCE, "figure": "roc"}
    notebook = new.new_notebook(cells=cells, metadata={"pfcalib": about})
    nbformat.write(notebook, tmp_path / "notebooks" / "01_tiny.ipynb")
    (tmp_path / "notebooks" / "profiles" / "01_tiny.yaml").write_text("standard: {seed: 1}\n")
    folder = tmp_path / "reports" / "01_tiny"
    for profile, place in (("standard", folder), ("smoke", folder / "smoke")):
        report = Report("01_tiny", place, {"profile": profile, "seed": 1}, 1)
        report.metric("first", 1, None, "", "no headline")
        report.metric("auc_dnn", 0.97 if profile == "standard" else 0.6, 0.01, "", "area")
        report.check("goal", 0, "1", passed=profile == "smoke", required=False)
        report.figure(Figure(), "other", caption="Another")
        report.figure(Figure(), "roc", caption="A <curve>")
        report.finish()
    readme = (
        f"# Tiny\n\n## Start\n\n[x](LICENSE)\n\n## Studies\n\n{MARKERS[0]}\n{MARKERS[1]}\nend\n"
    )
    (tmp_path / "README.md").write_text(readme)
    return tmp_path


def test_the_front_page_shows_the_published_result_and_leads_to_the_others(clone, network_loads):
    page = build_index(clone).read_text()
    assert "The area is <b>0.970\xa0±\xa00.010</b>." in page
    assert "0.600" not in page
    assert 'src="01_tiny/figures/roc.png"' in page
    assert 'alt="A &lt;curve&gt;"' in page
    assert 'href="01_tiny/smoke/report.html"' in page
    assert not network_loads(page)


def test_a_study_has_a_page_for_the_published_results_and_one_for_each_run(clone):
    folder = build_index(clone).parent / "01_tiny"
    published, smoke = (folder / "index.html"), (folder / "smoke" / "report.html")
    assert "0.970" in published.read_text()
    assert "0.600" not in published.read_text()
    assert "Smoke run" not in published.read_text()
    assert "0.600" in smoke.read_text()
    assert "Smoke run" in smoke.read_text()
    assert 'href="smoke/report.html"' in published.read_text()
    assert 'href="../index.html"' in smoke.read_text()
    for path in (published, smoke):
        page = path.read_text()
        assert len(re.findall(r'<img src="figures/roc\.png"', page)) == 1
        assert 'href="figures/roc.pdf"' in page
        assert page.index("<math") < page.index("An answer is a number.")


def test_the_page_of_published_results_shows_the_notebook_of_the_run_that_made_them(clone):
    folder = clone / "reports" / "01_tiny"
    page = build_index(clone).parent / "01_tiny" / "index.html"
    assert "outputs come with a run" in page.read_text()
    (folder / "standard").mkdir()
    for name in ("results.json", "results.csv"):
        shutil.copy(folder / name, folder / "standard")
    shutil.copytree(folder / "figures", folder / "standard" / "figures")
    shutil.copy(clone / "notebooks" / "01_tiny.ipynb", folder / "standard" / "executed.ipynb")
    build_index(clone)
    assert "As it was executed" in page.read_text()
    results = read_results(folder / "results.json")
    results["metrics"]["auc_dnn"]["value"] = 0.5  # of another run than that in the clone
    write_results(results, folder)
    build_index(clone)
    assert "outputs come with a run" in page.read_text()


def test_where_there_is_only_a_smoke_run_the_site_says_so(clone):
    for path in (clone / "reports" / "01_tiny").glob("*.*"):
        path.unlink()
    page = build_index(clone)
    assert "smoke run only" in page.read_text()
    assert "the only result that there is" in (page.parent / "01_tiny" / "index.html").read_text()


def test_a_study_that_was_never_run_has_a_page_that_tells_how(clone):
    (clone / "reports").rename(clone / "former")
    page = build_index(clone)
    assert "not run yet" in page.read_text()
    assert "pfcalib run 01" in (page.parent / "01_tiny" / "index.html").read_text()
    assert not faults(page.parent)


def test_the_site_of_nothing_says_so(tmp_path):
    (tmp_path / "notebooks").mkdir()
    assert "No study has been run yet" in build_index(tmp_path).read_text()


def test_a_page_is_made_anew_only_if_what_it_shows_has_changed(clone):
    page = build_index(clone).parent / "01_tiny" / "index.html"
    smoke = page.parent / "smoke" / "report.html"
    before = {path: path.stat().st_ino for path in (page, smoke)}
    build_index(clone)
    assert {path: path.stat().st_ino for path in before} == before
    results = read_results(page.parent / "results.json")
    results["metrics"]["auc_dnn"]["value"] = 0.5
    write_results(results, page.parent)
    build_index(clone)
    assert page.stat().st_ino != before[page]
    assert "0.500" in page.read_text()
    assert smoke.stat().st_ino == before[smoke]


def test_the_verdict_counts_checks_and_goals_in_symbols_and_words(clone):
    published, smoke = collect_entries(clone)
    assert [mark[1:] for mark in published.marks] == [("○", "1 goal missed"), ("↻", "stale")]
    assert smoke.marks[0][1:] == ("●", "1 goal reached")
    assert choose_entry([smoke, published]) == published
    broken = Report("01_tiny", clone / "reports" / "01_tiny" / "bad", {"profile": "smoke"}, 1)
    broken.check("a", 0, "1", passed=False)
    broken.check("b", 0, "1", passed=True)
    with pytest.raises(ValidationError):
        broken.finish()
    (entry,) = (entry for entry in collect_entries(clone) if entry.label == "bad")
    assert entry.marks[0] == ("failed", "✗", "1 of 2 required checks hold")


def record_code(clone: Path, **changes: Any) -> Path:
    """Let the published result of the clone say which code made it; its place."""
    path = clone / "reports" / "01_tiny" / "results.json"
    results = read_results(path)
    code = provenance.code_digests(clone / "notebooks" / "01_tiny.ipynb")
    results["provenance"] |= {"code": code, **changes}
    write_results(results, path.parent)
    return path


def test_a_result_is_stale_where_its_code_is_unknown_or_has_changed(clone):
    study = find_studies(clone)["01_tiny"]
    path = clone / "reports" / "01_tiny" / "results.json"
    assert "does not say" in open_entry(clone, study, path).stale
    record_code(clone)
    assert not open_entry(clone, study, path).stale
    assert "stale" not in render_readme(clone)
    study.path.write_text(study.path.read_text().replace("seed = 1", "seed = 1  # remark"))
    assert not open_entry(clone, study, path).stale
    study.path.write_text(study.path.read_text().replace("seed = 1", "seed = 2"))
    assert open_entry(clone, study, path).stale == "changed since: notebook"
    assert open_entry(clone, study, path).changed == ("notebook",)
    page = build_index(clone)
    assert "changed since: notebook" in page.read_text()
    assert "<code>notebook</code>" in (page.parent / "01_tiny" / "index.html").read_text()
    assert "**stale**" in render_readme(clone)


def test_a_result_is_stale_where_its_profile_has_other_parameters_now(clone):
    path = record_code(clone)
    (clone / "notebooks" / "profiles" / "01_tiny.yaml").write_text("standard: {seed: 2}\n")
    assert "parameters" in open_entry(clone, find_studies(clone)["01_tiny"], path).stale
    record_code(clone, changed={"seed": 1})
    assert not open_entry(clone, find_studies(clone)["01_tiny"], path).stale


# Notebooks inside of pages


def test_a_notebook_shows_mathematics_its_code_folded_and_loads_nothing(tmp_path, network_loads):
    new = nbformat.v4
    text = (
        "# 01 Tiny\n\nA question?\n\nInline $E^2 = p^2 + m^2$, displayed\n\n"
        "$$\\sigma = \\frac{a}{\\sqrt{E}} \\oplus b$$\n\nand \\begin{align} a &= b \\end{align}."
    )
    code = new.new_code_cell("print('a < b')", outputs=[new.new_output("stream", text="a < b\n")])
    nbformat.write(
        new.new_notebook(cells=[new.new_markdown_cell(text), code]), tmp_path / "executed.ipynb"
    )
    body, headings = render_notebook(tmp_path / "executed.ipynb")
    assert body.count("<math") == 3
    assert "<msqrt>" in body
    assert "$" not in body
    assert "A question" not in body
    assert re.search(r'<details class="code"><summary>.*?print.*?</details>.*a &lt; b', body, re.S)
    assert not headings
    assert not network_loads(body)


def test_a_notebook_shows_no_figure_of_the_report_again_and_describes_other_pictures(clone):
    new = nbformat.v4
    png = (clone / "reports" / "01_tiny" / "figures" / "roc.png").read_bytes()
    picture = new.new_output("display_data", {"image/png": base64.b64encode(png).decode()})
    cells = [
        new.new_markdown_cell("# 01 Tiny"),
        new.new_code_cell('report.figure(ax, "roc")', outputs=[picture]),
        new.new_markdown_cell("## Event"),
        new.new_code_cell("show(event)", outputs=[picture]),
        new.new_code_cell("report.finish()", outputs=[picture], metadata={"tags": ["results"]}),
    ]
    nbformat.write(new.new_notebook(cells=cells), clone / "executed.ipynb")
    results = read_results(clone / "reports" / "01_tiny" / "results.json")
    body, _ = render_notebook(clone / "executed.ipynb", results)
    assert '<a href="#figure-roc">A &lt;curve&gt;</a>' in body
    assert body.count("<img") == 1
    assert 'alt="output of the code under “Event”"' in body
    assert "width=" in body


def test_links_between_notebooks_lead_to_the_pages_of_their_studies(clone):
    path = clone / "notebooks" / "01_tiny.ipynb"
    notebook = nbformat.read(path, as_version=4)
    text = (
        "[a](01_tiny.ipynb), [b](../reports/01_tiny/summary.md), [c](../README.md), [d](#The-end)"
    )
    notebook.cells.append(nbformat.v4.new_markdown_cell(text))
    nbformat.write(notebook, path)
    page = (build_index(clone).parent / "01_tiny" / "index.html").read_text("utf-8")
    own = '<a href="../01_tiny/index.html">'
    assert f'{own}a</a>, {own}b</a>, c, <a href="#nb-the-end">d</a>' in page


def test_the_check_for_network_loads_can_fail(network_loads):
    assert network_loads('<script src="https://example.org/a.js"></script>')
    assert network_loads('<link rel="stylesheet" href="//example.org/a.css">')
    assert network_loads(
        "<style>@import 'a.css'; b { background: url(http://example.org/c.png) }</style>"
    )
    assert not network_loads(
        '<a href="https://example.org">a link</a> <img src="data:image/png;base64,AA">'
    )


def test_the_check_for_faults_can_fail(clone):
    site = build_index(clone).parent
    assert not faults(site)
    bad = '<p id="a"></p><p id="a"></p><img src="index.html"><a href="#b">b</a><a href="../x">x</a>'
    (site / "bad.html").write_text(bad)
    assert len(faults(site)) == 6


# The site of the published results


def test_all_links_of_the_site_are_live_and_all_pictures_described(site, network_loads):
    assert not faults(site)
    for page in site.rglob("*.html"):
        assert not network_loads(page.read_text("utf-8")), page
    assert not network_loads((site / "static" / "site.css").read_text())


def test_the_site_is_small_and_each_study_has_archives_of_its_numbers(site, root):
    assert sum(path.stat().st_size for path in site.rglob("*") if path.is_file()) < 40e6
    for name in find_studies(root):
        if (site / name / "results.csv").is_file():
            assert 'href="results.csv"' in (site / name / "index.html").read_text("utf-8")


def test_the_search_knows_studies_figures_metrics_and_sections(site):
    text = (site / "static" / "search.js").read_text("utf-8")
    things = json.loads(text.removeprefix("window.pfcalibSearch = ").rstrip(";\n"))
    kinds = {kind for kind, *_ in things}
    assert {"study", "figure", "metric", "section", "guide"} <= kinds
    pages = {path: set(Page(path).ids) for path in site.rglob("*.html")}
    for _, title, target, _ in things:
        path, _, anchor = target.partition("#")
        assert not anchor or anchor in pages[site / path], (title, target)


def test_pages_of_the_api_are_part_of_the_site_and_of_its_search(clone, network_loads):
    build_api(clone / "reports" / "api", "pfcalib.metrics")
    site = build_index(clone).parent
    assert not [fault for fault in faults(site) if fault.startswith("api")]  # that of one room
    page = (site / "api" / "pfcalib" / "metrics" / "response.html").read_text("utf-8")
    assert "bins of true energy" in page
    assert "ArrayLike" in page
    assert "_array_like" not in page
    assert 'href="../../../index.html"' in page
    assert not network_loads(page)
    search = (site / "static" / "search.js").read_text("utf-8")
    assert "api/pfcalib/metrics/response.html#resolution" in search


# README.md


def test_the_table_of_the_readme_comes_from_published_results_only(clone):
    assert write_readme(clone)
    text = (clone / "README.md").read_text()
    assert (
        "| [01 Tiny](reports/01_tiny/summary.md) | required checks hold; goals reached: 0 of 1; "
        "**stale** | The area is 0.970 ± 0.010. |" in text
    )
    assert text.startswith("# Tiny\n")
    assert text.endswith("end\n")
    assert not write_readme(clone)


def test_a_readme_without_markers_is_refused(clone):
    (clone / "README.md").write_text("nothing")
    with pytest.raises(ConfigError, match="studies:begin"):
        render_readme(clone)


def test_published_results_are_valid_and_the_readme_shows_them(root):
    for path in sorted((root / "reports").glob("*/results.json")):
        results = read_results(path)
        assert results["study"] == path.parent.name
        assert all((path.parent / figure["file"]).is_file() for figure in results["figures"])
    assert render_readme(root) == (root / "README.md").read_text(encoding="utf-8"), (
        "run `pfcalib readme`"
    )
