"""Vertices in jets: the fit against a general minimiser, decays at known places, what is vetoed."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.optimize import minimize

from pfcalib.tagging.ftagfiles import FROM_B, JETS, PRIMARY, TaggedJets, structure
from pfcalib.tagging.jettracks import Charged, measure_tracks
from pfcalib.tagging.perigee import curvature, perigee, point_at
from pfcalib.tagging.secondary import (
    COLUMNS,
    MUON_COLUMNS,
    find_vertices,
    fit_vertex,
    muon_columns,
    vertex_columns,
)
from pfcalib.tagging.trackjets import _table

PION = 0.13957


def jets_with_decays(n, n_displaced, length, seed=1, mass=None, muon=False, width=0.12):
    """Jets of 60 GeV along x with five prompt tracks and some from one vertex on the axis."""
    rng = np.random.default_rng(seed)
    jets = np.zeros(n, structure(JETS))
    jets["pt"], jets["energy"] = 60.0, 60.0
    places, momenta, origins = [], [], []
    for i in range(5 + n_displaced):
        decays = i >= 5
        p = rng.uniform(2.0, 8.0, n)
        angles = rng.normal(0.0, width if decays else 0.1, (n, 2))
        momentum = p[:, None] * np.column_stack([np.ones(n), angles])
        if mass is not None and decays:  # two pions of a particle of 8 GeV
            if i == 5:
                half = np.sqrt(0.25 * mass**2 - PION**2)
                cosine, turn = rng.uniform(-0.8, 0.8, n), rng.uniform(0.0, 2.0 * np.pi, n)
                sine = np.sqrt(1.0 - cosine**2)
                rest = half * np.column_stack([cosine, sine * np.cos(turn), sine * np.sin(turn)])
            gamma, sign = np.hypot(8.0, mass) / mass, 1.0 if i == 5 else -1.0
            momentum = sign * rest
            beta = np.sqrt(1.0 - gamma**-2)
            momentum[:, 0] = gamma * (momentum[:, 0] + beta * 0.5 * mass)
        momenta.append(momentum)
        places.append(np.tile([length, 0.0, 0.0] if decays else [0.0, 0.0, 0.0], (n, 1)))
        origins.append(np.full(n, FROM_B if decays else PRIMARY))
    order = np.argsort(np.tile(np.arange(n), len(momenta)), kind="stable")
    charge = np.resize([1.0, -1.0], len(momenta))
    pdg_id = np.repeat(np.full(len(momenta), 211) * charge.astype(int), n)
    if muon:
        pdg_id[-n:] = -13 * np.sign(pdg_id[-n:])
    particles = Charged(
        np.tile(np.arange(n), len(momenta))[order], np.concatenate(places)[order],
        np.concatenate(momenta)[order], np.repeat(charge, n)[order], pdg_id[order],
        np.concatenate(origins)[order], np.full(len(order), np.inf), np.full(len(order), True),
    )  # fmt: skip
    axis = np.column_stack([jets["pt"], np.zeros((n, 2))]).astype(float)
    tracks = _table(jets, axis, measure_tracks(particles, n, rng))
    return TaggedJets(jets, tracks)


def test_the_fit_is_the_least_of_chi2():
    rng = np.random.default_rng(3)
    for _ in range(5):
        n = 4
        momentum = np.column_stack(
            [rng.uniform(2.0, 9.0, n), rng.normal(0.0, 0.6, n), rng.normal(0.0, 0.6, n)]
        )
        true = np.array([4.0, 0.2, -0.3])
        charge = np.array([1.0, -1.0, 1.0, -1.0])
        where = perigee(true + rng.normal(0.0, 0.02, (n, 3)), momentum, charge)
        k = curvature(where.pt, charge)
        # far innermost hits and sure angles: errors do not change along the track
        far = np.tile([0.02, 0.07, 0.0, 0.0, 1e9], (n, 1))
        tracks = np.column_stack([where.d0, where.z0, where.phi, where.cot_theta, k, where.pt, far])
        found, _, chi2, good = fit_vertex(tracks, np.zeros(3))
        assert good

        def total(v, tracks=tracks):
            # distance to the nearest point of each helix, across and along the beam
            answer = 0.0
            for d0, z0, phi, cot, k in tracks[:, :5]:
                s = v[0] * np.cos(phi) + v[1] * np.sin(phi)
                for _ in range(6):
                    x, y, z, ux, uy = point_at(d0, z0, phi, cot, k, s)
                    s += ((v[0] - x) * ux + (v[1] - y) * uy + (v[2] - z) * cot) / (1.0 + cot**2)
                x, y, z, ux, uy = point_at(d0, z0, phi, cot, k, s)
                sine = 1.0 / np.sqrt(1.0 + cot**2)
                across = -uy * (v[0] - x) + ux * (v[1] - y)
                along = -cot * sine * (ux * (v[0] - x) + uy * (v[1] - y)) + sine * (v[2] - z)
                answer += (across / 0.02) ** 2 + (along / 0.07) ** 2
            return answer

        best = minimize(total, true, method="Nelder-Mead", options={"xatol": 1e-7, "fatol": 1e-9})
        np.testing.assert_allclose(found, best.x, atol=2e-3)
        assert chi2.sum() == pytest.approx(best.fun, rel=1e-3)


@pytest.mark.parametrize(("length", "width"), [(4.0, 0.12), (25.0, 0.06)])
def test_decays_are_found_where_they_are(length, width):
    sample = jets_with_decays(400, 3, length, width=width)
    vertices = find_vertices(sample)
    columns = vertex_columns(vertices)
    found = np.isfinite(vertices.position[:, 0])
    assert found.mean() > (0.8 if length < 10.0 else 0.6)
    off = vertices.position[found, 0] - length
    assert abs(np.median(off)) < 0.05 + 0.005 * length
    assert np.quantile(np.abs(off), 0.68) < 0.6 + 0.02 * length
    pull = off / (columns["SV1_L3d"][found] / columns["SV1_significance3d"][found])
    assert 0.5 < np.quantile(np.abs(pull), 0.68) < 1.4
    origin = sample.tracks["ftagTruthOriginLabel"][vertices.in_vertex]
    assert (origin == FROM_B).mean() > 0.9
    assert (columns["SV1_NGTinSvx"][found] >= 2).all()
    assert (columns["SV1_deltaR"][found] < 0.3).mean() > 0.9
    assert set(columns) == set(COLUMNS)
    assert not vertices.columns[~found].any()


def test_prompt_jets_and_kaons_have_no_vertex_and_masses_are_right():
    prompt = find_vertices(jets_with_decays(600, 0, 0.0, seed=2))
    assert np.isfinite(prompt.position[:, 0]).mean() < 0.05
    shares = {}
    for mass in (0.49761, 1.2):
        vertices = find_vertices(jets_with_decays(400, 2, 6.0, seed=3, mass=mass))
        found = np.isfinite(vertices.position[:, 0])
        shares[mass] = found.mean()
    assert shares[1.2] > 0.6
    assert shares[0.49761] < 0.25
    masses = vertices.columns[found, 0]
    assert np.median(masses) == pytest.approx(1.2, abs=0.05)


def test_vertices_do_not_depend_on_where_the_jet_points():
    sample = jets_with_decays(100, 3, 5.0, seed=4)
    before = find_vertices(sample)
    sample.jets["phi"] += 1.0  # tracks know their angle to the jet
    after = find_vertices(sample)
    np.testing.assert_array_equal(before.columns, after.columns)


def test_muons_are_told():
    sample = jets_with_decays(200, 2, 3.0, seed=5, muon=True)
    columns = muon_columns(sample)
    there = columns["softMuon_pt"] > 0.0
    assert 0.5 < there.mean() < 0.95
    row = int(np.argmax(there))
    track = sample.tracks[row][sample.tracks["leptonID"][row] == 13][0]
    assert columns["softMuon_pt"][row] == pytest.approx(track["pt"])
    # across an axis along x
    expected = track["pt"] * np.hypot(np.sin(track["dphi"]), np.sinh(track["deta"]))
    assert columns["softMuon_pTrel"][row] == pytest.approx(expected, rel=1e-4)
    assert set(columns) == set(MUON_COLUMNS)
    assert all((columns[name][~there] == 0.0).all() for name in MUON_COLUMNS)
