"""Markdown and formulas become HTML that needs no network."""

from __future__ import annotations

import io

import pytest
from matplotlib.figure import Figure

from pfcalib.errors import ConfigError
from pfcalib.reporting.markup import (
    Renderer,
    formula,
    picture_size,
    render_markdown,
    require_formula,
)


def test_formulas_become_mathml_and_odd_ones_stay_readable():
    assert "<mfrac>" in require_formula(r"\frac{E_\mathrm{pred}}{E_\mathrm{true}}")
    for odd in ("a_b_c", r"\nosuchcommand x"):
        with pytest.raises(ConfigError, match="not understood"):
            require_formula(odd)
    assert formula("a_b_c < 2") == "<code>a_b_c &lt; 2</code>"


def test_headings_have_anchors_of_their_own_and_go_down_a_level():
    renderer = Renderer("nb-", deeper=1)
    page = render_markdown("# A $x$\n\n## Same\n\n## Same", renderer)
    anchors = [heading.anchor for heading in renderer.headings]
    assert len(set(anchors)) == 3
    assert anchors[1] == "nb-same"
    assert [heading.level for heading in renderer.headings] == [2, 3, 3]
    assert all(f'id="{anchor}"' in page for anchor in anchors)


def test_a_link_that_leads_nowhere_on_the_site_becomes_text():
    renderer = Renderer(link=lambda target: {"a.md": "a.html"}.get(target, ""))
    page = render_markdown("[one](a.md) [two](b.md) [three](https://example.org)", renderer)
    assert '<a href="a.html">one</a> two <a href="https://example.org">three</a>' in page


@pytest.mark.parametrize(("dpi", "shown"), [(90, (360, 180)), (180, (360, 180)), (45, (180, 90))])
def test_a_finer_picture_is_shown_at_the_same_size_and_a_coarse_one_never_enlarged(dpi, shown):
    Figure(figsize=(4, 2)).savefig(file := io.BytesIO(), format="png", dpi=dpi)
    assert picture_size(file.getvalue()) == shown
