"""Tracks find the cluster that is nearest in units of its width, and the cuts are the published
ones.
"""

import numpy as np
import pytest
from particleflow.hand_made import (
    CELLS,
    clusters_of,
    event_of,
    random_event,
    share_deposit,
    tracks_of,
)
from particleflow.reference import cones_by_hand, sets_by_hand

from pfcalib.errors import ConfigError
from pfcalib.particleflow.match import (
    DENSE,
    SUBTRACTED,
    UNMATCHED,
    UNSELECTED,
    FlowConfig,
    match,
    match_cones,
    matching,
    select_tracks,
)

NAMES = {"unselected": UNSELECTED, "unmatched": UNMATCHED, "subtracted": SUBTRACTED, "dense": DENSE}


def matched(tracks, clusters, *, mean=0.8, sigma=0.2, **cuts):
    deposit = share_deposit(mean, sigma)
    return match(event_of(tracks, clusters), CELLS, deposit, FlowConfig(**cuts))


def spot(eta, phi, energy, layer=2):
    """A cluster of one cell of EMB2, whose width is the least one, 0.05."""
    return [(layer, eta, phi, energy)]


def test_the_nearest_cluster_in_units_of_its_width_is_taken():
    wide = [(2, 0.2125 + 0.1 * i, 0.0125, 1.0) for i in (-1, 0, 1)]  # sigma_eta = 0.0816
    found = matched(
        tracks_of({"pt": 2.0, "eta": 0.0875, "phi": 0.0125}),
        clusters_of(spot(0.0, 0.0125, 2.0), wide),
    )
    # 0.075 / 0.05 = 1.5 from the narrow one at 0.0125, 0.125 / 0.0816 = 1.53 from the wide one
    assert found.cluster.tolist() == [0]
    assert found.distance[0] == pytest.approx(1.5, abs=1e-4)


@pytest.mark.parametrize(("eta", "status"), [(0.092, SUBTRACTED), (0.097, UNMATCHED)])
def test_a_cluster_beyond_the_cut_is_not_matched(eta, status):
    """The cell spans 0 to 0.025; 1.64 widths of 0.05 are 0.082."""
    tracks = tracks_of({"pt": 2.0, "eta": eta, "phi": 0.0125})
    assert matched(tracks, clusters_of(spot(0.01, 0.0125, 2.0))).status.tolist() == [status]


@pytest.mark.parametrize(("energy", "status"), [(0.99, UNMATCHED), (1.01, SUBTRACTED)])
def test_a_cluster_needs_a_tenth_of_the_momentum(energy, status):
    tracks = tracks_of({"pt": 10.0, "eta": 0.0, "phi": 0.0})
    assert matched(tracks, clusters_of(spot(0.0, 0.0, energy))).status.tolist() == [status]


def test_matching_goes_across_phi_of_pi():
    tracks = tracks_of({"pt": 2.0, "eta": 0.0, "phi": np.pi - 0.005})
    found = matched(tracks, clusters_of(spot(0.0, -np.pi + 0.01, 2.0)))
    assert found.status.tolist() == [SUBTRACTED]
    assert found.distance[0] < 0.6


def test_tracks_are_used_within_the_cuts_in_falling_pt_whatever_their_order():
    columns = [
        *({"pt": pt, "eta": 0.1, "phi": 0.2} for pt in (0.4, 3.0, 50.0, 7.0)),
        {"pt": 3.0, "eta": -0.1, "phi": 0.2},
        {"pt": 5.0, "eta": 0.9, "phi": 0.2},
    ]
    rows = select_tracks(tracks_of(*columns), FlowConfig())
    assert rows.tolist() == [3, 4, 1]
    turned = select_tracks(tracks_of(*columns[::-1]), FlowConfig())
    assert (5 - turned).tolist() == [3, 4, 1]


@pytest.mark.parametrize(("mean", "n_cells"), [(0.75, 1), (0.85, 2)])
def test_where_energy_is_lacking_the_clusters_around_join(mean, n_cells):
    """10 GeV with 6.5 GeV in the cluster: less than (mean - 1 sigma) only for the larger mean."""
    tracks = tracks_of({"pt": 10.0, "eta": 0.0125, "phi": 0.0125})
    clusters = clusters_of(
        spot(0.0125, 0.0125, 6.5), spot(0.1625, 0.0125, 3.0), spot(0.2625, 0.0125, 9.0)
    )
    found = matched(tracks, clusters, mean=mean, sigma=0.12)
    assert np.diff(found.sets.offsets).tolist() == [n_cells]


@pytest.mark.parametrize(("energy", "status"), [(47.0, SUBTRACTED), (49.0, DENSE)])
def test_nothing_is_subtracted_in_dense_surroundings(energy, status):
    """pT = 10 GeV: 33.2 (log10 40000 - log10 10000) = 19.99 widths of 2 GeV above 8 GeV: 48 GeV."""
    tracks = tracks_of({"pt": 10.0, "eta": 0.0, "phi": 0.0})
    assert matched(tracks, clusters_of(spot(0.0, 0.0, energy))).status.tolist() == [status]


def test_a_track_that_does_not_reach_the_calorimeter_is_unmatched():
    tracks = tracks_of({"pt": 2.0, "eta": 0.0, "phi": 0.0})
    tracks = tracks._replace(eta_at=np.full_like(tracks.eta_at, np.nan))
    assert matched(tracks, clusters_of(spot(0.0, 0.0, 2.0))).status.tolist() == [UNMATCHED]


@pytest.mark.parametrize(("n_clusters", "n_tracks"), [(0, 0), (3, 0), (0, 3)])
def test_events_without_tracks_or_without_clusters(n_clusters, n_tracks, rng):
    event = random_event(rng, n_clusters=n_clusters, n_tracks=n_tracks)
    found = match(event, CELLS, share_deposit(0.8, 0.2), FlowConfig())
    assert len(found.sets.track) == 0
    assert found.status.tolist() == [UNMATCHED] * n_tracks


def test_a_slow_obvious_program_finds_the_same_on_200_random_events(rng):
    config, seen = FlowConfig(), set()
    for _ in range(200):
        event = random_event(rng)
        found = match(event, CELLS, share_deposit(0.7, 0.3), config)
        p = event.tracks.p
        sets, status = sets_by_hand(
            event, CELLS, config, lambda t, p=p: 0.7 * p[t], lambda t, p=p: 0.3 * p[t]
        )
        assert found.status.tolist() == [NAMES[status[t]] for t in range(len(p))]
        assert found.sets.track.tolist() == list(sets)
        assert found.sets.entry.tolist() == [k for entries in sets.values() for k in entries]
        seen |= set(status.values())
    assert seen >= {"subtracted", "unmatched"}


def test_a_slow_obvious_program_finds_the_same_cones_on_200_random_events(rng):
    config, n_met = FlowConfig(), 0
    for _ in range(200):
        event = random_event(rng)
        bent = event.tracks.phi_at + np.linspace(0.0, rng.normal(0.0, 0.2), 7)
        tracks = event.tracks._replace(phi_at=np.mod(bent + np.pi, 2.0 * np.pi) - np.pi)
        event = event._replace(tracks=tracks)
        found = match_cones(event, CELLS, share_deposit(0.7, 0.3), config, radius=0.15)
        sets = cones_by_hand(event, CELLS, config, 0.15)
        assert found.sets.track.tolist() == list(sets)
        assert found.sets.entry.tolist() == [k for entries in sets.values() for k in entries]
        np.testing.assert_allclose(found.mean[found.sets.track], 0.7 * tracks.p[found.sets.track])
        n_met += len(sets)
    assert n_met > 500


def test_a_cone_takes_cells_of_any_cluster_also_in_dense_surroundings():
    tracks = tracks_of({"pt": 10.0, "eta": 0.0, "phi": 0.0}, {"pt": 10.0, "eta": 0.6, "phi": 0.0})
    event = event_of(tracks, clusters_of(spot(0.01, 0.0, 400.0), spot(0.1, 0.0, 0.1)))
    deposit = share_deposit(0.8, 0.2)
    found = matching(deposit, FlowConfig(), cone=0.2)(event, CELLS)
    assert found.status.tolist() == [SUBTRACTED, UNMATCHED]
    assert found.sets.entry.tolist() == [0, 1]
    assert matching(deposit, FlowConfig())(event, CELLS).status.tolist() == [DENSE, UNMATCHED]


@pytest.mark.parametrize("cuts", [{"pt_min": -1.0}, {"pt_min": 50.0}, {"min_width": 0.0}])
def test_cuts_without_a_meaning_are_refused(cuts):
    with pytest.raises(ConfigError, match="particle flow"):
        FlowConfig(**cuts)
