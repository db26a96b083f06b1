"""Cluster moments take the values that a calculation by hand gives for single cells, pairs, lines
and Gaussian blobs.
"""

import numpy as np
import pytest

from pfcalib.clustering.moments import cluster_moments
from pfcalib.clustering.topo import Clusters, find_clusters
from pfcalib.columns import COLUMNS, MOMENTS
from pfcalib.geometry import BARREL, WINDOW
from tests.clustering.toys import RING, SMALL, ShuffledGrid, noise, shuffle, simulate_event

R_FRONT = 1481.0  # mm, inner radius of EMB1


def one_cluster(cells, energies, *, grid=WINDOW, weights=None, sigma=0.1):
    """Moments, as floats, of a single cluster made by hand."""
    cells = np.asarray(cells, dtype=np.int32)
    energy = np.zeros((1, grid.n_cells))
    energy[0, cells] = energies
    weight = np.ones(cells.size) if weights is None else np.asarray(weights, dtype=np.float64)
    clusters = Clusters(np.array([0]), np.array([0, cells.size]), cells, weight)
    moments = cluster_moments(clusters, energy, np.full(grid.n_cells, sigma), grid)
    return {name: float(value[0]) for name, value in moments.items()}


def position(grid, cell):
    return np.array(
        [
            grid.r[cell] * np.cos(grid.phi[cell]),
            grid.r[cell] * np.sin(grid.phi[cell]),
            grid.r[cell] * np.sinh(grid.eta[cell]),
        ]
    )


def test_all_moments_come_under_their_names_and_types(rng):
    energy, sigma = np.array([simulate_event(WINDOW, 2, rng) for _ in range(3)]), noise(WINDOW)
    clusters = find_clusters(energy, sigma, WINDOW)
    moments = cluster_moments(clusters, energy, sigma, WINDOW)
    kinematics = {
        "clusterE",
        "clusterPt",
        "clusterEta",
        "clusterPhi",
        "cluster_nCells",
        "cluster_sumCellE",
    }
    assert set(moments) == kinematics | set(MOMENTS)
    for name, values in moments.items():
        assert values.dtype == COLUMNS[name].numpy_dtype
        assert values.shape == clusters.event.shape
        assert np.all(np.isfinite(values))


def test_a_single_cell_is_its_own_cluster():
    cell = int(WINDOW.locate(2, 0.06, 0.03))
    found = one_cluster([cell], [2.0])
    x, y, z = position(WINDOW, cell)
    distance = np.sqrt(x * x + y * y + z * z)
    expected = {
        "clusterE": 2.0,
        "clusterPt": 2.0 / np.cosh(WINDOW.eta[cell]),
        "clusterEta": WINDOW.eta[cell],
        "clusterPhi": WINDOW.phi[cell],
        "cluster_nCells": 1.0,
        "cluster_CENTER_MAG": distance,
        "cluster_CENTER_LAMBDA": distance * (1.0 - R_FRONT / WINDOW.r[cell]),
        "cluster_FIRST_ENG_DENS": 2.0 / WINDOW.volume[cell],
        "cluster_MAX_DENS": 2.0 / WINDOW.volume[cell],
        "cluster_ISOLATION": 1.0,
        "cluster_LATERAL": 0.0,
        "cluster_LONGITUDINAL": 0.0,
        "cluster_SECOND_R": 0.0,
        "cluster_SECOND_LAMBDA": 0.0,
        "cluster_DELTA_ALPHA": 0.0,
        "cluster_SIGNIFICANCE": 20.0,
        "cluster_CELL_SIGNIFICANCE": 20.0,
        "cluster_PTD": 1.0,
        "cluster_ENG_FRAC_EM": 1.0,
        "cluster_ENG_FRAC_MAX": 1.0,
        "cluster_ENG_FRAC_CORE": 1.0,
        "cluster_ENG_POS": 2.0,
        "cluster_E_EMB2": 2.0,
        "cluster_E_EMB1": 0.0,
    }
    assert {name: found[name] for name in expected} == pytest.approx(expected, rel=1e-5, abs=1e-6)


def test_two_equal_cells_stand_half_their_distance_from_the_centre():
    cells = WINDOW.locate(2, [-0.0126, 0.0126], 0.0126)
    found = one_cluster(cells, [1.0, 1.0], sigma=0.1)
    half = WINDOW.r[cells[0]] * np.sinh(0.0125)
    assert found["cluster_SECOND_R"] == pytest.approx(half**2, rel=1e-5)
    assert found["cluster_SECOND_LAMBDA"] == pytest.approx(0.0, abs=1e-6)
    assert found["cluster_WIDTH_ETA_EMB2"] == pytest.approx(0.0125, rel=1e-5)
    assert found["clusterEta"] == pytest.approx(0.0, abs=1e-7)
    assert found["cluster_PTD"] == pytest.approx(np.sqrt(0.5), rel=1e-6)
    assert found["cluster_SIGNIFICANCE"] == pytest.approx(2.0 / (0.1 * np.sqrt(2.0)), rel=1e-6)
    assert found["cluster_ENG_FRAC_MAX"] == pytest.approx(0.5)


def test_cells_along_a_ray_have_depth_and_no_width():
    cells = np.array([int(RING.locate(layer, 0.0126, 0.1)) for layer in (2, 3)])
    found = one_cluster(cells, [3.0, 1.0], grid=RING)
    one, two = (position(RING, cell) for cell in cells)
    step = np.linalg.norm(one - two)
    assert found["cluster_SECOND_LAMBDA"] + found["cluster_SECOND_R"] == pytest.approx(
        3.0 / 16.0 * step**2, rel=1e-5
    )
    assert found["cluster_ENG_FRAC_CORE"] == pytest.approx(1.0)


def test_a_gaussian_blob_has_its_width():
    width, eta = 0.03, WINDOW.eta
    energies = np.where(WINDOW.layer == 1, np.exp(-0.5 * (eta / width) ** 2), 0.0)
    cells = np.flatnonzero(WINDOW.layer == 1)
    found = one_cluster(cells, energies[cells])
    assert found["cluster_WIDTH_ETA_EMB1"] == pytest.approx(width, rel=1e-3)
    assert found["cluster_ENG_POS"] == pytest.approx(energies.sum(), rel=1e-6)
    assert found["clusterPhi"] == pytest.approx(0.0, abs=1e-7)


def cloud(points, energies):
    """A grid of cells at given points, seen as EMB2 cells of no extent in neighbours."""
    x, y, z = np.transpose(points)
    r, n = np.hypot(x, y), len(x)
    layer = WINDOW.layers[2]
    size = {"d_eta": np.full(n, 0.025), "d_phi": np.full(n, 0.025), "volume": np.full(n, 1000.0)}
    table = (np.zeros(n + 1, dtype=np.int64), np.zeros(0, dtype=np.int32))
    where = {
        "layer": np.zeros(n, dtype=np.int64),
        "sampling": np.full(n, 2),
        "eta": np.arcsinh(z / r),
        "phi": np.arctan2(y, x),
        "r": r,
    }
    grid = ShuffledGrid("cloud", (layer,), n, **where, **size, neighbours=table)
    return one_cluster(np.arange(n), energies, grid=grid)


@pytest.mark.parametrize("tilt", [0.0, 0.1, 0.3])
def test_the_shower_axis_is_the_principal_axis_within_twenty_degrees(tilt, rng):
    """An elongated cloud, 100 mm by 10 mm, around a line tilted against the direction from the
    origin.
    """
    t, u, v = rng.normal(0.0, (100.0, 10.0, 10.0), size=(5000, 3)).T
    points = np.stack(
        [2000.0 + t * np.cos(tilt) - u * np.sin(tilt), t * np.sin(tilt) + u * np.cos(tilt), v],
        axis=1,
    )
    found = cloud(points, np.ones(5000))
    assert found["cluster_DELTA_ALPHA"] == pytest.approx(tilt, abs=5e-3)
    assert found["cluster_SECOND_LAMBDA"] == pytest.approx(100.0**2, rel=0.05)
    assert found["cluster_SECOND_R"] == pytest.approx(2 * 10.0**2, rel=0.05)
    # the cloud's grid has no EMB1, so its front is its own inner radius
    r_in = WINDOW.layers[2].r_in
    assert found["cluster_CENTER_LAMBDA"] == pytest.approx((2000.0 - r_in) / np.cos(tilt), rel=0.02)


def test_an_axis_further_than_twenty_degrees_gives_way_to_the_direction_of_the_centre(rng):
    """At 0.6 rad to the direction, the moments are those along and across the direction; the angle
    is still told.
    """
    tilt = 0.6
    t, u, v = rng.normal(0.0, (100.0, 10.0, 10.0), size=(5000, 3)).T
    points = np.stack(
        [2000.0 + t * np.cos(tilt) - u * np.sin(tilt), t * np.sin(tilt) + u * np.cos(tilt), v],
        axis=1,
    )
    found = cloud(points, np.ones(5000))
    assert found["cluster_DELTA_ALPHA"] == pytest.approx(tilt, abs=5e-3)
    assert found["cluster_SECOND_LAMBDA"] == pytest.approx(
        (100.0 * np.cos(tilt)) ** 2 + (10.0 * np.sin(tilt)) ** 2, rel=0.05
    )


def test_lateral_and_longitudinal_compare_the_tail_with_the_two_hottest_cells():
    points = [
        [2000.0, 0.0, 0.0],
        [2010.0, 0.0, 0.0],
        [2000.0, 100.0, 0.0],
        [2000.0, -100.0, 0.0],
        [2000.0, 0.0, 100.0],
        [2000.0, 0.0, -100.0],
    ]
    found = cloud(points, [10.0, 5.0, 1.0, 1.0, 1.0, 1.0])
    tail, core = 4 * 100.0**2, 15.0 * 40.0**2
    assert found["cluster_LATERAL"] == pytest.approx(tail / (tail + core), rel=1e-5)
    depth = 50.0 / 19.0  # of the centre behind the plane of five of the cells
    assert found["cluster_LONGITUDINAL"] == pytest.approx(
        4 * depth**2 / (4 * depth**2 + 15.0 * 100.0**2), rel=1e-3
    )


def test_negative_cells_count_in_the_energy_and_not_in_the_shape():
    cells = WINDOW.locate(2, [0.0126, 0.0376], 0.0126)
    pair, single = one_cluster(cells, [2.0, -0.5]), one_cluster(cells[:1], [2.0])
    assert pair["clusterE"] == pytest.approx(1.5)
    assert pair["clusterEta"] == pytest.approx((2.0 * 0.0125 + 0.5 * 0.0375) / 2.5, rel=1e-5)
    for name in (
        "CENTER_MAG",
        "CENTER_LAMBDA",
        "FIRST_ENG_DENS",
        "SECOND_R",
        "ENG_POS",
        "ENG_FRAC_MAX",
        "WIDTH_ETA_EMB2",
    ):
        assert pair[f"cluster_{name}"] == single[f"cluster_{name}"]


def test_a_cluster_without_positive_cells_has_no_shape():
    found = one_cluster(WINDOW.locate(2, [0.0126, 0.0376], 0.0126), [-2.0, -0.5])
    assert found["clusterE"] == pytest.approx(-2.5)
    assert found["cluster_SIGNIFICANCE"] < 0.0
    assert [
        found[f"cluster_{name}"]
        for name in ("CENTER_MAG", "CENTER_LAMBDA", "SECOND_R", "ENG_POS", "ENG_FRAC_EM")
    ] == [0.0] * 5


def test_a_shared_cell_counts_with_its_weight():
    cells = WINDOW.locate(2, [0.0126, 0.0376], 0.0126)
    shared, plain = (
        one_cluster(cells, [2.0, 1.0], weights=[1.0, 0.25]),
        one_cluster(cells, [2.0, 0.25]),
    )
    for name in (
        "clusterE",
        "clusterEta",
        "cluster_CENTER_MAG",
        "cluster_SECOND_R",
        "cluster_PTD",
        "cluster_ENG_FRAC_MAX",
    ):
        assert shared[name] == pytest.approx(plain[name], rel=1e-6)


def test_phi_of_a_cluster_across_the_seam_is_at_the_seam():
    cells = BARREL.locate(2, 0.01, [np.pi - 0.01, -np.pi + 0.01])
    found = one_cluster(cells, [1.0, 1.0], grid=BARREL)
    assert abs(found["clusterPhi"]) == pytest.approx(np.pi, abs=1e-6)


def test_isolation_is_the_free_share_of_the_cells_around():
    """Two touching clusters of one cell: each has eight cells around it, one of which is
    clustered.
    """
    cells = WINDOW.locate(2, [0.0126, 0.0376], 0.0126).astype(np.int32)
    energy = np.zeros((1, WINDOW.n_cells))
    energy[0, cells] = 1.0
    clusters = Clusters(np.array([0, 0]), np.array([0, 1, 2]), cells, np.ones(2))
    found = cluster_moments(clusters, energy, np.ones(WINDOW.n_cells), WINDOW)
    assert found["cluster_ISOLATION"] == pytest.approx([7.0 / 8.0, 7.0 / 8.0])


def test_isolation_weighs_the_layers_with_their_energy():
    one, two = int(WINDOW.locate(2, 0.0126, 0.0126)), int(WINDOW.locate(3, 0.0126, 0.0126))
    free = int(WINDOW.locate(2, 0.0376, 0.0126))
    energy = np.zeros((1, WINDOW.n_cells))
    energy[0, [one, two, free]] = 3.0, 1.0, 1.0
    clusters = Clusters(
        np.array([0, 0]),
        np.array([0, 2, 3]),
        np.array([one, two, free], dtype=np.int32),
        np.ones(3),
    )
    found = cluster_moments(clusters, energy, np.ones(WINDOW.n_cells), WINDOW)
    assert found["cluster_ISOLATION"][0] == pytest.approx((3.0 * 7.0 / 8.0 + 1.0) / 4.0)


def test_moments_do_not_depend_on_the_numbering_of_the_cells(rng):
    energy, sigma = simulate_event(RING, 3, rng), noise(RING)
    order = rng.permutation(RING.n_cells)
    other = shuffle(RING, order)
    straight = cluster_moments(find_clusters(energy[None], sigma, RING), energy[None], sigma, RING)
    shuffled = cluster_moments(
        find_clusters(energy[None, order], sigma[order], other),
        energy[None, order],
        sigma[order],
        other,
    )
    for name, values in straight.items():
        assert shuffled[name] == pytest.approx(values, rel=1e-6), name


def test_events_of_a_batch_do_not_mix(rng):
    energy, sigma = np.array([simulate_event(SMALL, 2, rng) for _ in range(4)]), noise(SMALL)
    clusters = find_clusters(energy, sigma, SMALL)
    together = cluster_moments(clusters, energy, sigma, SMALL)
    for event in range(4):
        alone = cluster_moments(
            find_clusters(energy[event : event + 1], sigma, SMALL),
            energy[event : event + 1],
            sigma,
            SMALL,
        )
        for name, values in together.items():
            assert np.array_equal(values[clusters.event == event], alone[name]), name


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"event": np.array([3])}, "events 3 to 3"),
        ({"cell": np.array([5000], dtype=np.int32)}, "5000"),
        ({"offsets": np.array([0, 0])}, "cluster 0 has no cells"),
    ],
)
def test_clusters_of_other_energies_are_refused(change, message):
    clusters = Clusters(
        np.array([0]), np.array([0, 1]), np.array([7], dtype=np.int32), np.ones(1)
    )._replace(**change)
    with pytest.raises(ValueError, match=message):
        cluster_moments(clusters, np.ones((1, WINDOW.n_cells)), np.ones(WINDOW.n_cells), WINDOW)
