"""Showers bent to wanted moments."""

from __future__ import annotations

import numpy as np
import pytest

from pfcalib.geometry import WINDOW
from pfcalib.simulation import morph


@pytest.fixture
def shower():
    """Two hundred hits of EMB2 and EMB1 about the axis, and their geometry."""
    rng = np.random.default_rng(3)
    layer = np.repeat([2, 1], 100)
    d_eta, d_phi = rng.normal(0.0, 0.03, (2, 200))
    size = np.array([[getattr(k, name) for k in WINDOW.layers] for name in ("d_eta", "d_phi")])
    cells = morph.Cells(layer, d_eta, d_phi, np.full(200, 0.05), size, np.full(7, 0.05))
    return rng.standard_exponential(200) * 0.1, cells


def test_moments_are_those_of_numpy(shower):
    signal, cells = shower
    found = morph.describe(np.array([0, 200]), signal, cells)[0]
    e = signal[:100]
    mean = np.average(cells.d_phi[:100], weights=e)
    width = np.sqrt(np.average((cells.d_phi[:100] - mean) ** 2, weights=e))
    assert found[[2, morph.PHI + 2]] == pytest.approx([e.sum(), width])
    assert found[morph.CELLS] == np.sum(signal > 0.05)
    assert found[[morph.SECOND, morph.HOTTEST]] == pytest.approx(np.sort(signal)[-2:])


def test_a_shower_takes_on_the_wanted_moments(shower):
    signal, cells = shower
    offsets = np.array([0, 200])
    wanted = morph.describe(offsets, signal, cells)
    wanted[0, [1, 2]] *= [1.3, 0.8]
    wanted[0, [morph.ETA + 2, morph.PHI + 2, morph.PHI + 1]] *= [0.7, 1.2, 0.8]
    wanted[0, morph.CORE] *= 1.1
    wanted[0, morph.HOTTEST] *= 1.2
    wanted[0, morph.CELLS] -= 10
    bent = morph.bend(offsets, signal, cells, wanted)
    found = morph.describe(offsets, bent, cells)
    assert found[0, :7] == pytest.approx(wanted[0, :7], rel=1e-9)
    assert found[0, 7:22] == pytest.approx(wanted[0, 7:22], rel=0.01)
    assert found[0, morph.CELLS] == pytest.approx(wanted[0, morph.CELLS], abs=3)
    assert found[0, morph.HOTTEST] == pytest.approx(wanted[0, morph.HOTTEST])
    assert bent.min() > 0.0


def test_a_shower_that_has_its_moments_stays_as_it_is(shower):
    signal, cells = shower
    offsets = np.array([0, 200])
    bent = morph.bend(offsets, signal, cells, morph.describe(offsets, signal, cells))
    assert bent == pytest.approx(signal, rel=0.05)


def test_showers_of_no_and_of_one_hit_get_the_energy_that_their_layer_can_hold():
    cells = morph.Cells(
        np.array([2]), np.zeros(1), np.zeros(1), np.ones(1), np.full((2, 7), 0.025), np.ones(7)
    )
    wanted = np.zeros((2, morph.N_MOMENTS))
    wanted[:, 2] = 3.0
    assert morph.bend(np.array([0, 0, 1]), np.ones(1), cells, wanted).tolist() == [3.0]
