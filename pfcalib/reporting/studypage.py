"""A page of a study or of one run of it: verdict, figures, numbers, checks, the notebook with its
code folded, and where the numbers come from.
"""

from __future__ import annotations

import base64
import functools
import hashlib
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import markupsafe
import nbformat
from nbconvert.exporters import HTMLExporter

import pfcalib
from pfcalib.cache import write_text
from pfcalib.reporting.catalogue import Study
from pfcalib.reporting.entries import Entry
from pfcalib.reporting.markup import (
    Heading,
    Renderer,
    link_to_site,
    picture_size,
    relative,
    render_markdown,
)
from pfcalib.reporting.results import template_environment

SECTIONS = (("figures", "Figures"), ("numbers", "Numbers"), ("checks", "Checks and goals"))
LAST_SECTIONS = (("provenance", "Parameters and provenance"), ("parameters", "Parameters"))


class _Exporter(HTMLExporter):
    """Notebook to what stands inside of a page; headings are those of ``renderer``."""

    renderer = Renderer()

    def __init__(self) -> None:
        source, *_ = template_environment().loader.get_source(  # type: ignore[union-attr]
            template_environment(), "notebook.html.j2"
        )
        super().__init__(template_name="basic", raw_template=source)

    def default_filters(self) -> Iterator[tuple[str, Any]]:
        yield from super().default_filters()
        yield "markdown2html", lambda source: render_markdown(source, self.renderer)


@functools.cache
def _exporter() -> _Exporter:
    return _Exporter()


def write_page(page: Path, template: str, **context: Any) -> None:
    """Render a template of the site into a page below ``reports``; a page that was made from the
    same is left as it is.

    Parameters
    ----------
    page : Path
        The file to be written.
    template : str
        Name of the template.
    **context
        Its variables; ``reports`` is the folder of the site, ``has_api`` whether it has pages of
        the API. What is callable is called only if the page is made, and only then its text counts.
    """
    environment = template_environment()
    texts = [path.read_text("utf-8") for path in sorted(Path(__file__).parent.rglob("*.j2"))]
    known = {key: value for key, value in context.items() if not callable(value)}
    digest = hashlib.sha256("".join([*texts, pfcalib.__version__, repr(known)]).encode())
    made_from = digest.hexdigest()[:16]
    if page.is_file() and f'content="{made_from}"' in page.read_text("utf-8")[:600]:
        return
    made = {key: value() if callable(value) else value for key, value in context.items()}
    text = environment.get_template(template).render(
        **made,
        root="../" * (len(page.relative_to(context["reports"]).parts) - 1),
        made_from=made_from,
        version=pfcalib.__version__,
    )
    write_text(page, text)


def show_figure(entry: Entry, name: str, page: Path) -> dict[str, Any] | None:
    """What a page needs to show a figure of results: source, PDF, size and caption. Where a study
    has no figure of that name it is its first one; None if there is none.
    """
    for figure in sorted(entry.results["figures"], key=lambda figure: figure["name"] != name):
        path = entry.folder / figure["file"]
        if path.is_file():
            with path.open("rb") as file:
                width, height = picture_size(file.read(400))
            pdf = path.with_suffix(".pdf")
            return {
                "name": figure["name"],
                "caption": figure["caption"] or figure["name"].replace("_", " "),
                "src": relative(path, page),
                "pdf": relative(pdf, page) if pdf.is_file() else "",
                "width": width,
                "height": height,
            }
    return None


def write_study_page(
    page: Path,
    study: Study,
    entry: Entry | None,
    runs: Sequence[Entry],
    *,
    reports: Path,
    has_api: bool,
) -> None:
    """Write the page of a study.

    Parameters
    ----------
    page : Path
        The file to be written.
    study : Study
        Which.
    entry : Entry or None
        The results that it shows; None before a first run.
    runs : sequence of Entry
        Other results of the study, which have pages of their own.
    reports : Path
        Folder of the site.
    has_api : bool
        Whether the site has pages of the API.
    """
    executed, root = _find_executed(entry, runs), relative(reports, page) + "/"
    source = executed or study.path
    named = [figure["name"] for figure in entry.results["figures"]] if entry else []
    named.sort(key=lambda name: name != study.figure)  # the one that stands for it comes first
    figures = [show_figure(entry, name, page) for name in named if entry]
    context: dict[str, Any] = {}

    def render() -> markupsafe.Markup:
        body, headings = render_notebook(source, entry.results if entry else None, root)
        context["headings"] = headings
        return body

    def contents() -> list[Heading]:
        results = entry.results if entry else {}
        there = [("figures", bool(figures)), ("numbers", bool(results.get("metrics")))]
        there += [("checks", bool(results.get("checks"))), ("tables", bool(results.get("tables")))]
        names = dict([*SECTIONS, ("tables", "Tables")])
        top = [Heading(2, anchor, names[anchor]) for anchor, is_there in there if is_there]
        inner = [heading for heading in context["headings"] if heading.level <= 3]
        last = [Heading(2 + k, *pair) for k, pair in enumerate(LAST_SECTIONS)] if entry else []
        return [*top, Heading(2, "notebook", "Notebook"), *inner, *last]

    write_page(
        page,
        "study.html.j2",
        reports=reports,
        has_api=has_api,
        study=study,
        question=show_question(study, root),
        entry=entry,
        figures=figures,
        downloads=_downloads(entry, page),
        runs=[(_describe(run), relative(_page_of(run), page)) for run in runs],
        main_is_smoke=not runs,
        executed=bool(executed),
        source_digest=hashlib.sha256(source.read_bytes()).hexdigest(),
        notebook=render,
        contents=contents,
    )


def show_question(study: Study, root: str) -> markupsafe.Markup:
    """What a study asks, on a page from which ``root`` leads to the top of the site."""
    return render_markdown(study.question, Renderer(link=link_to_site("notebooks", root)))


def write_run_page(root: Path, study: Study, folder: Path, results: dict[str, Any]) -> None:
    """Write report.html of a run that has just ended; the site knows more of what is around it."""
    reports = root / "reports"
    entry = Entry(results, folder, study, "")
    has_api = (reports / "api" / "names.json").is_file()
    page = folder / "report.html"
    write_study_page(page, study, entry, [], reports=reports, has_api=has_api)


def _page_of(entry: Entry) -> Path:
    """Where the page of results lies."""
    return entry.folder / ("index.html" if entry.published else "report.html")


def _describe(entry: Entry) -> str:
    return "the published results" if entry.published else f"the run {entry.folder.name}"


def _find_executed(entry: Entry | None, runs: Sequence[Entry]) -> Path | None:
    """The executed notebook of results; that of published ones if the run lies in this clone."""
    if entry is None:
        return None
    same = [run for run in runs if entry.published and run.results == entry.results]
    for candidate in (entry, *same):
        if (path := candidate.folder / "executed.ipynb").is_file():
            return path
    return None


def _downloads(entry: Entry | None, page: Path) -> list[tuple[str, str]]:
    if entry is None:
        return []
    files = {
        "the numbers as CSV": "results.csv",
        "as HEPData tables (YAML)": "hepdata.tar.gz",
        "everything as JSON": "results.json",
        "a summary in Markdown": "summary.md",
    }
    paths = {text: entry.folder / name for text, name in files.items()}
    return [(text, relative(path, page)) for text, path in paths.items() if path.is_file()]


def render_notebook(
    path: Path, results: dict[str, Any] | None = None, root: str = ""
) -> tuple[markupsafe.Markup, list[Heading]]:
    """A notebook as HTML without title and question, and its headings.

    Figures and the summary of ``results`` are not shown again: links lead to them. ``root`` leads
    from the page to the top of the site.
    """
    notebook = nbformat.read(path, as_version=4)
    opening = notebook.cells[0]
    opening.source = opening.source.strip().partition("\n")[2].strip().partition("\n\n")[2]
    heading = ""
    for cell in notebook.cells:
        if cell.cell_type == "markdown" and cell.source.startswith("#"):
            heading = cell.source.partition("\n")[0].lstrip("# ")
        elif cell.cell_type == "code":
            _settle_outputs(cell, heading, results)
    exporter = _exporter()
    exporter.renderer = Renderer("nb-", deeper=1, link=link_to_site("notebooks", root))
    body, _ = exporter.from_notebook_node(notebook)
    return markupsafe.Markup(body), exporter.renderer.headings


def _settle_outputs(cell: Any, heading: str, results: dict[str, Any] | None) -> None:
    """Put links in the place of what the page shows elsewhere; give other pictures a text and a
    size.
    """
    links = []
    if results and "results" in cell.metadata.get("tags", []):
        links = [("result", "the result at the top of this page")] * bool(cell.outputs)
        cell.outputs = [output for output in cell.outputs if output.output_type == "error"]
    elif results and ".figure(" in cell.source:
        names = [
            (f"figure-{figure['name']}", figure["caption"] or figure["name"])
            for figure in results["figures"]
            if f'"{figure["name"]}"' in cell.source
        ]
        links = names or [("figures", "figures of this cell")]
        cell.outputs = [output for output in cell.outputs if not _has_picture(output)]
    for output in cell.outputs:
        if _has_picture(output):
            width, height = picture_size(base64.b64decode(output.data["image/png"][:600]))
            alt = f"output of the code under “{heading}”"
            output.metadata["image/png"] = {"width": width, "height": height, "alt": alt}
    if links and cell.outputs is not None:
        text = ", ".join(f'<a href="#{a}">{markupsafe.escape(text)}</a>' for a, text in links)
        shown = nbformat.v4.new_output("display_data", {"text/html": f"<p>See {text}.</p>"})
        cell.outputs.append(shown)


def _has_picture(output: Any) -> bool:
    return "image/png" in output.get("data", {})


def headings_of(page: Path) -> list[tuple[str, str]]:
    """Anchors and texts of the headings of a page of the site, for the search."""
    found = re.findall(r'<h[2-4] id="([^"]+)">(.*?)</h[2-4]>', page.read_text("utf-8"))
    return [(anchor, re.sub(r"<[^>]+>", "", text)) for anchor, text in found]
