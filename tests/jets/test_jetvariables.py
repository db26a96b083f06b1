"""Variables of a jet are what the tracks and cells around its axis are."""

from types import SimpleNamespace

import numpy as np
import pytest
from particleflow.hand_made import CELLS, clusters_of, event_of, tracks_of

from pfcalib.columns import LAYER_NAMES
from pfcalib.jets.jetvariables import (
    CHARGED,
    NEUTRAL,
    PILE_UP,
    Seen,
    jet_points,
    jet_variables,
    see,
)
from pfcalib.particleflow.flow import Neutrals

EMB2, EMB3, TILE0 = (LAYER_NAMES.index(name) for name in ("EMB2", "EMB3", "TileBar0"))
ETA, PHI, RADIUS = 0.1, np.pi - 0.02, 0.4  # near where the angle jumps


def near(eta, phi):
    return {"eta": ETA + eta, "phi": np.mod(PHI + phi + np.pi, 2 * np.pi) - np.pi}


EVENT = event_of(
    tracks_of(
        {"pt": 6.0, **near(0.1, 0.0)},
        {"pt": 2.0, **near(0.0, 0.3)},
        {"pt": 0.8, **near(0.0, 0.1)},  # too soft to be counted
        {"pt": 9.0, **near(0.0, 0.6)},  # outside
        {"pt": 3.0, "vertex": 4, **near(-0.1, 0.1)},
    ),
    clusters_of(
        [(EMB2, ETA, PHI, 3.0), (TILE0, ETA, PHI, 1.0)],
        [(EMB3, ETA + 0.1, PHI, 1.0)],
        [(EMB3, ETA + 0.6, PHI, 7.0)],  # outside
    ),
)


def variables(members=(6.0, 3.0, 1.0)):
    seen = Seen(EVENT, None, np.zeros(0, int), np.zeros(0))
    return jet_variables(seen, CELLS, ETA, PHI, np.array(members), RADIUS)


def test_tracks_within_the_radius_make_number_width_and_sums_also_across_the_jump_of_the_angle():
    found = variables()
    assert found["n_track"] == 2.0
    assert found["w_track"] == pytest.approx((6.0 * 0.1 + 2.0 * 0.3) / 8.0)
    assert found["pt_tracks"] == pytest.approx(8.8)
    assert found["pt_pile_up"] == pytest.approx(3.0)


def test_shares_of_layers_are_those_of_the_cells_within_the_radius():
    found = variables()
    assert found["f_EMB2"] == pytest.approx(0.6)
    assert found["f_TileBar0"] == pytest.approx(0.2)
    assert found["f_EMB3"] == pytest.approx(0.2)
    assert sum(found[f"f_{name}"] for name in LAYER_NAMES) == pytest.approx(1.0)


@pytest.mark.parametrize(("members", "n"), [((10.0,), 1), ((5.0, 4.0, 1.0), 2), ((1.0,) * 10, 9)])
def test_so_many_constituents_carry_nine_tenths(members, n):
    assert variables(members)["n_90"] == n


def test_inputs_of_jets_know_their_kind_and_the_share_of_their_cluster_in_electromagnetic_layers():
    clusters = EVENT.clusters
    neutrals = Neutrals(np.array([2.0, 0.0, 7.0]), clusters.energy, clusters.eta, clusters.phi)
    seen = see(EVENT, SimpleNamespace(charged=np.array([0, 1]), neutrals=neutrals), CELLS)
    assert seen.kind.tolist() == [CHARGED, CHARGED, NEUTRAL, NEUTRAL]
    np.testing.assert_allclose(seen.em_share, [0.0, 0.0, 0.75, 1.0])


def test_points_fall_in_pt_end_where_asked_and_hold_tracks_of_pile_up():
    momenta = np.array([[6.0, ETA + 0.1, PHI], [1.0, ETA, -PHI], [50.0, 0.0, 0.0]])
    seen = Seen(EVENT, None, np.array([CHARGED, NEUTRAL, NEUTRAL]), np.array([0.0, 0.5, 0.0]))
    found = jet_points(seen, ETA, PHI, np.array([0, 1]), momenta, RADIUS, 8)
    np.testing.assert_allclose(found[:, 0], [6.0, 3.0, 1.0])
    np.testing.assert_allclose(found[:, 2], [0.0, 0.1, 0.04], atol=1e-6)
    assert found[:, 3].tolist() == [CHARGED, PILE_UP, NEUTRAL]
    np.testing.assert_allclose(found[:, 4], [0.0, 0.0, 0.5])
    assert len(jet_points(seen, ETA, PHI, np.array([0, 1]), momenta, RADIUS, 2)) == 2
