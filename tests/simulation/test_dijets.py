"""Clusters in jets: the same for any number of processes, each with the particle that explains it,
and an account of energy that closes.
"""

import dataclasses
import sys

import numpy as np
import pytest

from pfcalib.clustering.topo import find_clusters
from pfcalib.columns import JAGGED, SCALARS
from pfcalib.errors import ConfigError
from pfcalib.geometry import BARREL
from pfcalib.samples.check import check_sample
from pfcalib.samples.read import read_sample
from pfcalib.simulation import produce, pythia
from pfcalib.simulation.detector import COIL_RADIUS, FRONT
from pfcalib.simulation.particles import Particles, measurable_energy, propagate
from pfcalib.simulation.produce import (
    FIELD,
    MIN_CLUSTER_E,
    ProduceConfig,
    cached_sample,
    produce_chunk,
    produce_sample,
)
from pfcalib.simulation.pythia import (
    TRUTH_DEPTH,
    TRUTH_RADIUS,
    DijetConfig,
    nearest_particles,
    simulate_dijets,
)
from pfcalib.simulation.showers import simulate_showers

SMALL = ProduceConfig(n_events=14, dijets=DijetConfig(), chunk=8, seed=3)


@pytest.fixture(scope="module")
def path(tmp_path_factory):
    return produce_sample(tmp_path_factory.mktemp("dijets") / "new" / "small.root", SMALL)


@pytest.fixture(scope="module")
def sample(path):
    return read_sample(path)


@pytest.fixture(scope="module")
def particles():
    """Those of the first chunk, from the stream that the module documents."""
    stream = np.random.SeedSequence(SMALL.seed, spawn_key=(0,)).spawn(3)[0]
    return simulate_dijets(SMALL.chunk, np.random.default_rng(stream), SMALL.dijets, field=FIELD)


def make_particles(*rows):
    """A row is (event, pdg_id, energy, eta, phi)."""
    return Particles(*(np.array(column) for column in zip(*rows, strict=True)))


class TestSample:
    def test_it_passes_its_check_and_says_what_it_is(self, path):
        report = check_sample(path)
        assert report.passed, report.problems
        assert report.metadata["process"] == "dijets"
        assert report.metadata["pythia"].startswith("8.")
        assert report.metadata["config"]["dijets"]["pt_hat_min"] == 20.0
        assert not {"n_processes", "particles", "e_max"} & set(report.metadata["config"])
        assert report.metadata["n_events_without_cluster"] == 0

    def test_every_column_is_filled(self, sample):
        assert set(sample.scalars) == set(SCALARS)
        assert [name for name in SCALARS if np.ptp(sample[name]) == 0.0] == []
        assert sample["clusterE"].min() > MIN_CLUSTER_E
        assert np.unique(sample["eventNumber"]).tolist() == list(range(SMALL.n_events))

    def test_two_processes_make_the_sample_that_one_makes(self, sample, tmp_path):
        parallel = read_sample(
            produce_sample(tmp_path / "parallel.root", dataclasses.replace(SMALL, n_processes=2))
        )
        np.testing.assert_array_equal(parallel.offsets, sample.offsets)
        for name in SCALARS:
            np.testing.assert_array_equal(parallel[name], sample[name], err_msg=name)
        for name in JAGGED:
            np.testing.assert_array_equal(parallel.cells[name], sample.cells[name], err_msg=name)

    def test_its_truth_is_that_of_particles_of_the_event(self, sample, particles):
        first = sample[sample["eventNumber"] < SMALL.chunk]
        shot = {
            (int(e), int(k), np.float32(x))
            for e, k, x in zip(particles.event, particles.pdg_id, particles.energy, strict=True)
        }
        told = set(
            zip(
                first["eventNumber"].tolist(),
                first["truthPdgId"].tolist(),
                first["truthE"],
                strict=True,
            )
        )
        assert told <= shot
        assert len(told) > 100

    def test_clusters_lie_where_their_particle_strikes(self, sample):
        """With the way through the field they lie nearer than the heading at the origin says."""
        columns = [sample[name].astype(float) for name in ("truthE", "truthEta", "truthPhi")]
        truth = Particles(sample["eventNumber"], sample["truthPdgId"], *columns)
        d_eta = sample["clusterEta"] - truth.eta
        charged = (np.abs(truth.pdg_id) == 211) & (sample["clusterE"] > 1.0)
        straight, bent = (
            np.hypot(d_eta, np.angle(np.exp(1j * (sample["clusterPhi"] - phi))))[charged]
            for phi in (truth.phi, pythia._impact(truth, FIELD)[1])
        )
        assert np.median(bent) < 0.05 < np.median(straight)

    def test_no_event_accounts_for_more_energy_than_was_shot(self, sample, particles):
        account = sum(
            sample[f"cluster_ENG_CALIB_{name}"].astype(float)
            for name in ("TOT", "OUT_T", "DEAD_TOT")
        )
        per_event = np.bincount(sample["eventNumber"], account)[: SMALL.chunk]
        shot = np.bincount(particles.event, measurable_energy(particles))
        assert np.all(per_event <= shot)
        assert per_event.sum() > 0.85 * shot.sum()

    def test_jets_hold_pure_and_mixed_clusters(self, sample):
        share = sample.em_share
        real = sample["cluster_ENG_CALIB_TOT"] > 0.2
        assert np.all((share[real] >= 0.0) & (share[real] <= 1.0 + 1e-6))
        assert np.all(np.isnan(share) == (sample["cluster_ENG_CALIB_TOT"] <= 0.0))
        counts = np.histogram(share[real], (0.0, 0.1, 0.9, 1.01))[0]
        assert counts.min() > 0.1 * real.sum()


def test_what_is_shot_is_deposited_lost_or_leaves(particles, rng):
    hits = simulate_showers(particles, BARREL, rng, field=FIELD)
    deposited = np.bincount(
        hits.event, hits.em + hits.non_em + hits.invisible + hits.escaped, hits.n_events
    )
    np.testing.assert_allclose(deposited + hits.e_dead + hits.e_leak, hits.e_total, rtol=1e-6)
    nucleon_mass = 0.93827 * (
        np.isin(particles.pdg_id, (2112, 2212)) - 1.0 * np.isin(particles.pdg_id, (-2112, -2212))
    )
    np.testing.assert_allclose(
        hits.e_total, np.bincount(particles.event, particles.energy - nucleon_mass), rtol=1e-5
    )


def test_thresholds_reach_the_clustering(monkeypatch):
    used = []
    monkeypatch.setattr(
        "pfcalib.simulation.produce.find_clusters",
        lambda *args: used.append(args[3]) or find_clusters(*args),
    )
    few = dataclasses.replace(SMALL, n_events=2)
    n_clusters = [
        len(produce_chunk(dataclasses.replace(few, thresholds=cuts), 0)[1]) - 1
        for cuts in ((4.0, 2.0, 0.0), (6.0, 3.0, 1.0))
    ]
    assert [(topo.seed, topo.growth, topo.boundary) for topo in used] == [
        (4.0, 2.0, 0.0),
        (6.0, 3.0, 1.0),
    ]
    assert n_clusters[1] < n_clusters[0]


class TestNearest:
    def test_it_agrees_with_a_loop_over_clusters(self, particles, rng):
        event = np.sort(rng.integers(SMALL.chunk, size=60))
        eta, phi = rng.uniform(-0.8, 0.8, 60), rng.uniform(-np.pi, np.pi, 60)
        p_eta, p_phi = pythia._impact(particles, FIELD)
        wanted = []
        for e, x, y in zip(event, eta, phi, strict=True):
            mine = np.flatnonzero(particles.event == e)
            d_phi = (y - p_phi[mine] + np.pi) % (2.0 * np.pi) - np.pi
            score = np.log(particles.energy[mine]) - ((x - p_eta[mine]) ** 2 + d_phi**2) / (
                2.0 * TRUTH_RADIUS**2
            )
            wanted.append(mine[np.argmax(score)])
        np.testing.assert_array_equal(
            nearest_particles(particles, event, eta, phi, field=FIELD), wanted
        )

    def test_the_nearer_of_two_equals_wins_and_the_harder_of_two_as_near(self):
        two = make_particles(
            (0, 22, 5.0, 0.0, 0.0),
            (0, 111, 5.0, 0.1, 0.0),
            (1, 22, 5.0, 0.0, 0.0),
            (1, 111, 50.0, 0.1, 0.0),
        )
        assert nearest_particles(two, [0, 0, 1], [0.04, 0.06, 0.05], [0.0, 0.0, 0.0]).tolist() == [
            0,
            1,
            3,
        ]

    def test_azimuth_closes(self):
        two = make_particles((0, 22, 5.0, 0.0, 3.13), (0, 22, 5.0, 0.0, 2.9))
        assert nearest_particles(two, [0], [0.0], [-3.13]).tolist() == [0]

    def test_no_cluster_has_no_particle(self, particles):
        assert nearest_particles(particles, [], [], []).shape == (0,)


class TestImpact:
    def test_neutral_particles_go_straight_on(self):
        eta, phi = pythia._impact(
            make_particles((0, 22, 3.0, 0.5, 1.0), (0, 2112, 3.0, -0.7, -2.0)), FIELD
        )
        np.testing.assert_allclose(eta, [0.5, -0.7], atol=1e-12)
        np.testing.assert_allclose(phi, [1.0, -2.0], atol=1e-12)

    @pytest.mark.parametrize(("pdg_id", "sign"), [(211, -1.0), (-211, 1.0)])
    def test_charged_ones_follow_the_helix_in_small_steps(self, pdg_id, sign):
        pion = make_particles((0, pdg_id, 1.5, 0.4, 0.3))
        pt = np.sqrt(1.5**2 - 0.13957**2) / np.cosh(0.4)
        heading, x, y, z, step = 0.3, 0.0, 0.0, 0.0, 0.02
        while (radius := np.hypot(x, y)) < TRUTH_DEPTH:
            if radius < COIL_RADIUS:
                heading += sign * 0.299792458e-3 * FIELD / pt * step
            x, y, z = (
                x + step * np.cos(heading),
                y + step * np.sin(heading),
                z + step * np.sinh(0.4),
            )
        eta, phi = pythia._impact(pion, FIELD)
        assert phi[0] == pytest.approx(np.arctan2(y, x), abs=1e-4)
        assert eta[0] == pytest.approx(np.arcsinh(z / TRUTH_DEPTH), abs=1e-4)
        # beyond the front it moves on
        assert abs(phi[0] - 0.3) > abs(propagate(pion, field=FIELD).phi_axis[0] - 0.3)
        assert TRUTH_DEPTH > FRONT


@pytest.mark.parametrize(
    "change",
    [
        {"seed": 2},
        {"thresholds": (4.0, 3.0, 1.0)},
        {"dijets": DijetConfig(pt_hat_min=30.0)},
        {"dijets": None},
    ],
)
def test_any_other_setting_makes_another_sample(change, tmp_path, monkeypatch):
    monkeypatch.setattr(produce, "produce_sample", lambda path, config, **_: path)
    one, two = (
        cached_sample(config, cache_dir=tmp_path)
        for config in (SMALL, dataclasses.replace(SMALL, **change))
    )
    assert one != two


def test_another_version_of_pythia_makes_another_sample(tmp_path, monkeypatch):
    monkeypatch.setattr(produce, "produce_sample", lambda path, config, **_: path)
    first = cached_sample(SMALL, cache_dir=tmp_path)
    monkeypatch.setattr(produce, "pythia_version", lambda: "8.999")
    assert cached_sample(SMALL, cache_dir=tmp_path) != first


def test_without_the_extra_nothing_is_written(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "pythia8mc", None)
    for call in (
        lambda: produce_sample(tmp_path / "sample.root", SMALL),
        lambda: cached_sample(SMALL, cache_dir=tmp_path),
    ):
        with pytest.raises(ConfigError, match=r"pip install 'pfcalib\[pythia\]'"):
            call()
    assert list(tmp_path.iterdir()) == []


def test_dijets_need_the_barrel():
    with pytest.raises(ConfigError, match="dijets need the grid 'barrel', not 'window'"):
        dataclasses.replace(SMALL, grid="window", eta_max=0.05)
