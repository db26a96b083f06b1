"""An event in space shows each cell where it lies and as large as it is, and the controls of the
widget choose among them.
"""

from __future__ import annotations

import dataclasses
import importlib.util
import itertools

import matplotlib.pyplot as plt
import numpy as np
import pytest
from factories import make_sample

from pfcalib.columns import SAMPLINGS
from pfcalib.errors import ConfigError, ValidationError
from pfcalib.geometry import BARREL
from pfcalib.plotting.space import explore_space, plot_space, space_cells


@pytest.fixture(autouse=True)
def _no_window():
    plt.switch_backend("agg")
    yield
    plt.close("all")


@pytest.fixture
def sample(rng):
    return make_sample(rng, 12, BARREL)


def volume(corners):
    """Volume of a box of any shape, from its six faces, each two triangles, and the origin."""
    faces = [
        [corner for corner in itertools.product((0, 1), repeat=3) if corner[axis] == side]
        for axis in range(3)
        for side in (0, 1)
    ]
    middle, total = corners.mean(axis=0), 0.0
    for face in faces:
        a, b, d, c = (corners[4 * i + 2 * j + k] - middle for i, j, k in face)
        for one, two in ((b, c), (c, d)):
            total += abs(np.dot(a, np.cross(one, two))) / 6.0
    return total


def test_the_cells_of_an_event_hold_the_energy_of_its_clusters(sample):
    cells = space_cells(sample, 2, reach=10.0)
    rows = sample["eventNumber"] == 2
    assert cells.energy.sum() == pytest.approx(sample["clusterE"][rows].sum(), rel=1e-5)
    by_cluster = np.bincount(cells.cluster, cells.energy)
    np.testing.assert_allclose(by_cluster, np.sort(sample["clusterE"][rows])[::-1], rtol=1e-5)
    energy = f"{sample['truthE'][rows][np.argmax(sample['clusterE'][rows])]:.3g}"
    assert cells.what.endswith(f" of {energy} GeV")


def test_a_box_that_is_not_shrunk_is_its_cell(sample):
    lead = int(np.argmax(np.where(sample["eventNumber"] == 1, sample["clusterE"], -1.0)))
    own = sample[np.array([lead])]
    cells = space_cells(own, 0, reach=10.0, shrink=False)
    cell = own.cells["cluster_cell_ID"].astype(np.int64)
    for corners, index in zip(cells.corners, cell, strict=True):
        assert volume(corners) == pytest.approx(BARREL.volume[index], rel=0.02)
        middle = corners.mean(axis=0)
        assert np.hypot(*middle[:2]) == pytest.approx(BARREL.r[index], rel=0.02)
        eta = np.arcsinh(middle[2] / np.hypot(*middle[:2]))
        assert eta == pytest.approx(BARREL.eta[index], abs=0.5 * BARREL.d_eta[index])
        phi = np.arctan2(middle[1], middle[0]) + own["clusterPhi"][0] - BARREL.phi[index]
        assert abs(np.angle(np.exp(1j * phi))) < 0.5 * BARREL.d_phi[index]


def test_a_shrunk_box_has_the_share_of_the_energy_in_the_volume_of_its_cell(sample):
    shrunk, whole = (space_cells(sample, 0, reach=10.0, shrink=shrink) for shrink in (True, False))
    share = shrunk.energy / shrunk.energy.max()
    for small, large, wanted in zip(shrunk.corners, whole.corners, share, strict=True):
        assert volume(small) / volume(large) == pytest.approx(wanted, rel=0.05)


def test_an_event_that_is_not_there_is_refused(sample):
    with pytest.raises(ConfigError, match="events 0 to 5"):
        space_cells(sample, 6)


def test_a_sample_without_cells_is_refused(sample):
    without = dataclasses.replace(sample, offsets=np.zeros(13, dtype=np.int64), cells={})
    with pytest.raises(ValidationError, match="no cells"):
        space_cells(without, 0)


def test_showers_of_single_particles_lie_in_the_direction_of_their_particle(sample):
    kept = {
        name: values
        for name, values in sample.scalars.items()
        if name not in ("clusterEta", "clusterPhi")
    }
    showers = space_cells(dataclasses.replace(sample, scalars=kept), 0)
    np.testing.assert_allclose(showers.corners, space_cells(sample, 0).corners)


@pytest.mark.parametrize("colour", ["clusters", "energy", "truth"])
def test_a_drawing_shows_six_faces_of_each_cell_above_the_threshold(sample, colour):
    cells = space_cells(sample, 0)
    cut = float(np.median(cells.energy))
    cells = cells._replace(significance=cells.energy)
    ax = plot_space(cells, colour=colour, threshold=cut, source="a source")
    assert len(ax.collections[0].get_facecolor()) == 6 * np.sum(cells.energy > cut)
    assert ax.get_title(loc="left") == f"a source: {cells.what}"
    ax.figure.canvas.draw()


def test_a_drawing_of_nothing_is_empty(sample):
    assert plot_space(space_cells(sample, 0), threshold=np.inf).collections[0].axes is not None


def test_an_unknown_colour_is_refused(sample):
    with pytest.raises(ConfigError, match="clusters, energy, truth"):
        plot_space(space_cells(sample, 0), colour="red")


@pytest.fixture
def view(sample):
    """Controls by their description, and the mesh and title that they change."""
    pytest.importorskip("plotly", reason="needs the extra lab")
    box = explore_space(sample)
    controls = {
        control.description: control for row in box.children[:2] for control in row.children
    }
    return controls, box.children[2]


def n_drawn(figure):
    return len(figure.data[0].x) // 8


def test_the_slider_of_the_threshold_leaves_out_cells(sample, view):
    controls, figure = view
    sigma = 0.01
    sample.geo.sigma[:] = sigma
    for cut in (3.0, 20.0):
        controls["cells above E/σ"].value = cut
        expected = np.sum(space_cells(sample, 0).energy / sigma > cut)
        assert n_drawn(figure) == expected > 0
    assert f"{expected} cells" in figure.layout.title.text


def test_the_slider_of_the_event_shows_another_event(sample, view):
    controls, figure = view
    controls["event"].value = 3
    cells = space_cells(sample, 3)
    np.testing.assert_allclose(figure.data[0].x, cells.corners[..., 0].ravel())
    assert cells.what in figure.layout.title.text
    assert controls["event"].max == 5


def test_one_layer_shows_the_cells_of_one_layer(sample, view):
    controls, figure = view
    cells = space_cells(sample, 0)
    drawn = {}
    for name in controls["layer"].options[1:]:
        controls["layer"].value = name
        drawn[name] = n_drawn(figure)
        assert drawn[name] == np.sum(cells.sampling == SAMPLINGS.index(name))
    assert sum(drawn.values()) == len(cells.energy)


def test_the_truth_colours_by_the_share_of_electrons_and_photons(sample, view):
    controls, figure = view
    controls["truth"].value = True
    share = sorted(set(np.round(np.asarray(figure.data[0].intensity, dtype=float), 3)))
    assert share in ([1.0], [0.308])  # of a neutral and of a charged pion, see `factories`
    assert "photons" in figure.data[0].colorbar.title.text
    controls["truth"].value = False
    assert "cluster" in figure.data[0].colorbar.title.text


def test_a_missing_package_is_named_with_its_extra(sample, monkeypatch):
    find = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name: None if name == "plotly" else find(name)
    )
    with pytest.raises(ConfigError, match=r"plotly: pip install 'pfcalib\[lab\]'"):
        explore_space(sample)
