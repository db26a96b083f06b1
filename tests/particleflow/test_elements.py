"""Elements hold what lies around them, and their truth follows its rules."""

import numpy as np
import pytest
from particleflow.hand_made import CELLS, clusters_of, event_of, random_event, tracks_of

from pfcalib.columns import LAYER_NAMES
from pfcalib.errors import ValidationError
from pfcalib.features.windows import (
    CHARGED,
    ELECTRON,
    ELEMENT_COLUMNS,
    MUON,
    NEUTRAL,
    NOTHING,
    PHOTON,
    PILE_UP,
    TARGETS,
)
from pfcalib.geometry import BARREL
from pfcalib.particleflow.elements import (
    AROUND,
    CORE,
    MIN_ENERGY,
    cluster_deposits,
    element_targets,
    event_elements,
    split_clusters,
)
from pfcalib.particleflow.event import FlowTruth

PI, GAMMA, K_LONG, E, MU = 211, 22, 130, 11, 13
HERE, THERE = (0.0125, 0.01), (0.4125, 1.01)


def truth_of(particles, hits):
    """Particles (pdg_id, GeV, eta, phi, vertex) and hits (layer, eta, phi, particle, GeV)."""
    pdg_id, energy, eta, phi, vertex = (np.array(column) for column in zip(*particles, strict=True))
    rows = sorted((int(BARREL.locate(*hit[:3])), hit[3], hit[4]) for hit in hits)
    cell, particle, left = (np.array(column) for column in zip(*rows, strict=True))
    energy = energy.astype(float)
    return FlowTruth(
        pdg_id, energy, energy / np.cosh(eta), eta.astype(float), phi.astype(float), vertex, cell,
        particle, left.astype(float), left.astype(float),
    )  # fmt: skip


def targets_of(tracks, clusters, particles, hits):
    event = event_of(tracks_of(*tracks), clusters_of(*clusters), truth_of(particles, hits))
    elements = event_elements(event, CELLS)
    found = element_targets(event, elements)
    column = {name: found[:, i] for i, name in enumerate(TARGETS)}
    return column | {
        "label": column["label"].astype(int),
        "GeV": column["energy"] * column["scale"],
    }


def test_a_track_is_its_particle_and_its_cluster_is_nothing():
    found = targets_of(
        [{"pt": 10.0, "eta": 0.0125, "phi": 0.01, "particle": 0}],
        [[(2, *HERE, 6.0)]],
        [(PI, 10.2, 0.0126, 0.012, 0)],
        [(2, *HERE, 0, 6.0)],
    )
    assert found["label"].tolist() == [CHARGED, NOTHING]
    np.testing.assert_allclose(found["GeV"], [10.2, 0.0], rtol=1e-6)
    np.testing.assert_allclose(found["d_phi"], [0.002, 0.0], atol=1e-7)
    np.testing.assert_allclose(found["d_eta"], [0.0001, 0.0], atol=1e-7)


def test_a_shared_cluster_keeps_the_energy_of_its_neutral_particle():
    """The charged particle leaves most, so the cluster is nothing, but not without energy."""
    found = targets_of(
        [{"pt": 10.0, "eta": 0.0125, "phi": 0.01, "particle": 0}],
        [[(2, *HERE, 6.0), (1, *HERE, 3.0)]],
        [(PI, 10.0, *HERE, 0), (GAMMA, 3.0, *HERE, 0)],
        [(2, *HERE, 0, 6.0), (1, *HERE, 1, 3.0)],
    )
    assert found["label"].tolist() == [CHARGED, NOTHING]
    np.testing.assert_allclose(found["GeV"][1], 3.0, rtol=1e-6)


def test_cells_of_a_shared_cluster_have_their_own_particles():
    event = event_of(
        tracks_of({"pt": 10.0, "eta": 0.0125, "phi": 0.01, "particle": 0}),
        clusters_of([(2, *HERE, 6.0), (1, *HERE, 3.0)]),
        truth_of(
            [(PI, 10.0, *HERE, 0), (GAMMA, 3.0, *HERE, 0)],
            [(2, *HERE, 0, 6.0), (1, *HERE, 1, 3.0)],
        ),
    )
    fine = split_clusters(event, CELLS)
    found = element_targets(fine, event_elements(fine, CELLS))
    assert found[:, TARGETS.index("label")].tolist() == [CHARGED, NOTHING, PHOTON]


@pytest.mark.parametrize("seed", range(5))
def test_energies_of_cells_sum_to_that_of_their_cluster(seed):
    event = random_event(np.random.default_rng(seed))
    energy = []
    for of in (event, split_clusters(event, CELLS)):
        elements = event_elements(of, CELLS)
        found = element_targets(of, elements)
        energy.append(found[:, TARGETS.index("energy")] * elements.energy)
    n = elements.n_tracks
    summed = np.add.reduceat(energy[1][n:], event.clusters.offsets[:-1])
    assert np.any(summed > 0.0)
    np.testing.assert_allclose(summed, energy[0][n:], rtol=1e-5, atol=1e-6)


def test_a_particle_in_two_clusters_is_shared_by_what_it_left():
    found = targets_of(
        [], [[(2, *HERE, 3.0)], [(4, *THERE, 1.0)]], [(K_LONG, 8.0, *HERE, 0)],
        [(2, *HERE, 0, 3.0), (4, *THERE, 0, 1.0)],
    )  # fmt: skip
    assert found["label"].tolist() == [NEUTRAL, NEUTRAL]
    np.testing.assert_allclose(found["GeV"], [6.0, 2.0], rtol=1e-6)


def test_merged_photons_are_one_photon():
    where = (0.0125, 0.0345)
    found = targets_of(
        [], [[(2, *HERE, 5.0), (2, *where, 2.0)]],
        [(GAMMA, 5.0, *HERE, 0), (GAMMA, 2.0, *where, 0)],
        [(2, *HERE, 0, 5.0), (2, *where, 1, 2.0)],
    )  # fmt: skip
    assert found["label"].tolist() == [PHOTON]
    np.testing.assert_allclose(found["GeV"], [7.0], rtol=1e-6)


@pytest.mark.parametrize("left", [0.0, 0.4])
def test_a_particle_that_leaves_too_little_is_lost(left):
    found = targets_of(
        [], [[(2, *HERE, 1.0)]], [(K_LONG, 5.0, *HERE, 0)],
        [(2, *HERE, 0, left), (2, *THERE, 0, 4.0)],
    )  # fmt: skip
    assert found["GeV"].tolist() == [0.0]
    assert found["label"].tolist() == [NEUTRAL if left else NOTHING]


def test_pile_up_has_no_energy_and_its_share():
    found = targets_of(
        [{"pt": 2.0, "eta": 0.4125, "phi": 1.01, "particle": 1, "vertex": 3}],
        [[(2, *HERE, 4.0)]],
        [(GAMMA, 1.0, *HERE, 0), (PI, 2.1, *THERE, 3)],
        [(2, *HERE, 0, 1.0), (2, *HERE, -1, 3.0)],
    )
    assert found["label"].tolist() == [PILE_UP, PILE_UP]
    np.testing.assert_allclose(found["GeV"], [0.0, 1.0], rtol=1e-6)
    np.testing.assert_allclose(found["pile_up"], [1.0, 0.75], rtol=1e-6)


@pytest.mark.parametrize(
    ("pdg_id", "with_track", "label"),
    [
        (-E, True, ELECTRON), (MU, True, MUON), (-2212, True, CHARGED), (E, False, PHOTON),
        (111, False, PHOTON), (PI, False, NEUTRAL), (-2112, False, NEUTRAL),
    ],
)  # fmt: skip
def test_labels(pdg_id, with_track, label):
    track = {"pt": 5.0, "eta": 0.0125, "phi": 0.01, "particle": 0}
    found = targets_of(
        [track] * with_track, [[(2, *HERE, 4.0)]], [(pdg_id, 5.0, *HERE, 0)], [(2, *HERE, 0, 4.0)]
    )
    assert found["label"][0] == label


def test_fakes_are_nothing():
    found = targets_of(
        [{"pt": 5.0, "eta": 0.0125, "phi": 0.01}], [[(2, *HERE, 1.0)]], [(PI, 1.0, *THERE, 0)],
        [(2, *THERE, 0, 1.0)],
    )  # fmt: skip
    assert found["label"].tolist() == [NOTHING, NOTHING]
    assert found["GeV"].tolist() == [0.0, 0.0]


def test_deposits_of_clusters_sum_to_those_of_their_cells(rng):
    for _ in range(20):
        event = random_event(rng)
        truth, clusters = event.truth, event.clusters
        left = cluster_deposits(event)
        of_cell = np.bincount(truth.hit_cell, truth.hit_deposit, BARREL.n_cells)
        owner = np.repeat(np.arange(len(clusters.energy)), np.diff(clusters.offsets))
        expected = np.bincount(owner, of_cell[clusters.cell] * clusters.weight)
        n = len(clusters.energy)
        np.testing.assert_allclose(np.bincount(left.cluster, left.energy, n), expected)
        by_particle = np.bincount(left.particle, left.energy, len(truth.energy))
        alone = np.bincount(truth.hit_particle, truth.hit_deposit, len(truth.energy))
        np.testing.assert_allclose(by_particle, alone)


def test_columns_against_sums_by_hand(rng):
    for _ in range(10):
        event = random_event(rng, n_clusters=8, n_tracks=7)
        tracks, clusters = event.tracks, event.clusters
        n_tracks = len(tracks.pt)
        columns = event_elements(event, CELLS).columns
        column = dict(zip(ELEMENT_COLUMNS, columns.T, strict=True))

        def away(eta, phi, axis_eta, axis_phi):
            d_phi = np.angle(np.exp(1j * (phi - axis_phi)))
            return np.hypot(eta - axis_eta, d_phi)

        cell = clusters.cell
        for t in range(n_tracks):
            distance = away(CELLS.eta[cell], CELLS.phi[cell], tracks.eta[t], tracks.phi[t])
            for i, layer in enumerate(LAYER_NAMES):
                for name, radius in (("energy", AROUND), ("core", CORE)):
                    near = (distance < radius) & (CELLS.layer[cell] == i)
                    expected = clusters.cell_energy[near].sum()
                    assert column[f"{name}_{layer}"][t] == pytest.approx(expected, abs=1e-5)
        for c in range(len(clusters.energy)):
            of = slice(clusters.offsets[c], clusters.offsets[c + 1])
            for i, layer in enumerate(LAYER_NAMES):
                here = CELLS.layer[cell[of]] == i
                found = column[f"energy_{layer}"][n_tracks + c]
                assert found == pytest.approx(clusters.cell_energy[of][here].sum(), abs=1e-5)
        for i in range(len(columns)):
            near = away(tracks.eta, tracks.phi, column["eta"][i], column["phi"][i]) < AROUND
            near[i : i + 1] = False
            assert column["hard_momentum"][i] == pytest.approx(tracks.p[near].sum(), rel=1e-5)
        assert (column["energy"] >= np.float32(MIN_ENERGY)).all()


def test_an_event_without_truth_is_refused(rng):
    event = random_event(rng)._replace(truth=None, number=17)
    with pytest.raises(ValidationError, match="event 17: no calibration truth"):
        element_targets(event, event_elements(event, CELLS))
