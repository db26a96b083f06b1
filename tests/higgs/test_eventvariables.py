"""Quantities of events are those of closed formulas and do not hang on where azimuths begin."""

import numpy as np
import pytest

from pfcalib.higgs.candidates import M_T, M_W
from pfcalib.higgs.eventvariables import (
    VARIABLES,
    assign,
    event_variables,
    four_momenta,
    fox_wolfram,
    momentum_tensor,
    neutrino,
)
from pfcalib.higgs.topevents import MAX_JETS, TopEvents


def along(*directions):
    """One event of massless objects of 1 GeV."""
    p = np.array(directions, dtype=float)
    p /= np.linalg.norm(p, axis=1)[:, None]
    return np.concatenate([p, np.ones((len(p), 1))], axis=1)[None]


def sample(n=50, seed=1, turn=0.0):
    rng = np.random.default_rng(seed)
    n_jets = rng.integers(6, MAX_JETS + 1, n)
    there = np.arange(MAX_JETS) < n_jets[:, None]
    pt = -np.sort(-rng.exponential(60.0, (n, MAX_JETS)), axis=1) + 25.0
    phi = rng.uniform(-np.pi, np.pi, (n, MAX_JETS)) + turn
    jets = np.stack([pt, rng.normal(0.0, 1.0, (n, MAX_JETS)), phi, 0.1 * pt], -1) * there[..., None]
    tag = np.where(np.arange(MAX_JETS) < 4, 3, rng.integers(0, 5, (n, MAX_JETS))) * there
    lepton = np.stack(
        [rng.uniform(27, 90, n), rng.normal(0, 1, n), rng.uniform(-3, 3, n) + turn], -1
    )
    missing = np.stack([rng.uniform(5, 90, n), rng.uniform(-3, 3, n) + turn], -1)
    return TopEvents(jets, tag, lepton, missing, np.zeros(n, int), np.ones(n), np.array([n]))


def test_there_are_thirty_eight_finite_quantities():
    table = event_variables(sample())
    assert len(VARIABLES) == 38
    assert table.shape == (50, 38)
    assert np.isfinite(table).all()
    assert event_variables(sample(n=0)).shape == (0, 38)


def test_nothing_depends_on_where_the_azimuth_begins_or_on_the_other_events():
    table = event_variables(sample())
    np.testing.assert_allclose(table, event_variables(sample(turn=1.1)), rtol=1e-3, atol=1e-4)
    some = sample()
    half = TopEvents(*(column[20:] for column in some[:-1]), some.tried)
    np.testing.assert_array_equal(table[20:], event_variables(half))


@pytest.mark.parametrize(
    ("directions", "sphericity", "aplanarity"),
    [
        ([(1, 0, 0), (-1, 0, 0)], 0.0, 0.0),
        ([(1, 0, 0), (-0.5, 3**0.5 / 2, 0), (-0.5, -(3**0.5) / 2, 0)], 0.75, 0.0),
        ([(1, 0, 0), (-1, 0, 0), (0, 1, 0), (0, -1, 0), (0, 0, 1), (0, 0, -1)], 1.0, 0.5),
    ],
)
def test_shapes_of_a_line_a_plane_and_a_sphere(directions, sphericity, aplanarity):
    eigen = momentum_tensor(along(*directions))[0]
    assert 1.5 * eigen[:2].sum() == pytest.approx(sphericity, abs=1e-12)
    assert 1.5 * eigen[0] == pytest.approx(aplanarity, abs=1e-12)
    assert eigen.sum() == pytest.approx(1.0)


def test_fox_wolfram_moments_of_two_objects_are_legendre_polynomials():
    """(1 + P_l(cos)) / 2; back to back the odd ones vanish and the even ones are 1."""
    cosine = 0.3
    x = cosine
    two = along((1, 0, 0), (cosine, np.sqrt(1 - cosine**2), 0))
    legendre = [x, (3 * x**2 - 1) / 2, (5 * x**3 - 3 * x) / 2, (35 * x**4 - 30 * x**2 + 3) / 8]
    np.testing.assert_allclose(fox_wolfram(two)[0], 0.5 + 0.5 * np.array(legendre))
    np.testing.assert_allclose(
        fox_wolfram(along((0, 0, 1), (0, 0, -1)))[0], [0, 1, 0, 1], atol=1e-12
    )
    padded = np.concatenate([two, np.zeros((1, 3, 4))], axis=1)
    np.testing.assert_allclose(fox_wolfram(padded), fox_wolfram(two))


def test_fox_wolfram_moments_do_not_turn():
    rng = np.random.default_rng(2)
    p = rng.normal(size=(4, 7, 3))
    turn, _ = np.linalg.qr(rng.normal(size=(3, 3)))
    one, other = (
        fox_wolfram(np.concatenate([q, np.linalg.norm(q, axis=-1, keepdims=True)], -1))
        for q in (p, p @ turn)
    )
    np.testing.assert_allclose(one, other, atol=1e-12)


def test_a_neutrino_makes_a_w_boson():
    lepton = four_momenta(sample())[1]
    missing = np.stack([np.full(50, 20.0), np.linspace(-20, 20, 50)], -1)
    w = lepton + neutrino(lepton, missing)
    mass = np.sqrt(np.maximum(w[:, 3] ** 2 - np.sum(w[:, :3] ** 2, axis=1), 0.0))
    mt = np.sqrt(
        2 * (np.hypot(*lepton[:, :2].T) * np.hypot(*missing.T) - np.sum(lepton[:, :2] * missing, 1))
    )
    np.testing.assert_allclose(mass[mt < M_W], M_W, rtol=1e-6)
    assert np.count_nonzero(mt < M_W) > 10


def two_body(mass, masses, momentum, direction):
    """Momenta of the two products of a decay of something of a mass and a momentum (3,)."""
    a, b = masses
    e1 = (mass**2 + a**2 - b**2) / (2 * mass)
    p = np.sqrt(e1**2 - a**2)
    energy = np.hypot(mass, np.linalg.norm(momentum))
    found = []
    for e, sign in ((e1, 1), (mass - e1, -1)):
        q = sign * p * direction
        gamma, beta = energy / mass, momentum / energy
        along_beta = q @ beta
        shift = (gamma - 1) * along_beta / max(beta @ beta, 1e-12) + gamma * e
        found.append(np.array([*(q + shift * beta), gamma * (e + along_beta)]))
    return found


def test_the_right_assignment_is_found_whatever_the_order_of_the_jets():
    rng = np.random.default_rng(4)
    right = 0
    for _ in range(40):
        turn = rng.normal(size=(5, 3))
        turn /= np.linalg.norm(turn, axis=1)[:, None]
        b_had, w_had = two_body(M_T, (0.0, M_W), rng.normal(0, 60, 3), turn[0])
        b_lep, w_lep = two_body(M_T, (0.0, M_W), rng.normal(0, 60, 3), turn[1])
        q1, q2 = two_body(M_W, (0.0, 0.0), w_had[:3], turn[2])
        lepton, nu = two_body(M_W, (0.0, 0.0), w_lep[:3], turn[3])
        h1, h2 = two_body(125.0, (0.0, 0.0), rng.normal(0, 60, 3), turn[4])
        jets = np.stack([b_had, b_lep, h1, h2, q1, q2])
        order = rng.permutation(6)
        tag = np.array([4, 4, 4, 4, 0, 0])
        found = assign(jets[None, order], tag[None, order], lepton[None], nu[None, :2])
        assert found.tags[0] == 8
        right += np.allclose(found.higgs[0].sum(axis=0), h1 + h2)
    assert right > 30  # the neutrino has two solutions
