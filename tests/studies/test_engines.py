"""Both engines get the same pions, what Geant4 made is kept, and the comparison finds what differs
and nothing else.
"""

from dataclasses import replace

import numpy as np
import pytest
from studies import engines
from studies.engines import (
    BUDGET,
    PionConfig,
    compare_engines,
    compare_with,
    simulate_fast,
    simulate_geant4,
    start_pions,
)

from pfcalib.errors import ConfigError
from pfcalib.geometry import WINDOW
from pfcalib.metrics.curve import Estimate
from pfcalib.samples.showerfile import read_showers
from pfcalib.simulation.digitise import noise_sigma
from pfcalib.simulation.geant4 import pool

TINY = PionConfig(name="pi0", n_events=3, e_min=0.5, e_max=1.0)
EDGES = [1.0, 4.0, 16.0]


@pytest.fixture(scope="module")
def cache(tmp_path_factory):
    return tmp_path_factory.mktemp("cache")


@pytest.fixture(scope="module")
def made(cache):
    return simulate_geant4(TINY, cache_dir=cache)


@pytest.fixture(scope="module")
def fast():
    return simulate_fast(
        PionConfig(name="pi+", n_events=400, e_min=EDGES[0], e_max=EDGES[-1]), repeats=2
    )


class TestPions:
    def test_both_engines_get_the_same(self, made):
        run = simulate_fast(TINY, repeats=1)
        for one, two in zip(made.particles, run.particles, strict=True):
            np.testing.assert_array_equal(one, two)
        np.testing.assert_array_equal(made.hits.e_total, run.hits.e_total)

    def test_they_change_with_the_seed_and_the_kind(self):
        energies = {
            tuple(start_pions(PionConfig(name=name, n_events=3, seed=seed))[0].energy)
            for name in ("pi0", "pi+")
            for seed in (1, 2)
        }
        assert len(energies) == 4

    @pytest.mark.parametrize(
        ("options", "message"),
        [
            ({"n_events": 0}, "n_events must be at least 1"),
            ({"eta_max": 0.2}, r"eta_max must lie in"),
        ],
    )
    def test_impossible_settings_are_refused(self, options, message):
        with pytest.raises(ConfigError, match=message):
            PionConfig(**{"name": "pi0", "n_events": 1} | options)


class TestCache:
    def test_what_geant4_made_is_not_made_again(self, made, cache, monkeypatch):
        monkeypatch.setattr(pool, "Worker", None)
        again = simulate_geant4(TINY, cache_dir=cache)
        for one, two in zip(again.hits, made.hits, strict=True):
            np.testing.assert_array_equal(one, two)
        assert again.job_seconds.tolist() == made.job_seconds.tolist()

    def test_it_lies_there_as_a_file_of_showers_too(self, made, cache):
        (path,) = (cache / "geant4").glob("*.root")
        showers, metadata = read_showers(path, WINDOW)
        assert metadata["generator"] == made.generator
        assert metadata["config"]["n_events"] == 3
        np.testing.assert_array_equal(showers.cell, made.showers.cell)
        np.testing.assert_allclose(showers.signal, made.showers.signal, rtol=1e-6)
        np.testing.assert_allclose(showers.e_true, made.particles.energy, rtol=1e-6)

    def test_nothing_else_is_left(self, made, cache):
        assert sorted(path.suffix for path in (cache / "geant4").iterdir()) == [".npz", ".root"]


class TestBudget:
    def test_the_parts_make_up_the_energy(self, fast):
        shares = engines.energy_budget(fast.hits)
        assert tuple(shares) == BUDGET
        np.testing.assert_allclose(sum(shares.values()), 1.0, rtol=1e-9)

    def test_its_means_are_those_of_the_bins(self, fast):
        means = engines.mean_budget(fast.hits, EDGES)
        inside = fast.hits.e_total < EDGES[1]
        assert means["em"][0].value == pytest.approx(
            engines.energy_budget(fast.hits)["em"][inside].mean(), rel=1e-12
        )
        assert sum(means[part][1].value for part in BUDGET) == pytest.approx(1.0, rel=1e-9)

    def test_the_worst_difference_is_found_and_bins_without_showers_are_left_out(self):
        one = {
            part: [Estimate(0.5, 0.3), Estimate(0.1, 0.1), Estimate(np.nan, np.nan)]
            for part in BUDGET
        }
        two = one | {"leak": [Estimate(0.5, 0.1), Estimate(0.4, 0.0), Estimate(0.5, 0.1)]}
        assert engines.worst_difference(one, two) == pytest.approx((0.3, 0.1))


def test_the_profile_adds_up_to_the_mean_response(fast):
    showers = fast.showers
    profile = engines.layer_profile(showers, WINDOW, (1.0, 16.0))
    event = np.repeat(np.arange(400), np.diff(showers.offsets))
    response = np.bincount(event, showers.signal, 400) / showers.e_true
    assert profile.sum() == pytest.approx(response.mean(), rel=1e-12)
    assert profile.argmax() == 2


class TestSpeed:
    def test_it_is_energy_over_time_of_all_jobs(self, made):
        runs = [
            made._replace(job_energy=np.array([10.0, 20.0]), job_seconds=np.array([1.0, 2.0]))
            for _ in range(2)
        ]
        assert engines.speed(runs) == pytest.approx((10.0, 0.0))

    def test_its_error_covers_the_truth(self, made, rng):
        """In 68 % of pseudo-experiments of 40 jobs that take a second for 20 GeV, with a spread of
        20 %.
        """
        covered = []
        for _ in range(400):
            energy = rng.uniform(20.0, 80.0, 40)
            rate, error = engines.speed(
                [
                    made._replace(
                        job_energy=energy, job_seconds=energy / 20.0 * rng.normal(1.0, 0.2, 40)
                    )
                ]
            )
            covered.append(abs(rate - 20.0) < error)
        assert 0.6 < np.mean(covered) < 0.76

    def test_the_fast_engine_is_fast(self, fast):
        assert engines.speed([fast]).value > 300.0


@pytest.fixture(scope="module")
def sigma():
    return noise_sigma(WINDOW)


@pytest.fixture(scope="module")
def contest(fast, sigma):
    """The fast engine against itself."""
    return compare_engines(
        fast, EDGES, np.random.default_rng(1), copies=2, sigma=sigma, response_limit=0.2
    )


class TestContest:
    def test_it_holds_copies_of_the_same_pions(self, contest, fast):
        np.testing.assert_array_equal(contest.fast.e_true, np.repeat(fast.particles.energy, 2))
        assert contest.fast_hits.n_events == 800

    def test_the_same_engine_agrees_with_itself(self, contest):
        assert contest.within > 0.85

    def test_pulls_of_the_same_engine_are_of_width_one(self, contest, sigma):
        pulls = compare_with(contest, contest.fast, EDGES, sigma=sigma)
        assert len(pulls) > 30
        assert 0.4 < np.mean(pulls**2) < 1.6

    def test_another_scale_is_found(self, contest, sigma):
        shifted = contest.fast._replace(signal=1.15 * contest.fast.signal)
        assert np.abs(compare_with(contest, shifted, EDGES, sigma=sigma)).max() > 4.0

    def test_shares_of_layers_below_a_hundredth_do_not_count(self, contest, sigma):
        """A hundredth of the energy in EMB2 takes its share out of both bins, and nothing else."""
        fast, geant4 = contest.moments
        nowhere = np.full(len(geant4["response"]), np.nan)
        wide = geant4 | {f"width_{axis}_EMB2": nowhere for axis in ("eta", "phi")}
        contest, in_emb2 = (
            replace(contest, moments=(fast, wide)),
            WINDOW.layer[contest.fast.cell] == 2,
        )
        numbers = []
        for factor in (1.0, 0.01):
            other = contest.fast._replace(
                signal=np.where(in_emb2, factor, 1.0) * contest.fast.signal
            )
            numbers.append(len(compare_with(contest, other, EDGES, sigma=sigma)))
        assert numbers[0] - numbers[1] == len(EDGES) - 1
