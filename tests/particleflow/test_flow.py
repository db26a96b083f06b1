"""Objects conserve energy, know where their parts came from, and make the inputs of jets."""

import numpy as np
import pytest
from particleflow.hand_made import CELLS, clusters_of, event_of, random_event, tracks_of

from pfcalib.calibration.eoverp import EoverPTable
from pfcalib.errors import ValidationError
from pfcalib.particleflow.flow import (
    PION_MASS,
    cluster_inputs,
    flow_inputs,
    run_flow,
    truth_inputs,
)
from pfcalib.particleflow.match import DENSE, SUBTRACTED, UNMATCHED
from pfcalib.particleflow.methods import build_method

TABLE = EoverPTable.load()
METHODS = {name: build_method(name, table=TABLE) for name in ("rings", "whole", "truth")}
METHODS["rings, true deposit"] = build_method("rings", deposit="truth", table=TABLE)


@pytest.mark.parametrize("name", METHODS)
def test_energy_before_is_energy_after_and_what_the_tracks_took(name, rng):
    for _ in range(40):
        event = random_event(rng)
        objects = run_flow(event, CELLS, METHODS[name])
        before, links = event.clusters.energy, objects.links
        taken = np.bincount(links.cluster, links.energy, len(before))
        np.testing.assert_allclose(objects.neutrals.energy + taken, before, atol=1e-9)
        assert links.energy.sum() == pytest.approx(objects.removed.sum())
        subtracted = np.flatnonzero(objects.matches.status == SUBTRACTED)
        assert set(links.track.tolist()) == set(subtracted.tolist())


def test_what_is_left_lies_where_its_cells_are():
    """The track takes the cell in which it is; the other stays where it is."""
    cells = [(2, 0.0125, 0.0123, 6.0), (2, 0.1125, 0.0123, 20.0)]
    event = event_of(tracks_of({"pt": 7.0, "eta": 0.0125, "phi": 0.0123}), clusters_of(cells))
    neutrals = run_flow(event, CELLS, METHODS["rings"]).neutrals
    assert event.clusters.eta[0] == pytest.approx(0.0894, abs=1e-4)
    assert 20.0 <= neutrals.energy[0] < 21.5
    assert neutrals.eta[0] > 0.105


def test_untouched_clusters_stay_as_they_are(rng):
    event = random_event(rng, n_tracks=0)
    neutrals = run_flow(event, CELLS, METHODS["rings"]).neutrals
    for name in ("energy", "eta", "phi"):
        np.testing.assert_array_equal(getattr(neutrals, name), getattr(event.clusters, name))


def test_a_cluster_whose_cells_all_went_has_no_energy():
    """Also not that of the cells that MLTree files leave out."""
    clusters = clusters_of([(2, 0.0125, 0.0123, 5.0)])._replace(energy=np.array([5.1]))
    event = event_of(tracks_of({"pt": 7.0, "eta": 0.0125, "phi": 0.0123}), clusters)
    assert run_flow(event, CELLS, METHODS["rings"]).neutrals.energy.tolist() == [0.0]


def test_inputs_of_jets_are_tracks_of_the_vertex_and_positive_neutrals():
    clusters = clusters_of([(2, 1.1 - 1.0, 0.0, 3.0)], [(2, -0.5, 1.0, -2.0)])
    tracks = tracks_of(
        {"pt": 2.0, "eta": 0.3, "phi": 2.0}, {"pt": 4.0, "eta": 0.3, "phi": 2.5, "vertex": 3}
    )
    event = event_of(tracks, clusters._replace(scale=np.array([1.5, 1.5])))
    objects = run_flow(event, CELLS, METHODS["rings"])
    assert objects.matches.status.tolist() == [UNMATCHED, UNMATCHED]
    made = flow_inputs(event, objects)
    assert np.hypot(made.px, made.py)[0] == pytest.approx(2.0)
    assert made.e[0] == pytest.approx(np.sqrt((2.0 * np.cosh(0.3)) ** 2 + PION_MASS**2))
    assert made.e[1:].tolist() == [3.0]
    assert flow_inputs(event, objects, calibrated=True).e[1:].tolist() == [4.5]
    assert cluster_inputs(event, calibrated=True).e.tolist() == [4.5]
    momentum = np.sqrt(made.px**2 + made.py**2 + made.pz**2)
    np.testing.assert_allclose(momentum[1:], made.e[1:])


def test_tracks_in_dense_surroundings_are_no_objects():
    cells = [(2, 0.0125, 0.0123, 4000.0)]
    event = event_of(tracks_of({"pt": 20.0, "eta": 0.0125, "phi": 0.0123}), clusters_of(cells))
    objects = run_flow(event, CELLS, METHODS["rings"])
    assert objects.matches.status.tolist() == [DENSE]
    assert len(objects.charged) == 0


def test_truth_jets_leave_out_muons_and_pile_up(rng):
    event = random_event(rng, n_tracks=3)
    pdg_id, vertex = np.array([211, -13, 211, 22]), np.array([0, 0, 2, 0])
    event = event._replace(truth=event.truth._replace(pdg_id=pdg_id, vertex=vertex))
    assert len(truth_inputs(event).e) == 2


@pytest.mark.parametrize(
    ("of", "name"), [("tracks", "pt"), ("clusters", "cell_energy"), ("clusters", "eta")]
)
def test_a_number_that_is_not_finite_is_refused_with_its_event(of, name, rng):
    event = random_event(rng)._replace(number=41)
    getattr(getattr(event, of), name)[2] = np.nan
    with pytest.raises(ValidationError, match=rf"event 41: {of[:-1]} {name}\[2\] is nan"):
        run_flow(event, CELLS, METHODS["rings"])
