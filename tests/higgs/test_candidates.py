"""Candidates are what the detector and the preselection leave of a collision, hand-made or of
Pythia.
"""

import awkward as ak
import numpy as np
import pytest

pytest.importorskip("pythia8mc")
pytest.importorskip("fastjet")

from pfcalib.errors import ConfigError
from pfcalib.higgs.candidates import (
    COLUMNS,
    FEATURES,
    PHOTON_EFFICIENCY,
    TAG_EFFICIENCY,
    CandidateConfig,
    cached_candidates,
    read_candidates,
    select,
    simulate_candidates,
)
from pfcalib.higgs.processes import PROCESSES, generate

B_HADRON, PION, MUON, PHOTON, NEUTRINO = 511, 211, 13, 22, 14


def collision(*particles):
    """One event of (pdg id, pT, eta, phi); hadrons with a b quark have decayed."""
    listed = []
    for pdg_id, pt, eta, phi in particles:
        p = {"px": pt * np.cos(phi), "py": pt * np.sin(phi), "pz": pt * np.sinh(eta)}
        status = -83 if pdg_id == B_HADRON else 83
        listed.append({"id": pdg_id, "status": status, "p": {**p, "e": pt * np.cosh(eta)}})
    return ak.Array([{"prt": listed}])


# a pair of photons of 125 GeV, and two b jets
HIGGS = [(PHOTON, 80.0, 0.2, 0.0), (PHOTON, 60.0, -0.5, 1.92)]
JETS = [(PION, 70.0, 0.5, -2.5), (B_HADRON, 60.0, 0.5, -2.5), (PION, 50.0, -0.8, -1.0),
        (B_HADRON, 40.0, -0.8, -1.0)]  # fmt: skip


def chosen(*particles, any_flavour=False):
    return select(collision(*particles), np.random.default_rng(1), any_flavour=any_flavour)


def test_a_pair_of_bosons_is_found_with_its_masses_and_the_weight_of_its_tags():
    found = chosen(*HIGGS, *JETS)
    assert found.keys() == set(COLUMNS)
    assert found["m_yy"][0] == pytest.approx(125.0, abs=6.0)
    assert found["m_bb"][0] == pytest.approx(104.0, abs=25.0)
    assert found["weight"][0] == pytest.approx((PHOTON_EFFICIENCY * TAG_EFFICIENCY["b"]) ** 2)
    assert found["n_jets"][0] == 2.0
    assert found["topness"][0] == 3.0


def test_a_jet_without_a_b_hadron_is_tagged_by_mistake_but_any_two_may_be_taken_for_b_jets():
    light = [JETS[0], JETS[1], JETS[2]]
    b, other = TAG_EFFICIENCY["b"], TAG_EFFICIENCY["light"]
    found = chosen(*HIGGS, *light)["weight"] / PHOTON_EFFICIENCY**2
    np.testing.assert_allclose(found, b * other)
    found = chosen(*HIGGS, JETS[0], JETS[2], any_flavour=True)["weight"] / PHOTON_EFFICIENCY**2
    np.testing.assert_allclose(found, b**2)


def test_exactly_two_of_three_jets_are_tagged():
    third = [(PION, 60.0, 1.6, 1.0), (B_HADRON, 50.0, 1.6, 1.0)]
    b = TAG_EFFICIENCY["b"]
    found = chosen(*HIGGS, *JETS, *third)
    np.testing.assert_allclose(found["weight"] / PHOTON_EFFICIENCY**2, 3.0 * b**2 * (1.0 - b))


@pytest.mark.parametrize(
    ("more", "why"),
    [
        ([(MUON, 30.0, 1.5, 2.8)], "a lepton of a W boson"),
        ([(PION, 20.0, 0.3, 0.05)], "a photon in a jet"),
        ([(PION, 60.0, e, 2.8) for e in (-2.3, -1.3, 1.6, 2.4)], "six jets"),
    ],
)
def test_what_is_no_pair_of_bosons_is_refused(more, why):
    assert len(chosen(*HIGGS, *JETS, *more)["weight"]) == 0, why


def test_photons_in_the_crack_soft_ones_and_other_masses_are_refused():
    for photons in (
        [(PHOTON, 80.0, 1.45, 0.0), HIGGS[1]],
        [(PHOTON, 130.0, 0.2, 0.0), (PHOTON, 28.0, -0.5, 2.6)],
        [(PHOTON, 40.0, 0.2, 0.0), (PHOTON, 40.0, -0.5, 1.92)],
    ):
        assert len(chosen(*photons, *JETS)["weight"]) == 0


def test_a_lepton_in_a_b_jet_is_no_reason_to_refuse():
    assert len(chosen(*HIGGS, *JETS, (MUON, 12.0, 0.5, -2.45))["weight"]) == 1


def test_missing_is_what_balances_all_that_is_seen_and_a_neutrino_is_not():
    forward = (PION, 90.0, -4.2, -1.0)
    seen = [particle for particle in (*HIGGS, *JETS, forward) if particle[0] != B_HADRON]
    px, py = (sum(pt * turn(phi) for _, pt, _, phi in seen) for turn in (np.cos, np.sin))
    size, away = np.hypot(px, py), np.arctan2(-py, -px)
    alone, balanced, neutrino = (
        chosen(*HIGGS, *JETS, forward, *more)["met"][0]
        for more in ([], [(PION, size, 4.0, away)], [(NEUTRINO, size, 4.0, away)])
    )
    assert alone == neutrino == pytest.approx(size, abs=30.0)
    assert balanced < 40.0 < size - 40.0


def test_nothing_depends_on_where_the_azimuth_begins():
    turned = [(i, pt, eta, phi + 1.3) for i, pt, eta, phi in (*HIGGS, *JETS)]
    one, other = chosen(*HIGGS, *JETS), chosen(*turned)
    for name in FEATURES:
        if name not in ("met", "phi_met"):  # the noise of the missing momentum does not turn
            np.testing.assert_allclose(one[name], other[name], atol=1e-9, err_msg=name)


@pytest.fixture(scope="module")
def samples():
    return {
        process: select(generate(process, 300, 3), np.random.default_rng(2))
        for process in ("hh", "zh")
    }


def test_the_mass_of_the_photons_is_that_of_the_boson(samples):
    for of in samples.values():
        low, middle, high = np.quantile(of["m_yy"], [0.16, 0.5, 0.84])
        assert middle == pytest.approx(125.0, abs=0.5)
        assert 1.0 < 0.5 * (high - low) < 2.2  # about 1.7 GeV in the experiment


def test_pairs_of_bosons_have_b_quarks_of_a_higher_mass_than_z_bosons(samples):
    middle = {
        name: np.quantile(of["m_bb"], 0.5, weights=of["weight"], method="inverted_cdf")
        for name, of in samples.items()
    }
    assert 95.0 < middle["hh"] < 125.0
    assert 70.0 < middle["zh"] < 91.0


def test_the_acceptance_is_about_that_of_the_experiment(samples):
    """13 % for pairs of bosons (arXiv:2112.11876)."""
    assert samples["hh"]["weight"].sum() / 300 == pytest.approx(0.13, abs=0.03)


def test_a_sample_is_found_again_and_hangs_on_its_seed(tmp_path, monkeypatch):
    monkeypatch.setenv("PFCALIB_CACHE", str(tmp_path))
    config = CandidateConfig(process="zh", n_events=60, chunk=40)
    path = cached_candidates(config)
    time = path.stat().st_mtime_ns
    assert cached_candidates(config) == path
    assert path.stat().st_mtime_ns == time
    made = simulate_candidates(config)
    for name, column in read_candidates(path).items():
        np.testing.assert_array_equal(column, made[name])
    other = CandidateConfig(process="zh", n_events=60, chunk=40, seed=2)
    assert not np.array_equal(simulate_candidates(other)["m_yy"], made["m_yy"])


def test_the_continuum_has_two_photons_and_two_jets():
    found = select(generate("yy", 120, 5), np.random.default_rng(3), any_flavour=True)
    assert len(found["weight"]) > 2
    assert np.all((found["m_yy"] > 105.0) & (found["m_yy"] < 160.0))
    assert np.all(found["n_jets"] >= 2.0)


def test_an_unknown_process_is_refused():
    with pytest.raises(ConfigError, match="hh"):
        CandidateConfig(process="ww")
    assert list(PROCESSES) == ["hh", "tth", "zh", "yy"]
