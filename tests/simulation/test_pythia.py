"""Dijets balance, stay in their range of pT-hat, keep the energy that can be seen, and come again
with the same seed.
"""

import dataclasses
import sys

import awkward as ak
import numpy as np
import pytest

from pfcalib.errors import ConfigError
from pfcalib.simulation.particles import Particles, propagate
from pfcalib.simulation.pythia import (
    MIN_ENERGY,
    DijetConfig,
    generate_dijets,
    require_pythia,
    simulate_dijets,
    visible_particles,
)
from pfcalib.simulation.showers import SHOWERING
from pfcalib.simulation.species import PROTON_MASS

CONFIG = DijetConfig()
N, FIELD = 150, 2.0


@pytest.fixture(scope="module")
def events():
    return generate_dijets(N, 4, CONFIG)


@pytest.fixture(scope="module")
def final(events):
    return events.prt[events.prt.status > 0]


@pytest.fixture(scope="module")
def particles(events):
    return visible_particles(events, eta_max=0.8)


def record(*rows):
    """One event a row; a row is a list of (pdg_id, status, px, py, pz, e)."""
    names = ("id", "status", "px", "py", "pz", "e")
    columns = {
        name: ak.Array([[entry[i] for entry in row] for row in rows])
        for i, name in enumerate(names)
    }
    momentum = ak.zip({name: columns[name] for name in names[2:]})
    return ak.zip(
        {
            "prt": ak.zip(
                {"id": columns["id"], "status": columns["status"], "p": momentum}, depth_limit=2
            )
        },
        depth_limit=1,
    )


class TestHardScattering:
    def test_energy_and_momentum_of_the_final_particles_are_those_of_the_protons(self, final):
        np.testing.assert_allclose(ak.sum(final.p.e, axis=1), CONFIG.sqrt_s, rtol=1e-6)
        for name in ("px", "py", "pz"):
            np.testing.assert_allclose(ak.sum(final.p[name], axis=1), 0.0, atol=1e-3)

    def test_its_two_partons_are_back_to_back_central_and_have_the_transverse_momentum_asked_for(
        self, events
    ):
        out = events.prt[events.prt.status == -23]
        assert np.all(ak.num(out.id) == 2)
        px, py, pz = (ak.to_numpy(out.p[name]) for name in ("px", "py", "pz"))
        pt = np.hypot(px, py)
        np.testing.assert_allclose(px.sum(axis=1), 0.0, atol=1e-6)
        np.testing.assert_allclose(py.sum(axis=1), 0.0, atol=1e-6)
        assert np.all((pt > CONFIG.pt_hat_min) & (pt < CONFIG.pt_hat_max))
        np.testing.assert_allclose(pt[:, 0], np.sqrt(events.info.pT2Hat), rtol=1e-3)
        assert np.abs(np.arcsinh(pz / pt)).max() <= CONFIG.eta_parton

    def test_its_spectrum_is_about_flat_in_the_logarithm(self, events):
        place = np.log(np.sqrt(ak.to_numpy(events.info.pT2Hat)) / CONFIG.pt_hat_min) / np.log(
            CONFIG.pt_hat_max / CONFIG.pt_hat_min
        )
        assert abs(place.mean() - 0.5) < 0.05 + 4.0 * np.sqrt(1.0 / 12.0 / N)
        counts = np.histogram(place, 3, (0.0, 1.0))[0]
        assert counts.min() > 0.5 * N / 3.0


class TestParticles:
    def test_they_hold_the_transverse_momentum_of_the_scattering(self, events, particles):
        seen = np.bincount(particles.event, particles.energy / np.cosh(particles.eta), N)
        wanted = 2.0 * np.sqrt(ak.to_numpy(events.info.pT2Hat))
        hard = wanted > 150.0
        # the underlying event adds some 20 GeV
        assert 0.8 < np.median(seen[hard] / wanted[hard]) < 1.4

    def test_jets_are_back_to_back(self, events, particles):
        """Seen from the first parton, energy gathers at 0 and pi, not in between."""
        out = events.prt[events.prt.status == -23]
        axis = np.arctan2(ak.to_numpy(out.p.py), ak.to_numpy(out.p.px))[:, 0]
        away = np.abs(np.angle(np.exp(1j * (particles.phi - axis[particles.event]))))
        pt = particles.energy / np.cosh(particles.eta)
        near, side, far = (
            pt[(away >= low) & (away < high)].sum()
            for low, high in ((0.0, 0.6), (1.2, 1.8), (np.pi - 0.6, np.pi))
        )
        assert min(near, far) > 5.0 * side
        assert near == pytest.approx(far, rel=0.2)

    def test_they_carry_nearly_all_that_is_not_a_neutrino(self, final, particles):
        known = ak.unflatten(
            np.isin(ak.to_numpy(ak.flatten(final.id)), list(SHOWERING)), ak.num(final.id)
        )
        inside = np.abs(np.arcsinh(final.p.pz / np.hypot(final.p.px, final.p.py))) < CONFIG.eta_max
        assert particles.energy.sum() == pytest.approx(
            float(ak.sum(final.p.e[known & inside])), rel=0.05
        )
        assert set(np.abs(ak.to_numpy(ak.flatten(final.id[~known]))).tolist()) <= {12, 14, 16}

    def test_pions_outnumber_all_else_and_are_of_all_charges_alike(self, particles):
        share = {kind: np.mean(particles.pdg_id == kind) for kind in (111, 211, -211)}
        assert sum(share.values()) > 0.7
        assert share[211] == pytest.approx(share[-211], rel=0.15)
        assert set(np.unique(particles.pdg_id).tolist()) <= SHOWERING

    def test_every_event_has_some_and_events_are_sorted(self, particles):
        np.testing.assert_array_equal(np.unique(particles.event), np.arange(N))
        assert np.all(np.diff(particles.event) >= 0)

    def test_what_curls_up_in_the_field_or_leaves_the_barrel_is_left_out(self, events, particles):
        bent = visible_particles(events, eta_max=0.8, field=FIELD)
        assert propagate(bent, field=FIELD).reaches.all()
        assert 0.7 * len(particles.event) < len(bent.event) < len(particles.event)
        assert np.abs(particles.eta).max() < 0.8
        assert np.abs(visible_particles(events, eta_max=0.3).eta).max() < 0.3


@pytest.mark.parametrize(
    ("pdg_id", "mass"),
    [
        (13, 0.10566),
        (211, 0.13957),
        (-321, 0.49368),
        (130, 0.49761),
        (2212, PROTON_MASS),
        (-2112, PROTON_MASS),
        (111, 0.13498),
    ],
)
def test_a_particle_keeps_its_kind_direction_and_energy(pdg_id, mass):
    p = np.sqrt(25.0 - mass**2)
    kept = visible_particles(record([(pdg_id, 1, 0.0, p, 0.0, 5.0)]), eta_max=0.8)
    assert kept.pdg_id.tolist() == [pdg_id]
    assert kept.energy[0] == pytest.approx(5.0)
    assert (kept.eta[0], kept.phi[0]) == pytest.approx((0.0, np.pi / 2.0))


def test_soft_invisible_decayed_and_forward_particles_are_dropped():
    rows = [
        (14, 1, 5.0, 0.0, 0.0, 5.0),
        (12, 1, 5.0, 0.0, 0.0, 5.0),
        (22, -1, 5.0, 0.0, 0.0, 5.0),
        (22, 1, 5.0, 0.0, 50.0, 50.2),
    ]
    rows += [
        (22, 1, 0.9 * MIN_ENERGY, 0.0, 0.0, 0.9 * MIN_ENERGY),
        (2112, 1, 0.3, 0.0, 0.0, 0.985),
        (22, 1, 0.0, 0.0, 9.0, 9.0),
    ]
    kept = visible_particles(record(rows, [(22, 1, 1.0, 0.0, 0.0, 1.0)]), eta_max=0.8)
    assert (kept.event.tolist(), kept.pdg_id.tolist()) == ([1], [22])


class TestSeed:
    def test_the_same_seed_makes_the_same_particles_whatever_came_before(self):
        few = [
            simulate_dijets(5, np.random.default_rng(seed), CONFIG, field=FIELD)
            for seed in (1, 2, 1)
        ]
        for name in Particles._fields:
            np.testing.assert_array_equal(
                getattr(few[0], name), getattr(few[2], name), err_msg=name
            )
        assert not np.isin(few[1].energy, few[0].energy).any()


def test_a_missing_extra_is_told(monkeypatch):
    monkeypatch.setitem(sys.modules, "pythia8mc", None)
    with pytest.raises(ConfigError, match=r"pip install 'pfcalib\[pythia\]'"):
        simulate_dijets(1, np.random.default_rng(1))
    with pytest.raises(ConfigError, match="pythia8mc"):
        require_pythia()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"pt_hat_min": 300.0}, "pt_hat must satisfy 5 GeV <= pt_hat_min < pt_hat_max"),
        ({"pt_hat_min": 1.0}, "pt_hat must satisfy 5 GeV"),
        ({"pt_hat_max": 7000.0}, "pt_hat must satisfy 5 GeV"),
        ({"eta_max": 0.9}, r"eta_max must lie in \(0, 0\.8\], the barrel, not 0\.9"),
        ({"eta_parton": 0.9}, r"eta_parton must lie in \(0, eta_max = 0\.8\], not 0\.9"),
        ({"eta_parton": 0.0}, "eta_parton must lie in"),
    ],
)
def test_impossible_settings_are_refused_by_name(options, message):
    with pytest.raises(ConfigError, match=message):
        dataclasses.replace(CONFIG, **options)
