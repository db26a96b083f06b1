"""Pages made from results: executed notebooks as HTML, reports/index.html, and the table of studies
in README.md.

No page loads anything over the network: formulas become MathML when a page is made, and styles are
part of it.
"""

from __future__ import annotations

import html
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import latex2mathml.converter
import markupsafe
import nbformat
from nbconvert.exporters import HTMLExporter
from nbconvert.filters.markdown_mistune import IPythonRenderer, MarkdownWithMath
from pygments.formatters import HtmlFormatter

from pfcalib import provenance
from pfcalib.cache import write_text
from pfcalib.errors import ConfigError
from pfcalib.reporting.catalogue import PROFILES, Study, find_studies, read_profiles
from pfcalib.reporting.results import (
    describe_verdict,
    read_results,
    template_environment,
)

MARKERS = ("<!-- studies:begin -->", "<!-- studies:end -->")
# metrics that tables of studies show of a study whose metadata names none: the first ones recorded
HEADLINE = 6
N_NAMED = 3  # modules that a stale result names


class Entry(NamedTuple):
    """One results.json with its place, and why it is stale, empty where it is not."""

    results: dict[str, Any]
    folder: Path
    study: Study
    stale: str

    @property
    def headline(self) -> list[tuple[str, dict[str, Any]]]:
        """The few metrics that stand for the study."""
        metrics = self.results["metrics"]
        chosen = [name for name in self.study.headlines if name in metrics]
        return [(name, metrics[name]) for name in chosen or list(metrics)[:HEADLINE]]

    @property
    def verdict(self) -> str:
        """What became of checks and goals, in words."""
        return describe_verdict(self.results)

    @property
    def mark(self) -> str:
        """Whether all checks and goals were met, a goal was ``missed``, or the study failed."""
        missed = not all(check["passed"] for check in self.results["checks"])
        return "missed" if missed and self.results["status"] == "passed" else self.results["status"]


class _MathRenderer(IPythonRenderer):
    """Markdown to HTML with formulas as MathML, which browsers draw by themselves."""

    def inline_math(self, body: str) -> str:
        return formula(body)

    def block_math(self, body: str) -> str:
        return formula(body, display=True)

    def latex_environment(self, name: str, body: str) -> str:
        return formula(rf"\begin{{{name}}}{body}\end{{{name}}}", display=True)


class _OfflineExporter(HTMLExporter):
    """Notebook to the body of an HTML page."""

    def __init__(self) -> None:
        super().__init__(template_name="basic")

    def default_filters(self) -> Iterator[tuple[str, Any]]:
        yield from super().default_filters()
        yield (
            "markdown2html",
            lambda source: MarkdownWithMath(renderer=_MathRenderer(escape=False)).render(source),
        )


def require_formula(tex: str, *, display: bool = False) -> str:
    r"""LaTeX to MathML.

    >>> require_formula(r"E^2").startswith("<math")
    True

    Raises
    ------
    pfcalib.errors.ConfigError
        If it is not understood.
    """
    problem = "an unknown command"
    try:
        mathml = str(
            latex2mathml.converter.convert(tex.strip(), display="block" if display else "inline")
        )
    except Exception as error:  # the converter's errors share no base class
        problem, mathml = type(error).__name__, "\\"
    if "\\" in mathml:
        raise ConfigError(f"formula not understood: {tex.strip()} ({problem})")
    return mathml


def formula(tex: str, *, display: bool = False) -> str:
    """LaTeX to MathML; what cannot be converted is shown as it was written."""
    try:
        return require_formula(tex, display=display)
    except ConfigError:
        return f"<code>{html.escape(tex)}</code>"


def render_notebook(notebook: Path, page: Path) -> None:
    """Write an executed notebook as one HTML file with pictures and styles in it."""
    body, _ = _OfflineExporter().from_notebook_node(nbformat.read(notebook, as_version=4))
    style = HtmlFormatter().get_style_defs(".highlight")
    text = (
        template_environment()
        .get_template("notebook.html.j2")
        .render(
            title=page.parent.parent.name,
            body=markupsafe.Markup(body),
            style=markupsafe.Markup(style),
        )
    )
    write_text(page, text)


def open_entry(root: Path, study: Study, path: Path) -> Entry:
    """Read a results.json and hold it against the code and the profiles of the clone."""
    results = read_results(path)
    made = results["provenance"]
    stale, now = "", provenance.code_digests(study.path) if "code" in made else {}
    if not now:
        stale = "it does not say which code made it"
    elif changed := sorted(
        name
        for name in now | made["code"]
        if now.get(name) != made["code"].get(name) and name not in provenance.PROVES
    ):
        more = f" and {len(changed) - N_NAMED} more" * (len(changed) > N_NAMED)
        stale = f"changed since: {', '.join(changed[:N_NAMED])}{more}"
    elif results["profile"] in PROFILES and "changed" not in made:
        values = read_profiles(root, study.name)[results["profile"]]
        if values != {name: made["parameters"].get(name) for name in values}:
            stale = "the parameters of its profile have changed since"
    return Entry(results, path.parent, study, stale)


def collect_entries(root: Path, *, published_only: bool = False) -> list[Entry]:
    """All results below ``reports``, by study, then folder; published ones only where the same
    profile was not built here.
    """
    entries = []
    for name, study in find_studies(root).items():
        folder = root / "reports" / name
        paths = [] if published_only else sorted(folder.glob("[!.]*/results.json"))
        found = [open_entry(root, study, path) for path in paths]
        if (folder / "results.json").is_file():
            published = open_entry(root, study, folder / "results.json")
            if published.results["profile"] not in [entry.folder.name for entry in found]:
                found.append(published)
        entries += found
    return entries


def build_index(root: Path) -> Path:
    """Write reports/index.html: studies, verdicts, headline metrics, checks and a gallery; return
    its path.
    """
    page = root / "reports" / "index.html"
    page.parent.mkdir(exist_ok=True)
    text = (
        template_environment()
        .get_template("index.html.j2")
        .render(entries=collect_entries(root), reports=page.parent)
    )
    write_text(page, text)
    return page


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
