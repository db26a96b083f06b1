"""The tracker: errors that are what they say, hits where particles were, dense jets, material."""

from __future__ import annotations

import numpy as np
import pytest

from pfcalib.tagging.ftagfiles import PRIMARY
from pfcalib.tagging.jettracks import (
    FAR,
    MATERIAL,
    N_PIXEL,
    Charged,
    interact,
    measure_tracks,
    vertex_numbers,
)
from pfcalib.tagging.perigee import perigee, point_at

KAON, PION = 0.497611, 0.139570  # GeV


def shoot(momentum, position=None, jet=None, pdg_id=211, end=np.inf):
    n = len(momentum)
    return Charged(
        np.arange(n) if jet is None else jet,
        np.zeros((n, 3)) if position is None else position,
        momentum,
        np.ones(n) if np.ndim(pdg_id) == 0 else np.sign(pdg_id).astype(float),
        np.full(n, pdg_id) if np.ndim(pdg_id) == 0 else pdg_id,
        np.full(n, PRIMARY),
        np.full(n, end),
        np.full(n, True),
    )


def spread(rng, n, pt):
    phi = rng.uniform(-np.pi, np.pi, n)
    return np.column_stack([pt * np.cos(phi), pt * np.sin(phi), pt * rng.normal(0.0, 0.7, n)])


@pytest.mark.parametrize("pt", [0.8, 20.0])
def test_lone_tracks_have_the_errors_that_they_say(pt):
    rng = np.random.default_rng(2)
    n = 6000
    momentum = spread(rng, n, pt)
    where = perigee(np.zeros((n, 3)), momentum, np.ones(n))
    tracks = measure_tracks(shoot(momentum), n, rng)
    assert 0.85 < len(tracks.jet) / n < 1.0
    true = np.column_stack([where.phi, np.arctan2(1.0, where.cot_theta)])[tracks.jet]
    pulls = {
        "d0": tracks.d0 / tracks.sigma[:, 0],
        "z0": tracks.z0 * np.sin(tracks.theta) / tracks.sigma[:, 1],
        "phi": (np.remainder(tracks.phi - true[:, 0] + np.pi, 2 * np.pi) - np.pi)
        / tracks.sigma[:, 2],
        "theta": (tracks.theta - true[:, 1]) / tracks.sigma[:, 3],
        "q/p": (tracks.q_over_p - np.sin(true[:, 1]) / pt) / tracks.sigma[:, 4],
    }
    for name, pull in pulls.items():
        low, middle, high = np.quantile(pull, [0.16, 0.5, 0.84])
        # that of the vertex is part of the error, and it is not moved here
        assert 0.75 < 0.5 * (high - low) < 1.12, name
        assert abs(middle) < 0.06, name
    assert (np.abs(pulls["d0"]) > 4.0).mean() > 6e-5  # longer tails than those of a Gaussian


def test_the_impact_parameter_gets_worse_as_published():
    rng = np.random.default_rng(3)
    sigma = {}
    for pt in (0.5, 1.0, 5.0, 100.0):
        tracks = measure_tracks(shoot(np.tile([1.001 * pt, 0.0, 0.0], (500, 1))), 500, rng)
        sigma[pt] = np.median(tracks.sigma[:, 0])
    assert 0.009 < sigma[100.0] < 0.014  # mm
    assert 0.055 < sigma[1.0] < 0.075
    assert sigma[0.5] > 1.8 * sigma[1.0] > 6.0 * sigma[5.0] * 0.9


def test_hits_are_where_the_particle_was():
    rng = np.random.default_rng(4)
    n = 2000
    momentum = np.tile([5.0, 0.0, 1.0], (n, 1))
    late = measure_tracks(shoot(momentum, np.tile([40.0, 0.0, 8.0], (n, 1))), n, rng)
    assert not late.hits[:, 0].any()
    assert late.hits[:, 1:].mean() > 0.95
    early = measure_tracks(shoot(momentum), n, rng)
    assert early.hits[:, 0].mean() > 0.95
    assert len(late.jet) / len(early.jet) == pytest.approx(np.exp(-40.0 / FAR), rel=0.1)
    assert len(measure_tracks(shoot(momentum, end=300.0), n, rng).jet) == 0


def test_particles_that_come_close_share_hits_and_are_lost():
    rng = np.random.default_rng(6)
    n = 1000
    jet = np.repeat(np.arange(n), 2)
    found = {}
    for apart in (1e-4, 1e-2):  # rad
        momentum = np.tile([[100.0, 0.0, 0.0], [100.0, 100.0 * apart, 0.0]], (n, 1))
        tracks = measure_tracks(shoot(momentum, jet=jet), n, rng)
        found[apart] = len(tracks.jet), tracks.shared[:, N_PIXEL:].mean(), tracks.split.mean()
    close, far = found[1e-4], found[1e-2]
    assert close[0] < 0.7 * far[0]
    assert close[1] > 0.9
    assert close[2] > 0.2
    assert far[1:] == (0.0, 0.0)


def test_two_tracks_of_a_kaon_have_its_mass():
    rng = np.random.default_rng(8)
    n = 3000
    p = np.sqrt((KAON / 2.0) ** 2 - PION**2)
    cosine, turn = rng.uniform(-1.0, 1.0, n), rng.uniform(0.0, 2.0 * np.pi, n)
    sine = np.sqrt(1.0 - cosine**2)
    rest = p * np.column_stack([cosine, sine * np.cos(turn), sine * np.sin(turn)])
    gamma = np.hypot(6.0, KAON) / KAON
    beta = np.sqrt(1.0 - gamma**-2)
    energy = np.hypot(p, PION)
    pair = np.stack([rest, -rest], axis=1)  # (n, 2, 3)
    pair[..., 0] = gamma * (pair[..., 0] + beta * energy)
    place = np.column_stack([rng.uniform(5.0, 25.0, n), np.zeros((n, 2))])
    jet, sign = np.repeat(np.arange(n), 2), np.tile([1, -1], n)
    tracks = measure_tracks(
        shoot(pair.reshape(-1, 3), place[jet], jet, 211 * sign), n, rng
    )  # fmt: skip
    both = np.flatnonzero(np.bincount(tracks.jet, minlength=n) == 2)
    rows = np.searchsorted(tracks.jet, both)
    total = np.zeros((len(both), 4))
    for row in (rows, rows + 1):
        pt = np.sin(tracks.theta[row]) / np.abs(tracks.q_over_p[row])
        k = np.sign(tracks.q_over_p[row]) * 2.0 * 0.299792458e-3 / pt
        cot = 1.0 / np.tan(tracks.theta[row])
        # momenta where the kaon decays
        columns = tracks.d0[row], tracks.z0[row], tracks.phi[row], cot, k, tracks.position[row, 0]
        ux, uy = np.array([point_at(*track) for track in zip(*columns, strict=True)])[:, 3:].T
        three = pt[:, None] * np.column_stack([ux, uy, cot])
        total += np.column_stack([np.sqrt(PION**2 + (three**2).sum(1)), three])
    mass = np.sqrt(total[:, 0] ** 2 - (total[:, 1:] ** 2).sum(1))
    assert len(both) > 0.5 * n
    assert np.median(mass) == pytest.approx(KAON, abs=0.003)
    assert np.quantile(np.abs(mass - KAON), 0.68) < 0.02


def test_photons_convert_as_often_as_the_material_says():
    rng = np.random.default_rng(9)
    n = 20_000
    momentum = np.tile([4.0, 0.0, 3.0], (n, 1))
    end, parent, position, new, pdg_id = interact(
        np.zeros((n, 3)), momentum, np.full(n, 22), rng
    )  # fmt: skip
    expected = 1.0 - np.exp(-7.0 / 9.0 * MATERIAL[:, 1].sum() * 1.25)
    assert np.isfinite(end).mean() == pytest.approx(expected, abs=4.0 * np.sqrt(expected / n))
    np.testing.assert_array_equal(parent[::2], parent[1::2])
    np.testing.assert_allclose(new[::2] + new[1::2], momentum[parent[::2]])
    np.testing.assert_array_equal(pdg_id[::2], -pdg_id[1::2])
    np.testing.assert_allclose(np.hypot(position[:, 0], position[:, 1]), end[parent])
    np.testing.assert_allclose(position[:, 2], 0.75 * position[:, 0])
    end, parent, _, _, _ = interact(np.zeros((n, 3)), momentum, np.full(n, 13), rng)
    assert np.isinf(end).all()
    assert len(parent) == 0


def test_vertices_that_are_close_are_one():
    place = np.array([[0.0, 0.0, 0.05], [1.0, 0, 0], [1.0, 0.05, 0], [3.0, 0, 0], [np.nan] * 3])
    number = vertex_numbers(np.array([0, 5]), place, 0.1)
    np.testing.assert_array_equal(number, [0, 1, 1, 2, -2])
