"""The site below ``reports``: a front page, a page a study and a run, a guide, the API, one search;
and the table of studies in README.md.

No page loads anything over a network, and all of them work from a folder: formulas become MathML
when a page is made, styles and the search lie beside the pages.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from pfcalib.cache import write_text
from pfcalib.errors import ConfigError
from pfcalib.reporting.catalogue import Study, find_studies
from pfcalib.reporting.entries import Entry, choose_entry, collect_entries
from pfcalib.reporting.guidepage import write_guide
from pfcalib.reporting.hepdata import has_hepdata, write_hepdata
from pfcalib.reporting.results import template_environment
from pfcalib.reporting.studypage import (
    headings_of,
    show_figure,
    show_question,
    write_page,
    write_study_page,
)

MARKERS = ("<!-- studies:begin -->", "<!-- studies:end -->")
ABOUT = (
    "pfcalib shoots particles into an ATLAS-like barrel calorimeter, clusters the cells, trains "
    "networks that tell neutral from charged pions and calibrate their energy, writes them as ONNX "
    "files with a contract, and holds each of them against the methods in use. Every number on "
    "these pages comes from a notebook that anyone can run again."
)
STEPS = (  # of the chain of data: name, room of the package, what happens
    ("particles", "simulation", "shot alone or made in collisions by Pythia"),
    ("hits", "simulation", "showers, parametrised or by Geant4"),
    ("cells", "simulation", "energy with noise, layer by layer"),
    ("clusters", "clustering", "grown over noise and split"),
    ("samples", "samples", "ROOT files in every known layout"),
    ("features", "features", "images, points and moments"),
    ("model", "training", "a network or trees, trained"),
    ("ONNX", "deploy", "a file with a contract, validated"),
    ("report", "reporting", "numbers with errors, and a verdict"),
)
THEMES = {  # in the order of the front page; others follow
    "start": "Where to begin: a few pions through the whole chain, one step a section.",
    "simulation and clusters": "From particles to cells to clusters, and how close the fast "
    "simulation is to Geant4.",
    "classification and calibration": "Which particle made a cluster and what energy it left: "
    "local cell weighting, boosted trees, networks on images and on points.",
    "particle flow": "Tracks and clusters become charged and neutral objects, and jets.",
    "photons": "Photons and what looks like them: identification, pile-up, and finding them "
    "without fixed windows.",
    "jets": "Calibration of jets, boosted objects, the Lund plane, and classes of events.",
    "tracking": "Hits become tracks, and tracks vertices, by networks and without.",
    "triggers and drift chambers": "What is kept at 40 MHz, and what a time projection "
    "chamber makes of charge: clusters, and kinds of particles.",
    "fast simulation": "Showers by parametrisations and by networks that learned from Geant4's: "
    "how near they come, and what they cost.",
    "Higgs bosons": "Pairs of Higgs bosons in two b quarks and two photons, and what looks like "
    "them.",
    "training": "What training costs, which settings matter, what a network looks at.",
    "deployment": "A network as a file that others run: whether it computes what was trained, and "
    "what that costs.",
}
STATIC = ("site.css", "site.js")


def build_index(root: Path, *, complete: bool = False) -> Path:
    """Build the site and return its front page, reports/index.html; pages whose content has not
    changed are left as they are.

    Parameters
    ----------
    root : Path
        Top folder of the clone.
    complete : bool
        Make the archives for HEPData too, where the extra ``hepdata`` is installed.
    """
    reports = root / "reports"
    reports.mkdir(exist_ok=True)
    has_api = (reports / "api" / "names.json").is_file()
    studies = find_studies(root)
    found: dict[str, list[Entry]] = {name: [] for name in studies}
    for entry in collect_entries(root):
        found[entry.study.name].append(entry)
    _write_static(reports)
    for name, study in studies.items():
        entries, main = found[name], choose_entry(found[name])
        if main and complete:
            _bring_up_hepdata(main)
        runs = [(run.folder / "report.html", run) for run in entries if not run.published]
        for page, shown in [(reports / name / "index.html", main), *runs]:
            others = [entry for entry in entries if entry is not shown]
            write_study_page(page, study, shown, others, reports=reports, has_api=has_api)
    write_guide(
        reports / "guide.html",
        root / "README.md",
        list(studies.values()),
        reports=reports,
        has_api=has_api,
    )
    page = reports / "index.html"
    write_page(
        page,
        "front.html.j2",
        reports=reports,
        has_api=has_api,
        about=ABOUT,
        steps=STEPS,
        cards=_group_cards(studies, found, page),
    )
    _write_search(reports, studies, found, has_api=has_api)
    return page


def _group_cards(
    studies: dict[str, Study], found: dict[str, list[Entry]], page: Path
) -> list[tuple[str, str, list[dict[str, Any]]]]:
    """What the front page shows of each study, by theme."""
    themes = dict.fromkeys([*THEMES, *(study.theme for study in studies.values())])
    cards = []
    for theme in themes:
        group = []
        for name, study in studies.items():
            if study.theme != theme:
                continue
            entry = choose_entry(found[name])
            group.append(
                {
                    "study": study,
                    "entry": entry,
                    "figure": show_figure(entry, study.figure, page) if entry else None,
                    "question": show_question(study, ""),
                    "runs": [run for run in found[name] if not run.published],
                }
            )
        if group:
            cards.append((theme or "others", THEMES.get(theme, ""), group))
    return cards


def _bring_up_hepdata(entry: Entry) -> None:
    """Write the archive for HEPData if it is not there or older than the numbers."""
    numbers, archive = entry.folder / "results.csv", entry.folder / "hepdata.tar.gz"
    if not numbers.is_file() or not has_hepdata():
        return
    if not archive.is_file() or archive.stat().st_mtime < numbers.stat().st_mtime:
        about = f"{entry.study.title}: {entry.study.question} {entry.sentence}"
        write_hepdata(numbers, " ".join(about.split()), archive)


def _write_static(reports: Path) -> None:
    loader = template_environment().loader
    assert loader is not None
    for name in STATIC:
        text, *_ = loader.get_source(template_environment(), name)
        path = reports / "static" / name
        if not path.is_file() or path.read_text("utf-8") != text:
            path.parent.mkdir(exist_ok=True)
            write_text(path, text)


def _write_search(
    reports: Path, studies: dict[str, Study], found: dict[str, list[Entry]], *, has_api: bool
) -> None:
    """Write what the search looks through: kind, title, page and text of each thing to be found."""
    things: list[tuple[str, str, str, str]] = []
    for name, study in studies.items():
        entry, page = choose_entry(found[name]), f"{name}/index.html"
        things.append(("study", study.title, page, entry.sentence if entry else study.question))
        if entry:
            for figure in entry.results["figures"]:
                caption = figure["caption"] or figure["name"]
                things.append(("figure", caption, f"{page}#figure-{figure['name']}", study.title))
            for metric, content in entry.results["metrics"].items():
                text = f"{study.title}: {content['definition']}"
                things.append(("metric", metric, f"{page}#m-{metric}", text))
        for anchor, text in headings_of(reports / page):
            things.append(("section", text, f"{page}#{anchor}", study.title))
    for anchor, text in headings_of(reports / "guide.html"):
        things.append(("guide", text, f"guide.html#{anchor}", ""))
    if has_api:
        names = json.loads((reports / "api" / "names.json").read_text("utf-8"))
        things += [("function", *name) for name in names]
    text = f"window.pfcalibSearch = {json.dumps(things, ensure_ascii=False)};\n"
    path = reports / "static" / "search.js"
    if not path.is_file() or path.read_text("utf-8") != text:
        write_text(path, text)


def render_readme(root: Path) -> str:
    """README.md with the table of studies, between its two markers, made anew from the published
    results.

    Raises
    ------
    pfcalib.errors.ConfigError
        If README.md has not exactly one pair of markers.
    """
    readme = root / "README.md"
    text = readme.read_text(encoding="utf-8") if readme.is_file() else ""
    if [text.count(marker) for marker in MARKERS] != [1, 1]:
        raise ConfigError(f"{readme}: expected {MARKERS[0]} and {MARKERS[1]} once each")
    before, _, rest = text.partition(MARKERS[0])
    _, _, after = rest.partition(MARKERS[1])
    entries = collect_entries(root, published_only=True)
    table = template_environment().get_template("readme.md.j2").render(entries=entries)
    return f"{before}{MARKERS[0]}\n{table}{MARKERS[1]}{after}"


def write_readme(root: Path) -> bool:
    """Bring README.md up to date; return whether it changed."""
    text = render_readme(root)
    changed = text != (root / "README.md").read_text(encoding="utf-8")
    if changed:
        write_text(root / "README.md", text)
    return changed
