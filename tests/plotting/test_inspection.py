"""The page about a sample shows what the file has, says what it lacks, and names what made it."""

import matplotlib.pyplot as plt
import numpy as np
import pytest
from factories import make_sample

from pfcalib.plotting.inspection import plot_sample, save_page, source_name
from pfcalib.samples.histograms import SampleHistograms
from pfcalib.samples.schema import Sample


@pytest.fixture(autouse=True)
def _no_window():
    plt.switch_backend("agg")
    yield
    plt.close("all")


@pytest.fixture
def sample(rng):
    return make_sample(rng, 500)


def page_of(sample, **options):
    histograms = SampleHistograms()
    histograms.fill(sample)
    return plot_sample(histograms, **{"title": "a file", "source": "pfcalib simulation", **options})


def texts(ax):
    return [text.get_text() for text in ax.texts]


def test_every_panel_shows_all_clusters(sample):
    axes = page_of(sample, title="pions.root: 500 clusters")
    for ax in (axes[0, 0], axes[0, 1], axes[1, 1]):
        assert ax.patches[0].get_data().values.sum() == 500
    assert np.nansum(axes[1, 0].collections[0].get_array()) == 500
    shares = [bar.get_height() for bar in axes[1, 2].patches]
    layers = [f"cluster_E_{tick.get_text()}" for tick in axes[1, 2].get_xticklabels()]
    np.testing.assert_allclose(
        shares,
        [sample[name].sum(dtype=float) / sample["clusterE"].sum(dtype=float) for name in layers],
        rtol=1e-5,
    )
    assert axes[0, 0].get_title(loc="left") == "pfcalib simulation"
    assert axes[0, 0].figure.get_suptitle() == "pions.root: 500 clusters"


def test_a_panel_without_data_says_so(sample):
    only = Sample(
        {"clusterE": sample["clusterE"]}, np.zeros(501, dtype=np.int64), {}, sample.geo, {}
    )
    axes = page_of(only)
    for ax in (axes[0, 0], axes[0, 2], *axes[1]):
        assert texts(ax) == ["not in this file"]
    assert texts(axes[0, 1]) == []


def test_what_lies_outside_of_the_axes_is_counted(sample):
    sample["clusterE"][:7] = -1.0
    sample["truthE"][7:10] = 1e-3
    axes = page_of(sample)
    assert texts(axes[0, 1]) == ["7 below the axis"]
    assert any("outside of the axis" in text for text in texts(axes[0, 2]))
    sample["clusterE"][:] = -1.0
    assert texts(page_of(sample)[0, 1]) == ["all 500 entries lie outside"]


def test_showers_without_a_direction_of_their_own_show_that_of_the_particle(sample):
    scalars = {
        name: array
        for name, array in sample.scalars.items()
        if name not in ("clusterEta", "clusterPhi")
    }
    axes = page_of(Sample(scalars, sample.offsets, sample.cells, sample.geo, {}))
    assert "true" in axes[1, 0].get_xlabel()
    assert np.nansum(axes[1, 0].collections[0].get_array()) == 500


@pytest.mark.parametrize(
    ("metadata", "layout", "name"),
    [
        ({"generator": "pfcalib simulation"}, "pfcalib", "pfcalib simulation"),
        ({"generator": "Geant4 11.4.1, synthetic tables"}, "showers", "Geant4 (synthetic tables)"),
        ({"generator": "Geant4 11.4.1"}, "showers", "Geant4"),
        ({"generator": "synthetic"}, "pfcalib", "synthetic"),
        ({"layout": "MLTree"}, "MLTree", "MLTree file"),
        ({"converted_from": "PHYSLITE"}, "pfcalib", "PHYSLITE file"),
    ],
)
def test_a_source_is_named_by_what_made_it(metadata, layout, name):
    assert source_name(metadata, layout) == name


@pytest.mark.parametrize("suffix", ["png", "pdf"])
def test_a_page_is_written_whole_and_leaves_no_figure_open(sample, tmp_path, suffix):
    histograms = SampleHistograms()
    histograms.fill(sample)
    save_page(tmp_path / "new" / f"page.{suffix}", histograms, title="t", source="s")
    assert [path.name for path in (tmp_path / "new").iterdir()] == [f"page.{suffix}"]
    assert (
        (tmp_path / "new" / f"page.{suffix}")
        .read_bytes()
        .startswith({"png": b"\x89PNG", "pdf": b"%PDF"}[suffix])
    )
    assert not plt.get_fignums()
