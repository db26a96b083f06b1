"""A session gives a row the same bits whatever was shot before, loses no energy, and agrees with
the packaged reference showers.
"""

import numpy as np
import pytest

from pfcalib.errors import ConfigError
from pfcalib.geometry import BARREL, WINDOW
from pfcalib.samples.packaged import packaged_sample
from pfcalib.samples.showerfile import read_showers
from pfcalib.simulation.geant4.session import PARTICLES, require_rows
from pfcalib.simulation.geant4.shots import build_shots
from pfcalib.simulation.particles import Particles

PER_ROW = ("e_dead", "e_leak", "e_pi0")
PER_HIT = ("cell", "signal", "em", "non_em", "invisible", "escaped")


def row_of(hits, i):
    """All numbers of one row."""
    return [getattr(hits, name)[hits.offsets[i] : hits.offsets[i + 1]] for name in PER_HIT] + [
        getattr(hits, name)[i] for name in PER_ROW
    ]


@pytest.fixture(scope="module")
def job():
    """Two rows of each particle all over the barrel, one of them around the seam in phi, and a muon
    factory: slow pi+.
    """
    rng = np.random.default_rng(7)
    pdg_id = np.array([*np.repeat(list(PARTICLES), 2), 211, 211])
    n = len(pdg_id)
    rows = np.zeros((n, 7))
    rows[:, 1] = rng.uniform(0.8, 2.0, n) + (np.isin(pdg_id, (-2212, -2112)) * 1.5)
    rows[-2:, 1] = 0.3
    rows[:, 2] = np.where(np.arange(n) % 2, np.pi, rng.uniform(-np.pi, np.pi, n))
    eta = rng.uniform(-0.6, 0.6, n)
    rows[:, 3] = 1230.0 * np.sinh(eta)
    rows[:, 4], rows[:, 6] = 1.0 / np.cosh(eta), np.tanh(eta)
    return rows, pdg_id, rng.integers(1, 2**32, (n, 2))


@pytest.fixture(scope="module")
def forward(shoot, job):
    return shoot("barrel", *job)[0]


def test_a_row_gives_the_same_bits_whatever_was_shot_before(shoot, job, forward):
    n = len(job[0])
    parts = [[5, 1], list(range(n - 1, 1, -2)), [0]]
    again = shoot("barrel", *job, parts=parts)
    for part, (hits, _) in zip(parts, again, strict=True):
        for i, row in enumerate(part):
            assert all(
                np.array_equal(a, b)
                for a, b in zip(row_of(hits, i), row_of(forward[0], row), strict=True)
            ), f"row {row}"


def test_no_energy_is_lost(job, forward):
    hits, unattributed = forward
    truth = (
        np.array([sum(part.sum() for part in row_of(hits, i)[2:6]) for i in range(len(job[0]))])
        + hits.e_dead
        + hits.e_leak
    )
    energy = job[0][:, 1]
    assert truth == pytest.approx(energy, rel=1e-5)
    assert energy - truth == pytest.approx(unattributed, abs=1e-12)


def test_truth_is_of_the_right_kind(job, forward):
    hits, pdg_id = forward[0], job[1]
    row = np.repeat(np.arange(len(pdg_id)), np.diff(hits.offsets))
    light = np.isin(pdg_id, (22, 11, -11, 111))
    for name in ("non_em", "invisible", "escaped"):
        assert not getattr(hits, name)[light[row]].any(), name
    assert not hits.e_pi0[light].any()
    for name in ("em", "non_em", "invisible"):
        assert getattr(hits, name)[~light[row]].sum() > 0.0, name
    assert hits.escaped.sum() > 0.02  # each stopped pi+ gives about 100 MeV to neutrinos
    assert (hits.em >= 0.0).all()
    assert (hits.non_em >= 0.0).all()
    assert (hits.escaped >= 0.0).all()
    assert hits.e_pi0[~light].sum() > 0.0


def test_hits_are_sorted_and_stand_where_the_particle_went(job, forward):
    hits, (rows, pdg_id, _) = forward[0], job
    eta_axis = np.arcsinh(rows[:, 3] / 1230.0)
    for i in range(len(rows)):
        width = 0.1 if pdg_id[i] in (22, 11, -11, 111) else 0.3
        cell, signal = row_of(hits, i)[:2]
        assert (np.diff(cell) > 0).all()
        if signal.sum() > 0.1:
            d_phi = np.angle(np.sum(signal * np.exp(1j * (BARREL.phi[cell] - rows[i, 2]))))
            assert abs(d_phi) < width, f"row {i}"
            assert abs(np.average(BARREL.eta[cell], weights=signal) - eta_axis[i]) < width, (
                f"row {i}"
            )


def test_signals_do_not_depend_on_whether_truth_is_scored(shoot, job, forward):
    rows, pdg_id, seeds = (column[:6] for column in job)
    bare, unattributed = shoot("barrel", rows, pdg_id, seeds, calibration_truth=False)[0]
    assert unattributed == pytest.approx(rows[:, 1])
    for i in range(6):
        full = row_of(forward[0], i)
        seen, found = full[1] > 0.0, row_of(bare, i)
        assert np.array_equal(full[0][seen], found[0][found[1] > 0.0])
        assert full[1][seen] == pytest.approx(found[1][found[1] > 0.0], rel=1e-12)


def test_bad_rows_are_refused(job):
    rows, pdg_id, seeds = job
    with pytest.raises(ConfigError, match=r"expected rows \(n, 7\)"):
        require_rows(rows[:, :6], pdg_id, seeds)
    with pytest.raises(ConfigError, match=r"not \[3122\]"):
        require_rows(rows, np.where(pdg_id == 22, 3122, pdg_id), seeds)
    with pytest.raises(ConfigError, match="row 3: seeds"):
        require_rows(rows, pdg_id, np.where(np.arange(len(seeds))[:, None] == 3, 0, seeds))
    with pytest.raises(ConfigError, match="row 0: needs finite"):
        require_rows(rows * np.array([1.0, np.nan, 1.0, 1.0, 1.0, 1.0, 1.0]), pdg_id, seeds)
    with pytest.raises(ConfigError, match=r"above 0\.13958"):
        require_rows(np.where(np.arange(7) == 1, 0.13, rows), np.full(len(rows), 211), seeds)


@pytest.fixture(scope="module")
def reference(shoot):
    """Packaged showers of 1 to 2 GeV pions, and the same pions shot anew: {pdg_id: (signal by layer
    of old and of new showers, energies)}.
    """
    showers, _ = read_showers(packaged_sample("geant4_pions"), WINDOW)
    found = {}
    for pdg_id, n in ((111, 90), (211, 90)):
        chosen = np.flatnonzero(
            (showers.pdg_id == pdg_id) & (showers.e_true > 1.0) & (showers.e_true < 2.0)
        )[:n]
        assert len(chosen) == n
        old = showers.select(np.isin(np.arange(len(showers.e_true)), chosen))
        particles = Particles(np.arange(n), old.pdg_id, old.e_true, old.eta, old.phi)
        shots = build_shots(particles, np.random.default_rng(pdg_id))
        hits, _ = shoot("window", shots.rows, shots.pdg_id, shots.seeds, calibration_truth=False)[0]
        event = np.repeat(shots.event, np.diff(hits.offsets))
        new = by_layer(event, hits.cell, hits.signal, n)
        found[pdg_id] = (
            by_layer(np.repeat(np.arange(n), np.diff(old.offsets)), old.cell, old.signal, n),
            new,
            old.e_true,
        )
    return found


def by_layer(event, cell, signal, n):
    """Signal (n, n_layers) of events."""
    return np.bincount(
        event * WINDOW.n_layers + WINDOW.layer[cell], signal, n * WINDOW.n_layers
    ).reshape(n, -1)


@pytest.mark.parametrize("pdg_id", [111, 211])
def test_new_showers_are_those_of_the_packaged_reference(reference, pdg_id):
    old, new, energy = reference[pdg_id]
    responses = [signal.sum(axis=1) / energy for signal in (old, new)]
    shares = [signal / np.maximum(signal.sum(axis=1, keepdims=True), 1e-3) for signal in (old, new)]
    for name, (a, b) in {
        "response": responses,
        **{layer.name: (shares[0][:, i], shares[1][:, i]) for i, layer in enumerate(WINDOW.layers)},
    }.items():
        error = np.hypot(a.std(), b.std()) / np.sqrt(len(energy))
        assert abs(a.mean() - b.mean()) <= 3.0 * error + 1e-4, (
            f"{name}: {a.mean():.4f}, now {b.mean():.4f} +- {error:.4f}"
        )
