"""Points are the hottest cells of a cluster, in falling order, with distances that know of the turn
in phi.
"""

import numpy as np
import pytest
from factories import make_sample

from pfcalib.columns import LAYER_NAMES
from pfcalib.errors import ValidationError
from pfcalib.features.images import SAMPLING
from pfcalib.features.points import N_POINTS, POINT_FEATURES, build_points
from pfcalib.geometry import BARREL, WINDOW


@pytest.mark.parametrize("grid", [BARREL, WINDOW], ids=["barrel", "window"])
def test_points_are_the_hottest_cells_with_their_features(grid, rng):
    sample = make_sample(rng, 40, grid, max_cells=400)
    points, geo = build_points(sample), sample.geo
    assert points.shape == (40, N_POINTS, len(POINT_FEATURES))
    assert max(np.diff(sample.offsets)) > N_POINTS > min(np.diff(sample.offsets))
    for i, (start, stop) in enumerate(zip(sample.offsets[:-1], sample.offsets[1:], strict=True)):
        energy = sample.cells["cluster_cell_E"][start:stop]
        cell = sample.cells["cluster_cell_ID"][start:stop].astype(int)
        order = np.argsort(-energy)[:N_POINTS]
        n, e, cell = len(order), energy[order], cell[order]
        np.testing.assert_array_equal(points[i, n:], 0.0)
        np.testing.assert_allclose(points[i, :n, 0], e)
        np.testing.assert_allclose(points[i, :n, 1], e / 0.02, rtol=1e-6)
        d_eta = geo.eta[cell] - sample["clusterEta"][i]
        np.testing.assert_allclose(points[i, :n, 2], d_eta, atol=1e-6)
        turned = np.angle(np.exp(1j * (geo.phi[cell].astype(float) - sample["clusterPhi"][i])))
        np.testing.assert_allclose(points[i, :n, 3], turned, atol=1e-6)
        names = [LAYER_NAMES[int(k)] for k in points[i, :n, 4]]
        assert [SAMPLING[name] for name in names] == geo.sampling[cell].tolist()


def test_negative_cells_count_by_their_size_and_empty_ones_not_at_all(rng):
    sample = make_sample(rng, 6)
    energy = sample.cells["cluster_cell_E"]
    first, second, third = sample.offsets[0], sample.offsets[0] + 1, sample.offsets[0] + 2
    energy[first], energy[second], energy[third] = -1e4, 1e3, 0.0
    points = build_points(sample)
    np.testing.assert_array_equal(points[0, :2, 0], [-1e4, 1e3])
    n_cells = sample.offsets[1] - sample.offsets[0]
    assert np.count_nonzero(points[0, :, 0]) == n_cells - 1 < N_POINTS


def test_an_unknown_cell_is_named(rng):
    sample = make_sample(rng, 3)
    sample.cells["cluster_cell_ID"][4] = 999_999
    with pytest.raises(ValidationError, match="cell 999999 is not in CellGeo"):
        build_points(sample)
