"""Learning the step of the refined showers."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from pfcalib.errors import ConfigError
from pfcalib.geometry import WINDOW
from pfcalib.samples.showerfile import Showers
from pfcalib.simulation.parameters import ShowerConfig
from pfcalib.simulation.particles import Particles
from pfcalib.simulation.refine import (
    Refinement,
    read_refinements,
    refine_hits,
    write_refinements,
)
from pfcalib.simulation.showers import simulate_showers
from pfcalib.training.refine_fit import RefineFitConfig, fit_refinement

FIT = RefineFitConfig(copies=1, n_wide=600, networks=1, units=8, epochs=2)


@pytest.fixture(scope="module")
def distorted():
    """Neutral pions of 2-8 GeV with 20 % more signal in lead-argon, as if they were Geant4's."""
    rng, n = np.random.default_rng(1), 1500
    particles = Particles(
        np.arange(n),
        np.full(n, 111, np.int32),
        2.0 * 4.0 ** rng.random(n),
        *rng.uniform(-0.05, 0.05, (2, n)),
    )
    plain = ShowerConfig()
    config = plain._replace(em_strips=1.2 * plain.em_strips, em_lar=1.2 * plain.em_lar)
    hits = simulate_showers(particles, WINDOW, rng, config=config)
    return particles, Showers(*particles[1:], hits.offsets, hits.cell, hits.signal)


def test_a_known_distortion_is_learned_and_kept_in_the_file(distorted, tmp_path):
    particles, reference = distorted
    lines: list[str] = []
    of = fit_refinement(reference, "pi0", FIT, say=lines.append)
    assert len(lines) == FIT.networks + 1
    write_refinements(tmp_path / "refinement.npz", {"pi0": of})
    read = read_refinements(tmp_path / "refinement.npz")
    assert all(np.allclose(a, b, rtol=1e-5) for a, b in zip(read["pi0"], of, strict=True))
    raw = simulate_showers(particles, WINDOW, np.random.default_rng(2), refine=False)
    refined = refine_hits(raw, particles, WINDOW, np.random.default_rng(3), refinements=read)
    want = reference.signal.sum() / raw.signal.sum()
    assert want > 1.15
    assert refined.signal.sum() / raw.signal.sum() == pytest.approx(want, rel=0.02)
    assert isinstance(of, Refinement)


def test_too_few_showers_are_refused(distorted):
    with pytest.raises(ConfigError, match="too few"):
        fit_refinement(distorted[1], "pion", FIT)


def test_settings_are_checked():
    with pytest.raises(ConfigError, match="held_out"):
        dataclasses.replace(FIT, held_out=0.0)
    with pytest.raises(ConfigError, match="at least 1"):
        dataclasses.replace(FIT, copies=0)
