"""From particles to a file: the same sample for any number of processes, complete or not at all,
with a closed account of energy.
"""

import dataclasses

import numpy as np
import pytest

from pfcalib.columns import JAGGED, SCALARS
from pfcalib.errors import ConfigError
from pfcalib.geometry import BARREL, WINDOW
from pfcalib.samples.check import check_sample
from pfcalib.samples.packaged import packaged_sample
from pfcalib.samples.read import read_sample
from pfcalib.samples.showerfile import read_showers
from pfcalib.simulation import produce
from pfcalib.simulation.digitise import NOISE_SETTINGS, noise_sigma
from pfcalib.simulation.produce import (
    MIN_CLUSTER_E,
    ProduceConfig,
    cached_sample,
    cluster_showers,
    geant4_sample,
    produce_chunk,
    produce_sample,
    shoot,
)

SMALL = ProduceConfig(n_events=120, e_max=100.0, eta_max=0.1, grid="window", chunk=50)


@pytest.fixture(scope="module")
def path(tmp_path_factory):
    return produce_sample(tmp_path_factory.mktemp("produced") / "small.root", SMALL)


@pytest.fixture(scope="module")
def sample(path):
    return read_sample(path)


def assert_same(one, two):
    np.testing.assert_array_equal(one.offsets, two.offsets)
    for name in SCALARS:
        np.testing.assert_array_equal(one[name], two[name], err_msg=name)
    for name in JAGGED:
        np.testing.assert_array_equal(one.cells[name], two.cells[name], err_msg=name)


class TestSeed:
    def test_two_processes_make_the_sample_that_one_makes(self, sample, tmp_path):
        parallel = produce_sample(
            tmp_path / "parallel.root", dataclasses.replace(SMALL, n_processes=2)
        )
        assert_same(read_sample(parallel), sample)

    def test_the_same_seed_makes_the_same_sample_again(self, sample, tmp_path):
        assert_same(read_sample(produce_sample(tmp_path / "again.root", SMALL)), sample)

    def test_another_seed_makes_another(self, sample):
        scalars, _, _ = produce_chunk(dataclasses.replace(SMALL, seed=2), 0)
        n = min(len(scalars["clusterE"]), len(sample))
        assert not np.any(np.isin(scalars["truthE"][:n].astype(np.float32), sample["truthE"][:n]))

    def test_chunks_do_not_repeat_each_other(self, sample):
        first, second = (
            sample["truthE"][sample["eventNumber"] // SMALL.chunk == number] for number in (0, 1)
        )
        assert not set(first.tolist()) & set(second.tolist())


class TestSample:
    def test_it_passes_its_own_check(self, path):
        report = check_sample(path)
        assert report.passed, report.problems
        assert report.metadata["generator"] == "pfcalib simulation"
        assert report.metadata["seed"] == SMALL.seed
        assert report.metadata["config"]["n_events"] == 120

    def test_every_column_is_filled(self, sample):
        assert set(sample.scalars) == set(SCALARS)
        constant = [name for name in SCALARS if np.ptp(sample[name]) == 0.0]
        assert constant == []

    def test_clusters_of_an_event_fall_in_energy_and_lie_above_the_threshold(self, sample):
        assert sample["clusterE"].min() > MIN_CLUSTER_E
        same_event = np.diff(sample["eventNumber"]) == 0
        assert np.all(np.diff(sample["eventNumber"]) >= 0)
        assert np.all(np.diff(sample["clusterE"])[same_event] <= 0.0)
        assert np.all(np.diff(sample["clusterIndex"])[same_event] > 0)
        assert np.all(sample["clusterIndex"] < sample["nCluster"])

    def test_cells_add_up_to_the_cluster(self, sample):
        owner = np.repeat(np.arange(len(sample)), np.diff(sample.offsets))
        total = np.bincount(owner, sample.cells["cluster_cell_E"], len(sample))
        np.testing.assert_allclose(total, sample["clusterE"], rtol=1e-4, atol=1e-4)

    def test_transverse_energies_follow_from_the_pseudorapidity(self, sample):
        np.testing.assert_allclose(
            sample["truthPt"] * np.cosh(sample["truthEta"]), sample["truthE"], rtol=1e-5
        )
        np.testing.assert_allclose(
            sample["clusterPt"] * np.cosh(sample["clusterEta"]), sample["clusterE"], rtol=1e-5
        )

    def test_no_event_accounts_for_more_energy_than_was_shot(self, sample):
        account = sum(
            sample[f"cluster_ENG_CALIB_{name}"].astype(float)
            for name in ("TOT", "OUT_T", "DEAD_TOT")
        )
        per_event = np.bincount(sample["eventNumber"], account, SMALL.n_events)
        shot = np.zeros(SMALL.n_events)
        shot[sample["eventNumber"]] = sample["truthE"]
        assert np.all(per_event <= shot * (1.0 + 1e-5))
        assert per_event.sum() > 0.9 * shot.sum()

    def test_clusters_lie_where_the_particle_went(self, sample):
        leading = (sample["clusterIndex"] == 0) & (sample["truthE"] > 5.0)
        assert leading.sum() > 30
        distance = np.hypot(
            sample["clusterEta"] - sample["truthEta"], sample["clusterPhi"] - sample["truthPhi"]
        )[leading]
        assert np.median(distance) < 0.02

    def test_it_holds_all_species_and_the_noise_of_the_cells(self, sample):
        assert set(np.unique(sample["truthPdgId"])) == {111, 211, -211}
        np.testing.assert_allclose(sample.geo.sigma, noise_sigma(WINDOW), rtol=1e-6)

    def test_the_barrel_is_filled_in_full_azimuth_with_the_field_on(self):
        config = ProduceConfig(n_events=40, e_min=2.0, e_max=20.0, particles=("pi+",))
        scalars, _, cells = produce_chunk(config, 0)
        assert np.ptp(scalars["truthPhi"]) > 5.0
        assert cells["cluster_cell_ID"].max() < BARREL.n_cells
        leading = scalars["clusterIndex"] == 0
        turned = np.angle(np.exp(1j * (scalars["clusterPhi"] - scalars["truthPhi"])))[leading]
        assert np.mean(turned < 0.0) > 0.8  # positive charges turn towards smaller phi


def test_higher_noise_cuts_make_smaller_and_fewer_clusters(sample):
    def made(*thresholds):
        scalars, _, cells = produce_chunk(dataclasses.replace(SMALL, thresholds=thresholds), 0)
        return len(scalars["clusterE"]), len(cells["cluster_cell_ID"])

    usual, no_boundary, high_seed = made(4.0, 2.0, 0.0), made(4.0, 2.0, 2.0), made(6.0, 2.0, 0.0)
    first = sample["eventNumber"] < SMALL.chunk
    assert usual == (first.sum(), np.diff(sample.offsets)[first].sum())
    assert no_boundary[1] < 0.7 * usual[1]
    assert high_seed[0] < usual[0]


def test_each_species_comes_equally_often(rng):
    particles = shoot(dataclasses.replace(SMALL, particles=("pi0", "gamma")), 4000, rng)
    assert abs(np.mean(particles.pdg_id == 22) - 0.5) < 4.0 * 0.5 / np.sqrt(4000)


def test_progress_counts_all_events(tmp_path):
    done = []
    produce_sample(tmp_path / "sample.root", SMALL, progress=done.append)
    assert done == [50, 50, 20]


def test_a_production_that_fails_leaves_nothing(tmp_path):
    def stop(n_events):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        produce_sample(tmp_path / "sample.root", SMALL, progress=stop)
    assert list(tmp_path.iterdir()) == []


class TestCache:
    @pytest.fixture
    def calls(self, monkeypatch):
        made = []

        def fake(path, config, *, progress=None):
            made.append(config)
            path.write_text("sample")
            return path

        monkeypatch.setattr(produce, "produce_sample", fake)
        return made

    def test_a_sample_is_made_once(self, calls, tmp_path):
        paths = {cached_sample(SMALL, cache_dir=tmp_path), cached_sample(SMALL, cache_dir=tmp_path)}
        assert (len(paths), len(calls)) == (1, 1)

    def test_the_number_of_processes_does_not_make_it_another(self, calls, tmp_path):
        paths = {
            cached_sample(dataclasses.replace(SMALL, n_processes=n), cache_dir=tmp_path)
            for n in (1, 2)
        }
        assert len(paths) == 1

    @pytest.mark.parametrize(
        "change",
        [
            {"seed": 2},
            {"mu": 40.0},
            {"e_min": 1.0},
            {"particles": ("pi0",)},
            {"chunk": 60},
            {"thresholds": (4.0, 2.0, 1.0)},
        ],
    )
    def test_any_other_setting_does(self, change, calls, tmp_path):
        paths = {
            cached_sample(config, cache_dir=tmp_path)
            for config in (SMALL, dataclasses.replace(SMALL, **change))
        }
        assert len(paths) == 2

    def test_the_environment_says_where(self, calls, tmp_path, monkeypatch):
        monkeypatch.setenv("PFCALIB_CACHE", str(tmp_path))
        assert cached_sample(SMALL).parent == tmp_path


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"grid": "endcap"}, "grid must be one of barrel, window, not 'endcap'"),
        ({"noise": "loud"}, "noise must be one of nominal, pileup, not 'loud'"),
        ({"particles": ("kaon",)}, r"unknown particles \['kaon'\]; there are pi0"),
        ({"particles": ()}, "particles must not be empty"),
        ({"n_events": 0}, "n_events, chunk and n_processes must be at least 1"),
        ({"n_processes": 0}, "n_events, chunk and n_processes must be at least 1"),
        ({"e_min": 0.1}, r"energies must satisfy 0\.2 GeV <= e_min <= e_max, not 0\.1, 2000\.0"),
        ({"e_min": 5.0, "e_max": 1.0}, "energies must satisfy"),
        ({"eta_max": 0.8}, r"eta_max must lie in \[0, 0\.8\) on the grid 'barrel', not 0\.8"),
        ({"grid": "window"}, r"eta_max must lie in \[0, 0\.2\) on the grid 'window', not 0\.7"),
        ({"mu": -1.0}, r"mu must be at least 0, not -1\.0"),
        ({"thresholds": (2.0, 4.0, 0.0)}, r"seed >= growth >= boundary >= 0, not 2\.0, 4\.0, 0\.0"),
        ({"thresholds": (4.0, 2.0, 3.0)}, "seed >= growth >= boundary >= 0"),
        ({"thresholds": (4.0, 2.0, -1.0)}, "seed >= growth >= boundary >= 0"),
        (
            {"thresholds": (4.0, 2.0)},
            r"thresholds must be three, seed, growth and boundary, not \(4\.0, 2\.0\)",
        ),
    ],
)
def test_impossible_settings_are_refused_by_name(options, message):
    with pytest.raises(ConfigError, match=message):
        ProduceConfig(**{"n_events": 10} | options)


def test_geant4_showers_become_clusters_in_memory(rng):
    showers, metadata = read_showers(packaged_sample("geant4_pions"), WINDOW)
    few = showers.select(np.arange(len(showers.e_true)) < 200)
    sample = cluster_showers(
        few, WINDOW, rng, generator=metadata["generator"], noise=NOISE_SETTINGS["nominal"]
    )
    assert sample.metadata["generator"] == "Geant4 11.4.1, synthetic tables"
    assert len(sample) > 100
    assert sample["clusterE"].min() > MIN_CLUSTER_E
    assert not np.any(sample["cluster_ENG_CALIB_TOT"])
    np.testing.assert_allclose(
        np.unique(sample["truthE"]),
        np.unique(few.e_true[np.unique(sample["eventNumber"])].astype(np.float32)),
    )


def test_the_packaged_geant4_sample_holds_pions_only_and_no_truth(tmp_path):
    sample = read_sample(geant4_sample(tmp_path / "new", seed=1))
    assert set(np.unique(sample["truthPdgId"])) == {111, 211}
    assert not sample["cluster_ENG_CALIB_TOT"].any()
    assert "Geant4" in sample.metadata["generator"]
    with pytest.raises(ConfigError, match="noise"):
        geant4_sample(tmp_path, seed=1, noise="loud")


def test_events_without_a_cluster_are_counted(tmp_path):
    soft = dataclasses.replace(SMALL, particles=("pi+",), e_min=0.2, e_max=0.4)
    sample = read_sample(produce_sample(tmp_path / "soft.root", soft))
    n_found = len(np.unique(sample["eventNumber"]))
    assert 0 < n_found < soft.n_events
    assert sample.metadata["n_events"] == soft.n_events
    assert sample.metadata["n_events_without_cluster"] == soft.n_events - n_found
