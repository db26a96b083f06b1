"""Rings reproduce a worked example cell by cell, a slow obvious program, and conserve energy."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from particleflow.hand_made import (
    CELLS,
    clusters_of,
    event_of,
    random_event,
    sets_of,
    share_deposit,
    tracks_of,
)
from particleflow.reference import subtract_by_hand

from pfcalib.calibration.rings import N_RINGS
from pfcalib.particleflow.match import FlowConfig, match
from pfcalib.particleflow.subtract import N_CODES, remove_rings, remove_whole

EMB1, EMB2, TILE0 = 1, 2, 4


def orders(first, n_sets=1):
    """Codes of (layer, ring), the given ones first."""
    codes = [layer * N_RINGS + ring for layer, ring in first]
    rest = [code for code in range(N_CODES) if code not in codes]
    return np.tile(np.array(codes + rest, dtype=np.int64), (n_sets, 1))


def rings(event, sets, order, whole_sigma=1.5):
    return remove_rings(event.tracks, event.clusters, CELLS, sets, order, whole_sigma)


def shower():
    """A track of 10 GeV at the centre of a cell, and a cluster in EMB1, EMB2 and TileBar0.

    In EMB2 rings are 0.0175 wide and cells 0.025 x 0.0245: ring 0 holds the central cell, ring 1
    the eight around it (0.0245 to 0.03502 away), ring 2 those two cells away (0.05).
    """
    track = tracks_of({"pt": 10.0, "eta": 0.0125, "phi": 0.5 * np.pi / 128})
    step = np.pi / 128
    cells = [
        (EMB1, 0.0125, 0.01, 1.0),
        (EMB2, 0.0125, 0.5 * step, 4.0),
        (EMB2, 0.0375, 0.5 * step, 1.5),
        (EMB2, 0.0125, 1.5 * step, 1.5),
        (EMB2, 0.0625, 0.5 * step, 2.0),
        (TILE0, 0.05, 0.05, 6.0),
    ]
    return event_of(track, clusters_of(cells))


def test_a_worked_example_cell_by_cell():
    """16 GeV where 8 +- 1 are expected: ring 0 of EMB2 (4) goes, ring 0 of EMB1 (1) goes, and of
    ring 1 of EMB2 (3 GeV) all, with 0 left for the rest: 8 = 4 + 1 + 3.
    """
    event = shower()
    sets = sets_of([0], [range(6)], [8.0], [1.0])
    order = orders([(EMB2, 0), (EMB1, 0), (EMB2, 1), (EMB2, 2), (TILE0, 0)])
    np.testing.assert_allclose(rings(event, sets, order), [1.0, 4.0, 1.5, 1.5, 0.0, 0.0])


def test_the_ring_that_would_take_too_much_is_scaled():
    """7 GeV: after 4 + 1 GeV the next ring of 3 GeV gives two thirds of each of its cells."""
    event = shower()
    sets = sets_of([0], [range(6)], [7.0], [1.0])
    order = orders([(EMB2, 0), (EMB1, 0), (EMB2, 1)])
    np.testing.assert_allclose(rings(event, sets, order), [1.0, 4.0, 1.0, 1.0, 0.0, 0.0])


@pytest.mark.parametrize(("sigma", "left"), [(5.3, 8.0), (5.4, 0.0)])
def test_a_cluster_near_the_expectation_goes_as_a_whole(sigma, left):
    """16 - 8 = 8 GeV are 1.51 or 1.48 widths."""
    event = shower()
    sets = sets_of([0], [range(6)], [8.0], [sigma])
    removed = rings(event, sets, orders([(EMB2, 0)]))
    assert event.clusters.cell_energy.sum() - removed.sum() == pytest.approx(left)


def test_cells_that_the_track_does_not_reach_come_last():
    event = shower()
    event.tracks.eta_at[0, EMB2] = np.nan
    sets = sets_of([0], [range(6)], [7.5], [1.0])
    np.testing.assert_allclose(
        rings(event, sets, orders([(EMB2, 0), (TILE0, 0), (EMB1, 0)])),
        [1.0, *np.array([4.0, 1.5, 1.5, 2.0]) * 0.5 / 9.0, 6.0],
    )


def test_two_tracks_on_one_cluster_take_no_cell_twice():
    event = shower()
    event = event._replace(tracks=tracks_of(*2 * [{"pt": 10.0, "eta": 0.0125, "phi": 0.0123}]))
    sets = sets_of([0, 1], [range(6), range(6)], [7.0, 4.0], [1.0, 1.0])
    order = orders([(EMB2, 0), (EMB1, 0), (EMB2, 1)], n_sets=2)
    taken = rings(event, sets, order).reshape(2, 6)
    np.testing.assert_allclose(taken[0], [1.0, 4.0, 1.0, 1.0, 0.0, 0.0])
    assert taken[1].sum() == pytest.approx(4.0)
    assert np.all(taken.sum(axis=0) <= event.clusters.cell_energy + 1e-12)


def test_one_track_on_five_clusters():
    cells = [[(EMB2, 0.0125 + 0.025 * i, 0.01, 2.0)] for i in range(5)]
    event = event_of(tracks_of({"pt": 9.0, "eta": 0.0125, "phi": 0.01}), clusters_of(*cells))
    sets = sets_of([0], [range(5)], [5.0], [0.5])
    order = orders([(EMB2, ring) for ring in range(N_RINGS)])
    np.testing.assert_allclose(rings(event, sets, order), [2.0, 2.0, 1.0, 0.0, 0.0])


def test_a_slow_obvious_program_takes_the_same_on_200_random_events(rng):
    config, n_rings = FlowConfig(), 0
    for _ in range(200):
        event = random_event(rng)
        sets = match(event, CELLS, share_deposit(0.3, 0.1), config).sets
        order = np.stack([rng.permutation(N_CODES) for _ in sets.track] or [np.arange(N_CODES)])
        removed = rings(event, sets, order)
        place = {track: s for s, track in enumerate(sets.track.tolist())}
        taken = subtract_by_hand(
            event,
            CELLS,
            {
                track: sets.entry[sets.offsets[s] : sets.offsets[s + 1]].tolist()
                for track, s in place.items()
            },
            lambda track, order=order, place=place: order[place[track]].tolist(),
            lambda track, sets=sets, place=place: sets.mean[place[track]],
            lambda track, sets=sets, place=place: sets.sigma[place[track]],
            config.whole_sigma,
        )
        np.testing.assert_allclose(removed, list(taken.values()), atol=1e-12)
        n_rings += np.sum((removed > 0.0) & (removed < event.clusters.cell_energy[sets.entry]))
    assert n_rings > 50, "no ring was ever scaled"


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 2**32 - 1), st.integers(1, 6), st.integers(1, 6), st.floats(0.05, 1.5))
def test_small_random_events_are_subtracted_within_bounds(seed, n_clusters, n_tracks, mean):
    """No track takes more than it is expected to unless it takes all, and the order of the tracks
    in the file does not matter.
    """
    rng = np.random.default_rng(seed)
    event = random_event(rng, n_clusters=n_clusters, n_tracks=n_tracks)
    deposit, order = share_deposit(mean, 0.2), np.arange(N_CODES, dtype=np.int64)
    sets = match(event, CELLS, deposit, FlowConfig()).sets
    removed = rings(event, sets, np.tile(order, (len(sets.track), 1)))
    assert np.isfinite(removed).all()
    left = event.clusters.cell_energy.copy()
    for s in range(len(sets.track)):
        of = slice(sets.offsets[s], sets.offsets[s + 1])
        before = left[sets.entry[of]].sum()
        left[sets.entry[of]] -= removed[of]
        after = left[sets.entry[of]]
        assert removed[of].sum() <= sets.mean[s] + 1e-9 or np.allclose(after, 0.0)
        assert after.sum() == pytest.approx(before - removed[of].sum())
    turned = event._replace(
        tracks=type(event.tracks)(*(np.ascontiguousarray(c[::-1]) for c in event.tracks))
    )
    other = match(turned, CELLS, deposit, FlowConfig()).sets
    again = rings(turned, other, np.tile(order, (len(other.track), 1)))
    np.testing.assert_array_equal(again, removed)


def test_a_whole_cluster_goes_to_the_first_of_its_tracks():
    event = shower()
    sets = sets_of([0, 0], [range(6), range(6)], [1.0, 1.0], [1.0, 1.0])
    taken = remove_whole(event, CELLS, sets).reshape(2, 6)
    np.testing.assert_array_equal(taken, [event.clusters.cell_energy, np.zeros(6)])


def test_a_million_cells(rng):
    """One cluster of a million entries: the sum that is expected goes."""
    n = 1_000_000
    event = shower()
    clusters = event.clusters._replace(
        energy=np.array([1.0 * n]),
        offsets=np.array([0, n]),
        cell=rng.integers(0, len(CELLS.layer), n),
        cell_energy=np.ones(n),
        weight=np.ones(n),
    )
    sets = sets_of([0], [range(n)], [1234.5], [1.0])
    removed = rings(event._replace(clusters=clusters), sets, orders([(EMB2, 0)]))
    assert removed.sum() == pytest.approx(1234.5)
