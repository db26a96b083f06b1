"""Rings are counted from the track, distances close in azimuth, and the layer of highest energy
density is that of a slow, plain calculation and of showers made by hand.
"""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import norm

from pfcalib.calibration.rings import (
    DENSITY_RADIUS,
    N_LAYERS,
    N_RINGS,
    RING_WIDTHS,
    densest_layer,
    distance_to,
    phi_between,
    ring_cells,
    ring_of,
)
from pfcalib.columns import LAYER_NAMES
from pfcalib.geometry import BARREL
from pfcalib.samples.schema import CellGeo

CELLS = ring_cells(CellGeo.from_grid(BARREL))
EMB1, EMB2, EMB3 = 1, 2, 3
AT = np.zeros(N_LAYERS)  # a track at eta = phi = 0 in every layer


def uniform(density, eta=0.0, phi=0.0):
    """Cells around a point and their energies, of one density (GeV / X0^3) in each layer."""
    cell = np.flatnonzero(
        (np.abs(CELLS.eta - eta) < 0.3) & (np.abs(np.angle(np.exp(1j * (CELLS.phi - phi)))) < 0.3)
    )
    return cell, np.asarray(density)[CELLS.layer[cell]] * CELLS.volume[cell]


def test_cells_have_the_layer_of_their_sampling_and_others_have_none():
    assert np.array_equal(CELLS.layer, BARREL.layer)
    geo = CellGeo.from_grid(BARREL)
    sampling = geo.sampling.copy()
    sampling[:3] = (5, 21, 99)  # end cap, forward, unknown
    other = CellGeo(**{**_columns(geo), "sampling": sampling})
    assert ring_cells(other).layer[:4].tolist() == [-1, -1, -1, 0]


def _columns(geo):
    return {name.removeprefix("cell_geo_"): array for name, array in geo.arrays().items()}


def test_volumes_are_in_cubes_of_a_radiation_length():
    """The middle layer at eta = 0: 48 periods of 6.665 mm, cells of 0.025 and pi / 128 rad."""
    (cell,) = BARREL.locate(EMB2, [0.01], [0.01])
    thickness, r = 48 * 6.665, 1567.645 + 24 * 6.665
    expected = thickness * (r * math.pi / 128) * (r * 0.025) * 0.04745**3
    assert CELLS.volume[cell] == pytest.approx(expected, rel=1e-3)


def test_depths_are_interaction_lengths_at_the_back_of_layers():
    """With 455 mm in the lead-argon, 229 mm in the tiles and 468 mm in aluminium, of pions."""
    steps = np.diff(CELLS.depth)
    assert CELLS.depth[0] == pytest.approx((1399.04 - 1230.0) / 468.0 + 11.0 / 1010.0)
    periods = np.array([13, 48, 6]) * 6.665 / 455.0
    assert steps[:3] == pytest.approx(periods)
    tiles = np.array([18, 50, 22]) * 17.3 / 229.0
    assert steps[3:] == pytest.approx(tiles + np.array([100.0 / 468.0, 0.0, 0.0]))


@settings(deadline=None)  # the first call compiles
@given(a=st.floats(-10.0, 10.0), b=st.floats(-10.0, 10.0))
def test_a_difference_of_azimuths_is_the_short_way_round(a, b):
    d = phi_between(a, b)
    assert -math.pi <= d <= math.pi + 1e-12
    assert math.cos(d) == pytest.approx(math.cos(a - b), abs=1e-9)
    assert math.sin(d) == pytest.approx(math.sin(a - b), abs=1e-9)


def test_distances_are_those_in_the_layer_of_the_cell_and_close_in_azimuth():
    (cell,) = BARREL.locate(EMB2, [0.11], [3.14])
    eta_at, phi_at = np.full(N_LAYERS, np.nan), np.full(N_LAYERS, np.nan)
    assert distance_to(CELLS, cell, eta_at, phi_at) == math.inf
    eta_at[EMB2], phi_at[EMB2] = CELLS.eta[cell] - 0.03, CELLS.phi[cell] + 0.04 - 2.0 * math.pi
    assert distance_to(CELLS, cell, eta_at, phi_at) == pytest.approx(0.05)


def test_cells_of_no_layer_are_infinitely_far():
    other = CELLS._replace(layer=np.full_like(CELLS.layer, -1))
    assert distance_to(other, 0, AT, AT) == math.inf


@pytest.mark.parametrize("layer", range(N_LAYERS))
def test_rings_are_counted_from_the_track_and_the_last_has_no_end(layer):
    width = RING_WIDTHS[layer]
    for ring in (0, 1, N_RINGS - 1):
        assert ring_of(layer, (ring + 0.5) * width) == ring
    assert ring_of(layer, 1000.0) == ring_of(layer, math.inf) == N_RINGS - 1


@pytest.mark.parametrize("layer", range(1, N_LAYERS))
def test_energy_in_one_layer_makes_it_the_densest(layer):
    assert densest_layer(CELLS, *uniform(np.eye(N_LAYERS)[layer]), AT, AT) == layer


def test_the_presampler_has_no_part():
    cell, energy = uniform([1e3, 0.0, 0.0, 1.0, 0.0, 0.0, 0.0])
    assert densest_layer(CELLS, cell, energy, AT, AT) == EMB3


@pytest.mark.parametrize(("excess", "expected"), [(0.0, EMB1), (-0.02, EMB1), (0.02, EMB2)])
def test_a_rise_is_over_the_interaction_lengths_since_the_layer_before(excess, expected):
    """Of densities 1 and f in the first two layers the second wins from (f - 1) / (d2 - d1) = 1 /
    d1 on; a minimum ionising particle, f = 1, is found in the first.
    """
    f = 1.0 if excess == 0.0 else 1.0 + (CELLS.depth[EMB2] / CELLS.depth[EMB1] - 1.0) + excess
    density = np.zeros(N_LAYERS)
    density[[EMB1, EMB2]] = 1.0, f
    assert densest_layer(CELLS, *uniform(density), AT, AT) == expected


def test_without_cells_near_the_track_the_middle_layer_is_taken():
    cell, energy = uniform(np.ones(N_LAYERS))
    assert densest_layer(CELLS, cell[:0], energy[:0], AT, AT) == EMB2
    assert densest_layer(CELLS, cell, energy, AT + 0.7, AT) == EMB2
    assert densest_layer(CELLS, cell, energy, np.full(N_LAYERS, np.nan), AT) == EMB2


def test_layers_that_the_track_does_not_reach_have_no_part():
    missing = AT.copy()
    missing[EMB1] = np.nan
    assert densest_layer(CELLS, *uniform(np.eye(N_LAYERS)[EMB1] + 1e-3), missing, AT) == EMB2


def plainly_densest(cell, energy, eta_at, phi_at):
    """The definition, without a window."""
    layer = CELLS.layer[cell]

    def share(distance, size):
        return np.diff(
            norm.cdf([distance - size / 2, distance + size / 2], 0, DENSITY_RADIUS), axis=0
        )

    shares = share(CELLS.eta[cell] - eta_at[layer], CELLS.d_eta[cell])
    shares *= share(CELLS.phi[cell] - phi_at[layer], CELLS.d_phi[cell])
    density = np.bincount(layer, shares[0] * energy / CELLS.volume[cell], N_LAYERS)[1:]
    depth = CELLS.depth[1:]
    return 1 + int(np.argmax(np.diff(density, prepend=0.0) / np.diff(depth, prepend=0.0)))


def test_a_plain_calculation_agrees_on_random_showers(rng):
    found = []
    for _ in range(60):
        eta, phi = rng.uniform(-0.4, 0.4), rng.uniform(-2.0, 2.0)
        cell, energy = uniform(rng.exponential(1.0, N_LAYERS), eta, phi)
        chosen = rng.random(len(cell)) < 0.2
        cell, energy = cell[chosen], energy[chosen] * rng.exponential(1.0, chosen.sum())
        eta_at, phi_at = (
            eta + rng.normal(0.0, 0.01, N_LAYERS),
            phi + np.linspace(0.0, 0.05, N_LAYERS),
        )
        found.append(densest_layer(CELLS, cell, energy, eta_at, phi_at))
        assert found[-1] == plainly_densest(cell, energy, eta_at, phi_at)
    assert len(set(found)) > 3
    assert all(1 <= layer < len(LAYER_NAMES) for layer in found)
