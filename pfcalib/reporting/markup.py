"""Markdown, formulas and pictures as HTML that loads nothing and moves nothing when it appears."""

from __future__ import annotations

import html
import os
import posixpath
import re
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import latex2mathml.converter
import markupsafe
from nbconvert.filters.markdown_mistune import IPythonRenderer, MarkdownWithMath

from pfcalib.errors import ConfigError

SHOWN_DPI = 90.0  # at which a picture of that many pixels an inch is shown pixel by pixel


class Heading(NamedTuple):
    """A heading of a page: its level, the anchor that leads to it, and its text."""

    level: int
    anchor: str
    text: str


class Renderer(IPythonRenderer):
    """Markdown to HTML, with formulas as MathML, which browsers draw by themselves.

    Parameters
    ----------
    prefix : str
        Of the anchors of headings, which are unique in what one renderer renders.
    deeper : int
        Levels that headings are put down by.
    link : callable, optional
        Takes the target of a link that is no address and gives the one on the page; an empty one
        leaves the text without a link.
    """

    def __init__(
        self, prefix: str = "", *, deeper: int = 0, link: Callable[[str], str] = lambda to: to
    ) -> None:
        super().__init__(escape=False, exclude_anchor_links=True)
        self.prefix, self.deeper, self.to_page = prefix, deeper, link
        self.headings: list[Heading] = []

    def inline_math(self, body: str) -> str:
        return formula(body)

    def block_math(self, body: str) -> str:
        return f'<span class="scroll formula">{formula(body, display=True)}</span>'

    def latex_environment(self, name: str, body: str) -> str:
        return self.block_math(rf"\begin{{{name}}}{body}\end{{{name}}}")

    def heading(self, text: str, level: int, **_: Any) -> str:
        plain = html.unescape(re.sub(r"<annotation.*?</annotation>|<[^>]+>", "", text))
        taken = {heading.anchor for heading in self.headings}
        anchor = base = self.prefix + (re.sub(r"[^\w]+", "-", plain.lower()).strip("-") or "part")
        while anchor in taken:
            anchor = f"{base}-{len(taken)}"
        level = min(6, level + self.deeper)
        self.headings.append(Heading(level, anchor, plain))
        return f'<h{level} id="{anchor}">{text}</h{level}>\n'

    def table(self, text: str) -> str:
        return f'<div class="scroll"><table>{text}</table></div>\n'

    def link(self, text: str, url: str, title: str | None = None) -> str:
        if url.startswith("#"):
            url = f"#{self.prefix}{url[1:].lower()}"
        elif not re.match(r"\w+:", url):
            url = self.to_page(url)
        return super().link(text, url, title) if url else text


def link_to_site(folder: str, root: str) -> Callable[[str], str]:
    """For :class:`Renderer`: what a text of the clone links to, as a page of the site, which may be
    sent without the clone; other files become plain text.

    Parameters
    ----------
    folder : str
        Of the clone, in which the text stands: ``notebooks``, or an empty text.
    root : str
        The way from the page to the top of the site.

    Examples
    --------
    >>> link = link_to_site("notebooks", "../")
    >>> link("02_clusters.ipynb"), link("../reports/07_lcw/summary.md"), link("../LICENSE")
    ('../02_clusters/index.html', '../07_lcw/index.html', '')
    """

    def link(target: str) -> str:
        path = posixpath.normpath(posixpath.join(folder, target.partition("#")[0]))
        if study := re.fullmatch(r"notebooks/(\d\d_\w+)\.ipynb|reports/(\w+)/summary\.md", path):
            return f"{root}{study[1] or study[2]}/index.html"
        return root + path.removeprefix("reports/") if path.startswith("reports/") else ""

    return link


def render_markdown(text: str, renderer: Renderer | None = None) -> markupsafe.Markup:
    """Markdown with formulas as HTML."""
    return markupsafe.Markup(MarkdownWithMath(renderer=renderer or Renderer()).render(text))


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


def picture_size(data: bytes) -> tuple[int, int]:
    """Width and height at which a PNG is shown, pixels of the page; finer ones are shown smaller.

    >>> picture_size(b"\\x89PNG\\r\\n\\x1a\\n" + struct.pack(">I4sII", 13, b"IHDR", 640, 480))
    (640, 480)
    """
    width, height = struct.unpack(">II", data[16:24])
    place = data.find(b"pHYs", 0, 400)
    dpi = struct.unpack(">I", data[place + 4 : place + 8])[0] * 0.0254 if place > 0 else SHOWN_DPI
    scale = min(1.0, SHOWN_DPI / dpi)
    return round(width * scale), round(height * scale)


def relative(target: Path, page: Path) -> str:
    """How a page links to a file."""
    return os.path.relpath(target, page.parent).replace(os.sep, "/")
