"""The guide of the site: the notebooks in reading order, then README.md without what the front page
shows.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

from pfcalib.reporting.catalogue import Study
from pfcalib.reporting.markup import Renderer, link_to_site, render_markdown
from pfcalib.reporting.studypage import show_question, write_page

ELSEWHERE = ("Gallery", "Studies")  # sections of README.md that the front page shows


def write_guide(
    page: Path, readme: Path, studies: Sequence[Study], *, reports: Path, has_api: bool
) -> None:
    """Write the guide from README.md and the questions of the studies."""
    text = readme.read_text("utf-8") if readme.is_file() else ""
    sections = re.split(r"^(?=## )", text, flags=re.MULTILINE)[1:]
    kept = [part for part in sections if not part.startswith(tuple(f"## {n}" for n in ELSEWHERE))]
    renderer = Renderer("readme-", link=link_to_site("", ""))
    body = render_markdown("".join(kept), renderer)
    titles = {study.name: study.title for study in studies}
    order = [
        (study, show_question(study, ""), [titles[name] for name in study.after])
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
