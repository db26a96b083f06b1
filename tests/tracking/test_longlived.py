"""Particles that begin away from the beam: mass, lifetime and helices are right, and hits of others
stay.
"""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from pfcalib.errors import ConfigError
from pfcalib.tracking.barrelhits import CURVATURE, NOISE, RADII, simulate_barrel_events
from pfcalib.tracking.beamline import M_PION
from pfcalib.tracking.longlived import LongLivedConfig, simulate_decays, simulate_long_lived
from pfcalib.tracking.trackfinder import circle

CONFIG = LongLivedConfig(n_events=2, n_tracks=60, n_decays=200, chunk=2, seed=4)


def test_two_pions_have_the_mass_and_the_flight_of_what_decayed(rng):
    decays = simulate_decays(20_000, rng, CONFIG)
    energy = np.sqrt(np.sum(decays.momenta**2, axis=-1) + M_PION**2).sum(axis=1)
    total = decays.momenta.sum(axis=1)
    momentum = np.linalg.norm(total, axis=1)
    assert np.sqrt(energy**2 - momentum**2) == pytest.approx(CONFIG.mass, rel=1e-6)
    flight = np.linalg.norm(decays.place, axis=1)
    assert np.cross(total, decays.place) == pytest.approx(0.0, abs=1e-9 * flight.max() * 200.0)
    own = flight * CONFIG.mass / momentum
    assert own.mean() == pytest.approx(CONFIG.lifetime, rel=5.0 / np.sqrt(20_000))
    assert np.hypot(*total[:, :2].T).min() >= CONFIG.decay_pt_min - 1e-9


def test_hits_lie_outside_of_the_decay_on_a_circle_that_begins_there():
    quiet = dataclasses.replace(
        CONFIG, thickness=0.0, resolution=(1e-6, 1e-6), efficiency=1.0, noise=0.0
    )
    events, began = simulate_long_lived(quiet, 0)
    event = np.repeat(np.arange(2), events.n_hits)
    of = event * events.n_particles[0] + events.particle
    late = np.flatnonzero(began > 40.0)
    checked = 0
    for i in late:
        mine = np.flatnonzero(of == i)
        mine = mine[np.argsort(events.layer[mine])]
        assert (np.array(RADII)[events.layer[mine]] > began[i]).all()
        if len(mine) > 4 and events.pt[i] > 0.5:
            a, b, c = events.position[mine[[0, 2, -1]]].astype(np.float64)
            curve, x, y = circle(a, b, c)
            assert abs(curve) == pytest.approx(CURVATURE * 2.0 / events.pt[i], rel=2e-3)
            assert -np.sign(curve) == events.charge[i]
            # the circle reaches the distance at which the particle begins
            assert abs(np.hypot(x, y) - 1.0 / abs(curve)) < began[i] + 0.1
            checked += 1
    assert checked > 50


def test_other_hits_stay_and_strips_only_round_along_the_beam():
    prompt = simulate_barrel_events(CONFIG, 0)
    events, began = simulate_long_lived(CONFIG, 0)
    theirs = events.particle < CONFIG.n_tracks
    for i in range(2):
        of, alone = events.event(i), prompt.event(i)
        mine = of.particle < CONFIG.n_tracks
        assert sorted(map(tuple, of.position[mine])) == sorted(map(tuple, alone.position))
    assert theirs.sum() == len(prompt.layer)
    assert ((began == 0.0).reshape(2, -1).sum(axis=1) == CONFIG.n_tracks).all()
    assert events.particle.max() < events.n_particles[0]
    assert (events.particle == NOISE).sum() == (prompt.particle == NOISE).sum()
    strips = (*[0.0] * 7, 50.0, 50.0, 50.0)
    rounded, _ = simulate_long_lived(dataclasses.replace(CONFIG, strips=strips), 0)
    assert rounded.position[:, :2] == pytest.approx(events.position[:, :2])
    away, outer = rounded.position[:, 2] - events.position[:, 2], events.layer > 6
    assert (away[~outer] == 0.0).all()
    assert np.std(away[outer]) == pytest.approx(50.0 / np.sqrt(12.0), rel=0.05)
    assert np.abs(away).max() <= 25.01


@pytest.mark.parametrize("wrong", [{"mass": 0.2}, {"lifetime": 0.0}, {"strips": (1.0,)}])
def test_settings_without_sense_are_refused(wrong):
    with pytest.raises(ConfigError, match="LongLivedConfig"):
        LongLivedConfig(**wrong)
