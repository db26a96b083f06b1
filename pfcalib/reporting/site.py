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

from pfcalib.errors import ConfigError
from pfcalib.reporting.catalogue import PROFILES, find_studies
from pfcalib.reporting.results import read_results, template_environment, write_text

MARKERS = ("<!-- studies:begin -->", "<!-- studies:end -->")
# metrics of a study that tables of studies show: the first ones recorded, unless HEADLINES names
# them
HEADLINE = 6
HEADLINES = {
    "01_showers": (
        "speedup_over_geant4",
        "fidelity_worst_response_pi0",
        "fidelity_worst_response_pic",
        "fidelity_auc",
    ),
    "03_classification": tuple(
        f"auc_{model}{where}"
        for model in ("likelihood", "gbdt", "dnn", "cnn", "densenet")
        for where in ("", "_geant4")
    ),
    "05_geant4": (
        "testem3_lar_mev",
        "testem3_pb_mev",
        "tile_pi_over_e_10gev",
        "gev_per_second_geant4",
        "speedup_over_geant4",
    ),
    "06_generator": (
        "throughput_ratio_root",
        "throughput_ratio_cache",
        "memory_growth_mb",
        "images_per_second",
    ),
    "07_lcw": tuple(
        f"{what}_lcw_{species}_10gev" for species in ("pi0", "pic") for what in ("median", "iqr")
    ),
    "08_regression": tuple(
        f"ratio_to_lcw_{model}_{species}_10gev"
        for model in ("gbdt", "dnn", "cnn", "densenet")
        for species in ("pi0", "pic")
    ),
    "09_combined": (
        *(f"auc_{model}" for model in ("likelihood", "gbdt", "cnn", "densenet")),
        *(
            f"iqr_{model}_mixed_10gev"
            for model in ("lcw", "gbdt", "combined_soft", "end_to_end", "oracle")
        ),
    ),
    "10_domain_shift": tuple(
        f"ratio_to_lcw_{recipe}_10gev_{sample}"
        for recipe in ("cnn_a_pic", "mixed_pic")
        for sample in ("b", "c", "d")
    ),
    "11_hyperparameters": tuple(f"gain_{family}_test" for family in ("dnn", "cnn", "densenet")),
}


class Entry(NamedTuple):
    """One results.json with its place."""

    results: dict[str, Any]
    folder: Path
    title: str

    @property
    def headline(self) -> list[tuple[str, dict[str, Any]]]:
        """The few metrics that stand for the study."""
        metrics = self.results["metrics"]
        chosen = [name for name in HEADLINES.get(self.results["study"], ()) if name in metrics]
        return [(name, metrics[name]) for name in chosen or list(metrics)[:HEADLINE]]

    @property
    def n_missed(self) -> int:
        """Number of goals that were missed; they do not fail a study."""
        return sum(
            not check["passed"] and not check["required"] for check in self.results["checks"]
        )

    @property
    def n_passed(self) -> int:
        """Number of checks that passed, required or not."""
        return sum(check["passed"] for check in self.results["checks"])


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


def collect_entries(root: Path) -> list[Entry]:
    """All results below ``reports``, by study, then profile; published ones only where the same
    profile was not built here.
    """
    entries = []
    titles = {name: study.title for name, study in find_studies(root).items()}
    for name, title in titles.items():
        folder = root / "reports" / name
        built = [
            read_results(path)
            for profile in PROFILES
            if (path := folder / profile / "results.json").is_file()
        ]
        entries += [Entry(results, folder / results["profile"], title) for results in built]
        if (folder / "results.json").is_file():
            published = read_results(folder / "results.json")
            if published["profile"] not in [results["profile"] for results in built]:
                entries.append(Entry(published, folder, title))
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
    entries = [
        Entry(read_results(path), path.parent, study.title)
        for name, study in find_studies(root).items()
        if (path := root / "reports" / name / "results.json").is_file()
    ]
    table = template_environment().get_template("readme.md.j2").render(entries=entries)
    return f"{before}{MARKERS[0]}\n{table}{MARKERS[1]}{after}"


def write_readme(root: Path) -> bool:
    """Bring README.md up to date; return whether it changed."""
    text = render_readme(root)
    changed = text != (root / "README.md").read_text(encoding="utf-8")
    if changed:
        write_text(root / "README.md", text)
    return changed
