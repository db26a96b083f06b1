"""A cluster belongs to the nearest particle of its own event, across phi = pi too."""

import numpy as np
import pytest

from pfcalib.samples.layouts.events import makes_clusters, nearest_particle


def nearest_slowly(event, eta, phi, particle_event, particle_eta, particle_phi):
    """One cluster and one particle after the other."""
    best = []
    for e, y, f in zip(event, eta, phi, strict=True):
        distances = [
            np.hypot(y - q, np.angle(np.exp(1j * (f - r)))) if p == e else np.inf
            for p, q, r in zip(particle_event, particle_eta, particle_phi, strict=True)
        ]
        best.append(int(np.argmin(distances)) if np.isfinite(distances).any() else -1)
    return best


@pytest.mark.parametrize("turns", [0, 1, -2])
def test_the_nearest_particle_is_that_of_a_slow_search(rng, turns):
    event, particle_event = np.sort(rng.integers(0, 30, 200)), np.sort(rng.integers(0, 33, 60))
    eta, particle_eta = rng.normal(0.0, 1.0, 200), rng.normal(0.0, 3.0, 60)
    phi, particle_phi = (
        rng.uniform(-np.pi, np.pi, 200) + 2.0 * np.pi * turns,
        rng.uniform(-np.pi, np.pi, 60),
    )
    phi[:3] = np.pi, -np.pi, np.float32(np.pi)
    found = nearest_particle(event, eta, phi, particle_event, particle_eta, particle_phi)
    assert found.tolist() == nearest_slowly(
        event, eta, phi, particle_event, particle_eta, particle_phi
    )
    assert np.sum(found < 0) > 0, "some events have no particle"


def test_a_particle_along_the_beam_or_of_no_direction_is_not_in_the_way():
    zero = np.zeros(3, dtype=np.int64)
    found = nearest_particle(
        zero[:1],
        np.array([0.5]),
        np.array([0.0]),
        zero,
        np.array([np.nan, 1e30, 0.0]),
        np.array([0.0, 0.0, 3.0]),
    )
    assert found.tolist() == [2]
    assert nearest_particle(
        zero[:1], np.zeros(1), np.zeros(1), zero[:0], np.zeros(0), np.zeros(0)
    ).tolist() == [-1]
    assert nearest_particle(
        zero[:1], np.array([np.nan]), np.zeros(1), zero, np.zeros(3), np.zeros(3)
    ).tolist()[0] in (0, 1, 2)


def test_stable_particles_make_clusters_and_neutrinos_do_not():
    event = np.array([0, 0, 0, 0, 1, 1])
    flags = {
        "pdg_id": np.array([15, 211, -16, 22, 111, 111]),
        "status": np.array([2, 1, 1, 1, 2, 2]),
        "barcode": np.array([1, 2, 3, 200001, 1, 2]),
    }
    assert makes_clusters(event, **flags).tolist() == [False, True, False, False, True, True]
    assert makes_clusters(event).all()
