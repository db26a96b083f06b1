"""Clouds around tracks hold the cells of the clusters near by; single pions are events with a
track.
"""

import numpy as np
import pytest
from particleflow.hand_made import CELLS, clusters_of, event_of, random_event, tracks_of

from pfcalib.calibration.eoverp import PION_MASS
from pfcalib.errors import ConfigError
from pfcalib.features.clouds import N_LAYERS, count_points
from pfcalib.particleflow.cones import iterate_pions, near_tracks, ring_columns, track_clouds
from pfcalib.particleflow.flow import run_flow
from pfcalib.particleflow.match import EMB2
from pfcalib.particleflow.methods import build_method
from pfcalib.simulation.produce import ProduceConfig, produce_sample


@pytest.fixture(scope="module")
def pions(tmp_path_factory):
    config = ProduceConfig(n_events=40, particles=("pi+", "pi0"), e_min=20.0, e_max=30.0, seed=3)
    return produce_sample(tmp_path_factory.mktemp("pions") / "pions.root", config)


def test_the_entries_of_a_cone_are_those_of_a_plain_loop(rng):
    n_found = 0
    for _ in range(20):
        event = random_event(rng)
        reach = np.isfinite(event.tracks.eta_at[:, EMB2])
        rows = np.flatnonzero(reach)
        sizes, entry = near_tracks(event, rows, 0.3)
        ends = np.cumsum(sizes)
        for i, row in enumerate(rows):
            expected = []
            for k, (start, stop) in enumerate(
                zip(event.clusters.offsets[:-1], event.clusters.offsets[1:], strict=True)
            ):
                d_eta = event.clusters.eta[k] - event.tracks.eta_at[row, EMB2]
                d_phi = event.clusters.phi[k] - event.tracks.phi_at[row, EMB2]
                d_phi = np.angle(np.exp(1j * d_phi))
                if np.hypot(d_eta, d_phi) < 0.3:
                    expected += range(start, stop)
            assert entry[ends[i] - sizes[i] : ends[i]].tolist() == expected
            n_found += len(expected)
    assert n_found > 50


def test_a_cloud_has_the_cells_near_by_and_the_track():
    tracks = tracks_of(
        {"pt": 5.0, "eta": 0.0125, "phi": np.pi - 0.01}, {"pt": 12.0, "eta": 0.4, "phi": 1.0}
    )
    cells = [(2, 0.0125, np.pi - 0.01, 3.0), (2, 0.0375, -np.pi + 0.01, 2.0)]
    event = event_of(tracks, clusters_of(cells))
    clouds = track_clouds(event, ring_columns(CELLS), np.array([0, 1]), cone=0.2)
    assert clouds.n_clouds == 2
    np.testing.assert_allclose(clouds.energy, [3.0, 2.0])
    np.testing.assert_array_equal(clouds.offsets, [0, 2, 2])
    reached = np.isfinite(tracks.eta_at).sum(axis=1)
    np.testing.assert_array_equal(count_points(clouds), [reached[0] + 2, reached[1]])
    np.testing.assert_allclose(clouds.track[:, 0], tracks.p)
    outside = tracks._replace(eta_at=np.full((2, N_LAYERS), np.nan))
    with pytest.raises(ConfigError, match="track 1 does not reach EMB2"):
        track_clouds(event._replace(tracks=outside), ring_columns(CELLS), np.array([1]))


def test_pions_of_a_sample_are_events_with_one_track(pions):
    """Hard isolated pions are found by their tracks, and most of their energy goes with them."""
    events = list(iterate_pions(pions))
    assert 5 < len(events) < 35
    rings = build_method("rings")
    done = [run_flow(event, CELLS, rings) for event in events]
    assert all(len(event.tracks.pt) == 1 for event in events)
    before = sum(event.clusters.energy.sum() for event in events)
    assert sum(objects.removed.sum() for objects in done) > 0.6 * before


def test_tracks_of_pions_can_be_measured(pions, rng):
    """Some are lost; those found are off by the resolution, a per cent."""
    true = {event.number: event for event in iterate_pions(pions)}
    found = list(iterate_pions(pions, rng=rng))
    assert 3 < len(found) <= len(true)
    off = [event.tracks.p[0] / true[event.number].tracks.p[0] - 1.0 for event in found]
    assert 0.0 < np.std(off) < 0.05
    for event in found:
        assert event.truth is not None
        p = np.sqrt(event.truth.energy[0] ** 2 - PION_MASS**2)
        assert p == pytest.approx(true[event.number].tracks.p[0])
        assert event.tracks.particle.tolist() == [0]
