"""Topological clusters agree cell by cell with a slow reference, and keep energy, thresholds and
symmetry.
"""

import math
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pfcalib.clustering.topo import TopoConfig, find_clusters
from pfcalib.errors import ConfigError
from pfcalib.geometry import BARREL, WINDOW
from tests.clustering.reference import reference_clusters
from tests.clustering.toys import RING, SMALL, noise, shuffle, simulate_event, simulate_shower

CONFIGS = (
    TopoConfig(),
    TopoConfig(split=False),
    TopoConfig(share=False),
    TopoConfig(seed=3.0, growth=1.5, boundary=0.5),
)


def as_dicts(clusters, event=0):
    """Clusters of one event as dictionaries of cell: weight."""
    return [
        dict(
            zip(
                clusters.cell[start:stop].tolist(),
                clusters.weight[start:stop].tolist(),
                strict=True,
            )
        )
        for owner, start, stop in zip(
            clusters.event, clusters.offsets[:-1], clusters.offsets[1:], strict=True
        )
        if owner == event
    ]


def assert_same(found, expected):
    assert [set(cluster) for cluster in found] == [set(cluster) for cluster in expected]
    for one, two in zip(found, expected, strict=True):
        assert one == pytest.approx(two, rel=1e-9, abs=1e-12)


@pytest.mark.parametrize("config", CONFIGS)
@pytest.mark.parametrize("grid", [SMALL, RING, WINDOW])
def test_clusters_agree_with_the_reference(grid, config, rng):
    sigma = noise(grid)
    energy = np.array([simulate_event(grid, n_showers, rng) for n_showers in (0, 1, 2, 3, 5)])
    clusters = find_clusters(energy, sigma, grid, config)
    for event, cells in enumerate(energy):
        assert_same(as_dicts(clusters, event), reference_clusters(cells, sigma, grid, config))
    if config.split and config.share:
        assert np.any(clusters.weight < 1.0), "the events must put shared cells to the test"


def test_a_barrel_event_agrees_with_the_reference(rng):
    energy, sigma = simulate_event(BARREL, 15, rng), noise(BARREL)
    found = as_dicts(find_clusters(energy[None], sigma, BARREL))
    assert_same(found, reference_clusters(energy, sigma, BARREL, TopoConfig()))


@st.composite
def small_events(draw):
    """Coarse energies on a small grid: many ties, many negative cells, many maxima."""
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    grid = draw(st.sampled_from([SMALL, RING]))
    step = draw(st.sampled_from([0.0625, 0.375, 1.0]))
    return grid, step * np.round(rng.standard_t(draw(st.integers(1, 4)), grid.n_cells)), rng


@settings(max_examples=60, deadline=None)
@given(small_events(), st.sampled_from(CONFIGS))
def test_any_event_agrees_with_the_reference(event, config):
    grid, energy, _ = event
    sigma = np.full(grid.n_cells, 0.25)
    found, expected = (
        as_dicts(find_clusters(energy[None], sigma, grid, config)),
        reference_clusters(energy, sigma, grid, config),
    )
    assert_same(sorted(found, key=sorted), sorted(expected, key=sorted))


@settings(max_examples=60, deadline=None)
@given(small_events())
def test_weights_sum_to_one_over_at_most_two_clusters_and_keep_the_energy(event):
    grid, energy, _ = event
    clusters = find_clusters(energy[None], np.full(grid.n_cells, 0.25), grid)
    count = np.bincount(clusters.cell, minlength=grid.n_cells)
    weight = np.bincount(clusters.cell, clusters.weight, minlength=grid.n_cells)
    assert count.max() <= 2
    assert np.all(clusters.weight >= 0.0)
    assert weight[count > 0] == pytest.approx(1.0, abs=1e-12)
    assert np.sum(clusters.weight * energy[clusters.cell]) == pytest.approx(
        np.sum(energy[count > 0]), abs=1e-9
    )


@settings(max_examples=60, deadline=None)
@given(small_events())
def test_the_numbering_of_the_cells_plays_no_part(event):
    grid, energy, rng = event
    order = rng.permutation(grid.n_cells)
    straight = find_clusters(energy[None], np.full(grid.n_cells, 0.25), grid)
    shuffled = find_clusters(energy[None, order], np.full(grid.n_cells, 0.25), shuffle(grid, order))
    assert np.array_equal(straight.offsets, shuffled.offsets)
    assert np.array_equal(straight.cell, order[shuffled.cell])
    assert np.array_equal(straight.weight, shuffled.weight)


def test_turning_an_event_by_a_tower_turns_its_clusters(rng):
    energy, sigma = simulate_event(RING, 4, rng), noise(RING)
    turned, target = np.empty_like(energy), np.empty(RING.n_cells, dtype=np.int64)
    for layer in range(RING.n_layers):
        cells = np.flatnonzero(RING.layer == layer)
        target[cells] = RING.locate(layer, RING.eta[cells], RING.phi[cells] + 3 * 2 * np.pi / 8)
    turned[target] = energy
    here, there = find_clusters(energy[None], sigma, RING), find_clusters(turned[None], sigma, RING)
    expected = [
        {int(target[cell]): weight for cell, weight in cluster.items()}
        for cluster in as_dicts(here)
    ]
    assert_same(as_dicts(there), expected)


def test_every_cluster_holds_a_seed_and_no_cell_below_the_boundary(rng):
    energy, sigma = simulate_event(WINDOW, 2, rng), noise(WINDOW)
    config = TopoConfig(boundary=1.0, split=False)
    for cluster in as_dicts(find_clusters(energy[None], sigma, WINDOW, config)):
        significance = np.abs(energy / sigma)[list(cluster)]
        assert significance.max() > config.seed
        assert significance.min() > config.boundary


def test_a_negative_cell_seeds_like_a_positive_one():
    energy = np.zeros((1, WINDOW.n_cells))
    energy[0, 600] = -5.0
    clusters = find_clusters(energy, np.ones(WINDOW.n_cells), WINDOW)
    assert clusters.cell.tolist() == [600]


def test_clusters_of_an_event_fall_in_energy_and_events_do_not_mix(rng):
    energy, sigma = np.array([simulate_event(RING, 3, rng) for _ in range(5)]), noise(RING)
    clusters = find_clusters(energy, sigma, RING)
    total = np.add.reduceat(
        clusters.weight
        * energy[np.repeat(clusters.event, np.diff(clusters.offsets)), clusters.cell],
        clusters.offsets[:-1],
    )
    assert np.all(np.diff(clusters.event) >= 0)
    assert np.all(np.diff(total)[np.diff(clusters.event) == 0] <= 0.0)
    for event in range(5):
        assert as_dicts(clusters, event) == as_dicts(
            find_clusters(energy[event : event + 1], sigma, RING)
        )


def test_events_in_threads_do_not_see_each_other(rng):
    """Each thread clusters event after event in buffers of its own."""
    energy, sigma = np.array([simulate_event(SMALL, 3, rng) for _ in range(24)]), noise(SMALL)
    whole = find_clusters(energy, sigma, SMALL)
    with ThreadPoolExecutor(4) as pool:
        alone = list(pool.map(lambda cells: find_clusters(cells[None], sigma, SMALL), energy))
    assert np.bincount(whole.event).tolist() == [len(part.event) for part in alone]
    np.testing.assert_array_equal(np.concatenate([part.cell for part in alone]), whole.cell)
    np.testing.assert_array_equal(np.concatenate([part.weight for part in alone]), whole.weight)


def test_two_equal_showers_share_the_cells_between_them_in_halves():
    """Three rows of seven EMB2 cells along phi, symmetric about the fourth, with a peak in the
    second and in the sixth of the middle row.
    """
    energy = np.zeros(WINDOW.n_cells)
    phi = (np.arange(-3, 4) + 0.5) * 0.025
    for eta in (-0.01, 0.01, 0.03):
        energy[WINDOW.locate(2, eta, phi)] = (0.3, 2.0, 0.3, 0.2, 0.3, 2.0, 0.3)
    energy[WINDOW.locate(2, 0.01, phi[[1, 5]])] = 5.0
    clusters = find_clusters(energy[None], np.full(WINDOW.n_cells, 0.04), WINDOW)
    middle = WINDOW.locate(2, [-0.01, 0.01, 0.03], phi[3])
    assert len(clusters.event) == 2
    for cluster in as_dicts(clusters):
        assert [cluster[cell] for cell in middle.tolist()] == pytest.approx(
            [0.5, 0.5, 0.5], abs=1e-9
        )
        assert len(cluster) == 12


def test_a_secondary_maximum_counts_only_where_no_primary_one_overlaps_it():
    """Two EMB1 maxima in one flat cluster of the EM layers; a maximum in EMB3, no neighbour of
    EMB1, hides the one in front of it.
    """
    sigma = np.full(WINDOW.n_cells, 0.04)
    energy = np.where(np.isin(WINDOW.layer, (1, 2, 3)), 0.1, 0.0)
    energy[WINDOW.locate(1, [-0.06, 0.06], 0.06)] = 2.0, 1.0
    assert len(find_clusters(energy[None], sigma, WINDOW).event) == 2
    assert len(find_clusters(energy[None], sigma, WINDOW, TopoConfig(secondary=())).event) == 1
    energy[WINDOW.locate(3, -0.06, 0.06)] = 5.0
    assert len(find_clusters(energy[None], sigma, WINDOW).event) == 2
    assert len(find_clusters(energy[None], sigma, WINDOW, TopoConfig(secondary=())).event) == 1
    assert (
        len(
            find_clusters(
                energy[None], sigma, WINDOW, TopoConfig(primary=("EMB1", "EMB3"), secondary=())
            ).event
        )
        == 3
    )


@pytest.mark.parametrize(("neighbours", "count"), [(3, 2), (4, 1)])
def test_a_local_maximum_needs_enough_neighbours_in_its_cluster(neighbours, count):
    """A row of EMB2 cells along phi, two wide: a peak at its end has three neighbours, one within
    it five.
    """
    energy = np.zeros(WINDOW.n_cells)
    phi = (np.arange(-3, 4) + 0.5) * 0.025
    energy[WINDOW.locate(2, [[0.01], [0.03]], phi)] = 0.2
    energy[WINDOW.locate(2, 0.01, phi[[0, 4]])] = 5.0, 4.0
    config = TopoConfig(maximum_neighbours=neighbours)
    assert (
        len(find_clusters(energy[None], np.full(WINDOW.n_cells, 0.04), WINDOW, config).event)
        == count
    )


def test_splitting_can_be_switched_off(rng):
    energy = simulate_shower(WINDOW, 20.0, -0.05, 0.0, rng) + simulate_shower(
        WINDOW, 20.0, 0.05, 0.0, rng
    )
    sigma = noise(WINDOW)
    assert len(find_clusters(energy[None], sigma, WINDOW).event) > 1
    assert len(find_clusters(energy[None], sigma, WINDOW, TopoConfig(split=False)).event) == 1


def test_noise_alone_seeds_at_the_gaussian_rate(rng):
    n_events = 2000
    energy = rng.normal(size=(n_events, WINDOW.n_cells))
    config = TopoConfig(seed=4.0, growth=4.0, boundary=4.0, split=False)
    found = len(find_clusters(energy, np.ones(WINDOW.n_cells), WINDOW, config).cell)
    expected = n_events * WINDOW.n_cells * math.erfc(4.0 / math.sqrt(2.0))
    assert abs(found - expected) < 4.0 * math.sqrt(expected)


def test_no_events_give_no_clusters():
    clusters = find_clusters(np.empty((0, SMALL.n_cells)), noise(SMALL), SMALL)
    assert len(clusters.event) == len(clusters.cell) == 0
    assert clusters.offsets.tolist() == [0]


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_an_energy_that_is_not_finite_is_refused_with_event_and_cell(value):
    energy = np.zeros((3, SMALL.n_cells))
    energy[1, 17] = value
    with pytest.raises(ValueError, match="event 1, cell 17"):
        find_clusters(energy, noise(SMALL), SMALL)


@pytest.mark.parametrize("value", [0.0, -1.0, np.nan, np.inf])
def test_a_noise_that_is_not_positive_is_refused_with_its_cell(value):
    sigma = noise(SMALL)
    sigma[5] = value
    with pytest.raises(ValueError, match=r"sigma\[5\]"):
        find_clusters(np.zeros((1, SMALL.n_cells)), sigma, SMALL)


def test_energies_of_another_grid_are_refused():
    with pytest.raises(ValueError, match="small"):
        find_clusters(np.zeros((1, WINDOW.n_cells)), noise(SMALL), SMALL)


@pytest.mark.parametrize(
    "wrong",
    [
        {"seed": 1.0},
        {"boundary": -1.0},
        {"shower_scale": 0.0},
        {"maximum_energy": -1.0},
        {"secondary": ("EMB2",)},
    ],
)
def test_settings_out_of_range_are_refused(wrong):
    with pytest.raises(ConfigError):
        TopoConfig(**wrong)
