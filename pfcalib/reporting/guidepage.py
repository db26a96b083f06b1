"""The guide of the site: the notebooks in reading order, then README.md without what the front page
shows.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

from pfcalib.reporting.catalogue import Study
from pfcalib.reporting.markup import Renderer, render_markdown
from pfcalib.reporting.studypage import write_page

ELSEWHERE = ("Gallery", "Studies")  # sections of README.md that the front page shows


def write_guide(
    page: Path, readme: Path, studies: Sequence[Study], *, reports: Path, has_api: bool
) -> None:
    """Write the guide; links into ``reports`` lead to pages of the site, links to other files of
    the clone become plain text, since the site may be sent without it.
    """

    def to_site(target: str) -> str:
        path, _, anchor = target.partition("#")
        if study := re.fullmatch(r"reports/(\w+)/summary\.md", path):
            return f"{study[1]}/index.html"
        if path.startswith("reports/"):
            return target.removeprefix("reports/")
        return f"#readme-{anchor}" if anchor and not path else ""

    text = readme.read_text("utf-8") if readme.is_file() else ""
    sections = re.split(r"^(?=## )", text, flags=re.MULTILINE)[1:]
    kept = [part for part in sections if not part.startswith(tuple(f"## {n}" for n in ELSEWHERE))]
    renderer = Renderer("readme-", link=to_site)
    body = render_markdown("".join(kept), renderer)
    titles = {study.name: study.title for study in studies}
    order = [
        (study, render_markdown(study.question), [titles[name] for name in study.after])
        for study in studies
    ]
    write_page(
        page,
        "guide.html.j2",
        reports=reports,
        has_api=has_api,
        contents=[heading for heading in renderer.headings if heading.level <= 3],
        order=order,
        text=body,
    )
