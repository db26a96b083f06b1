"""Clusters, tracks, and what is made of both."""

from __future__ import annotations

import numpy as np
import pytest

from pfcalib.jets.fastcalo import LOST, PIXELS, Clusters, Tracks, find_clusters, find_tracks
from pfcalib.jets.trackcalo import (
    FLOW_PT,
    flow_objects,
    share_energy,
    subtract_tracks,
    unified_objects,
)
from pfcalib.simulation.particles import Particles
from pfcalib.simulation.tracks import efficiency


def tracks(*rows):
    """Of (pT, eta, phi), straight."""
    pt, eta, phi = np.array(rows, dtype=float).reshape(-1, 3).T
    return Tracks(pt, eta, phi, phi, np.arange(len(pt)))


def clusters(*rows, width=0.03):
    """Of (pT, eta, phi)."""
    pt, eta, phi = np.array(rows, dtype=float).reshape(-1, 3).T
    return Clusters(pt * np.cosh(eta), eta, phi, np.full(len(pt), width))


def polar(momentum):
    px, py, pz, _ = momentum.T
    pt = np.hypot(px, py)
    return pt, np.arcsinh(pz / pt), np.arctan2(py, px)


@pytest.mark.parametrize("turn", [0.0, np.pi])
def test_one_track_gives_a_cluster_its_direction(turn):
    combined, neutral = share_energy(
        tracks((50.0, 0.31, turn + 0.01)), clusters((80.0, 0.3, turn), (20.0, 1.0, turn))
    )
    pt, eta, phi = polar(combined)
    assert (pt[0], eta[0]) == pytest.approx((80.0, 0.31))
    assert np.cos(phi[0] - turn - 0.01) == pytest.approx(1.0)
    assert polar(neutral)[0] == pytest.approx([20.0])


def test_tracks_share_a_cluster_by_their_momenta():
    combined, neutral = share_energy(
        tracks((30.0, 0.01, 0.0), (10.0, -0.01, 0.0)), clusters((100.0, 0.0, 0.0))
    )
    assert polar(combined)[0] == pytest.approx([75.0, 25.0])
    assert len(neutral) == 0


def test_a_track_asks_each_of_its_clusters_by_their_shares():
    # the first track sees both clusters (60 and 40), the second one only the second
    combined, _ = share_energy(
        tracks((30.0, 0.0, 0.0), (10.0, 0.06, 0.0)),
        clusters((60.0, -0.03, 0.0), (40.0, 0.03, 0.0), width=0.03),
    )
    asked = 30.0 * 0.4, 10.0  # of the second cluster
    assert polar(combined)[0] == pytest.approx(
        [60.0 + 40.0 * asked[0] / sum(asked), 40.0 * asked[1] / sum(asked)], rel=1e-3
    )


def test_sharing_keeps_the_energy_and_leaves_out_tracks_without_a_cluster():
    rng = np.random.default_rng(1)
    some = tracks(*np.stack([rng.exponential(20.0, 40) + 1.0, *rng.normal(0, 0.1, (2, 40))], -1))
    cells = clusters(*np.stack([rng.exponential(50.0, 30), *rng.normal(0, 0.1, (2, 30))], -1))
    combined, neutral = share_energy(some, cells)
    pt = np.concatenate([polar(combined)[0], polar(neutral)[0]])
    assert pt.sum() == pytest.approx(polar(cells.momentum)[0].sum(), rel=1e-2)
    assert len(share_energy(tracks((5.0, 0.5, 0.5)), cells)[0]) == 0


def test_flow_takes_soft_tracks_from_clusters_and_leaves_hard_ones():
    some = tracks((10.0, 0.0, 0.0), (FLOW_PT + 60.0, 0.5, 0.0))
    cells = clusters((10.5, 0.0, 0.0), (80.0, 0.5, 0.0), (30.0, 0.0, 1.0))
    flow = subtract_tracks(some, cells)
    assert flow.charged.tolist() == [True, False]
    assert flow.left == pytest.approx([0.0, 80.0 * np.cosh(0.5), 30.0])
    assert np.sort(polar(flow_objects(some, cells, flow))[0]) == pytest.approx([10.0, 30.0, 80.0])
    pt, eta, _ = polar(unified_objects(some, cells._replace(eta=cells.eta + 0.01), flow))
    assert eta[np.argmax(pt)] == pytest.approx(0.5)  # the direction is that of the hard track


def test_what_a_neutral_particle_adds_stays_in_the_flow():
    flow = subtract_tracks(tracks((10.0, 0.0, 0.0)), clusters((60.0, 0.0, 0.0)))
    assert flow.left == pytest.approx([50.0])


def gun(pdg_id, energy, n=1, eta=0.3, phi=3.1):
    return Particles(
        np.zeros(n, int), np.full(n, pdg_id), np.full(n, energy), np.full(n, eta), np.full(n, phi)
    )


@pytest.mark.parametrize(("pdg_id", "energy", "sigma"), [(22, 50.0, 0.0158), (130, 50.0, 0.1070)])
def test_energies_have_the_published_resolution(pdg_id, energy, sigma):
    rng = np.random.default_rng(1)
    sums = [find_clusters(gun(pdg_id, energy), rng).energy.sum() for _ in range(100)]
    assert np.mean(sums) / energy == pytest.approx(1.0, abs=4.0 * sigma / 10.0)
    assert np.std(sums) / energy == pytest.approx(sigma, rel=0.3)


def test_showers_lie_where_their_particle_goes_and_have_their_widths():
    rng = np.random.default_rng(2)
    for pdg_id, low, high in ((22, 0.015, 0.03), (130, 0.03, 0.07)):
        found = [find_clusters(gun(pdg_id, 100.0), rng) for _ in range(100)]
        first = [np.argmax(x.energy) for x in found]
        eta = np.array([x.eta[i] for x, i in zip(found, first, strict=True)])
        phi = np.array([x.phi[i] for x, i in zip(found, first, strict=True)])
        assert np.median(eta) == pytest.approx(0.3, abs=0.01)
        assert np.median(np.remainder(phi, 2 * np.pi)) == pytest.approx(3.1, abs=0.01)
        width = np.median([x.width[i] for x, i in zip(found, first, strict=True)])
        assert low < width < high


def test_the_field_turns_charges_apart():
    rng = np.random.default_rng(3)
    mean = {}
    for charge in (-1, 1):
        found = [find_clusters(gun(211 * charge, 20.0, eta=0.0, phi=1.0), rng) for _ in range(40)]
        mean[charge] = np.mean([np.average(x.phi, weights=x.energy) for x in found])
    assert mean[-1] - mean[1] == pytest.approx(2.0 * 0.45 / 20.0, abs=0.012)


def test_no_particle_makes_no_cluster_and_no_track():
    rng = np.random.default_rng(4)
    assert len(find_clusters(gun(22, 1.0, n=0), rng).energy) == 0
    assert len(find_tracks(gun(211, 1.0, n=0), rng).pt) == 0
    assert len(find_clusters(gun(13, 100.0), rng).energy) == 0  # a muon


def test_tracks_are_lost_where_they_share_pixels():
    rng = np.random.default_rng(5)
    n, apart = 4000, 20.0 * PIXELS[1]
    eta = np.full(n, 0.1)
    phi = apart * np.repeat(np.arange(n // 2), 2)
    particles = gun(211, 10.0, n=n)._replace(eta=eta, phi=phi)
    expected = efficiency(particles.pdg_id, np.full(n, 10.0), eta).mean() * (1.0 - 0.5 * LOST)
    share = len(find_tracks(particles, rng).pt) / n
    assert share == pytest.approx(expected, abs=4.0 * np.sqrt(0.1 / n))
