"""The grid is held against the published granularity and depth, closed formulas for volumes, and a
search for neighbours by brute force.
"""

import dataclasses

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pfcalib.geometry import BARREL, WINDOW, build_grid

GRIDS = pytest.mark.parametrize("grid", [BARREL, WINDOW], ids=lambda grid: grid.name)
SMALL = [
    build_grid("patch", eta_max=0.2, phi_max=0.2, n_towers_phi=4, wraps=False),
    build_grid("ring", eta_max=0.2, phi_max=np.pi, n_towers_phi=6, wraps=True),
]


def test_the_barrel_has_the_published_number_of_cells():
    """Within |eta| < 0.8: JINST 3 (2008) S08003, table 1.3, for cells of 0.025/8 x 0.1, 0.025 x
    0.025, 0.05 x 0.025, 0.1 x 0.1 and 0.2 x 0.1.
    """
    cells = {layer.name: (layer.n_eta, layer.n_phi) for layer in BARREL.layers}
    assert cells == {
        "PreSamplerB": (64, 64),
        "EMB1": (512, 64),
        "EMB2": (64, 256),
        "EMB3": (32, 256),
        "TileBar0": (16, 64),
        "TileBar1": (16, 64),
        "TileBar2": (8, 64),
    }
    assert (
        BARREL.n_cells == 64 * 64 + 512 * 64 + 64 * 256 + 32 * 256 + 2 * 16 * 64 + 8 * 64 == 64_000
    )
    assert WINDOW.n_cells == 1000


def test_the_cells_of_the_barrel_have_the_published_size():
    sizes = {layer.name: (layer.d_eta, layer.d_phi * 64 / (2 * np.pi)) for layer in BARREL.layers}
    assert sizes["EMB1"] == pytest.approx((0.025 / 8, 1.0))
    assert sizes["EMB2"] == pytest.approx((0.025, 0.25))
    assert sizes["EMB3"] == pytest.approx((0.05, 0.25))
    assert sizes["TileBar2"] == pytest.approx((0.2, 1.0))


def test_the_calorimeter_is_as_deep_as_the_published_one():
    """About 22 X0 of lead and argon at eta 0, and 7-8 interaction lengths of Tile; averages of
    47.45 X0/m, 44.44 X0/m and 4.998 lambda/m.
    """
    em, tile = BARREL.layers[1:4], BARREL.layers[4:]
    assert sum(layer.x0 for layer in em) == pytest.approx(22.3, abs=0.5)
    assert sum(layer.lambda_int for layer in tile) == pytest.approx(7.7, abs=0.5)
    for layers, x0_per_metre in ((em, 47.45), (tile, 44.44)):
        thickness = sum(layer.r_out - layer.r_in for layer in layers)
        assert 1e3 * sum(layer.x0 for layer in layers) / thickness == pytest.approx(
            x0_per_metre, rel=0.1
        )
    assert 1e3 * sum(layer.lambda_int for layer in tile) / (
        tile[-1].r_out - tile[0].r_in
    ) == pytest.approx(4.998, rel=0.05)


def test_each_layer_has_the_published_depth():
    depth = [layer.x0 for layer in BARREL.layers[1:4]] + [
        layer.lambda_int for layer in BARREL.layers[4:]
    ]
    for value, (low, high) in zip(
        depth,
        [(4.3, 4.7), (15.5, 18.0), (1.9, 4.8), (1.4, 1.7), (4.0, 4.6), (1.7, 2.1)],
        strict=True,
    ):
        assert low <= value <= high


def test_layers_follow_each_other_without_overlap():
    edges = [edge for layer in BARREL.layers for edge in (layer.r_in, layer.r_out)]
    assert np.all(np.diff(edges) >= -1e-9)


@GRIDS
def test_volumes_of_a_layer_add_up_to_the_ring_between_its_radii(grid):
    """pi (r_out^2 - r_in^2) = 2 pi r (r_out - r_in) exactly; the length in z is taken at the mean
    radius: 2 r sinh(eta_max).
    """
    for i, layer in enumerate(grid.layers):
        area = 0.5 * layer.n_phi * layer.d_phi * (layer.r_out**2 - layer.r_in**2)
        length = 2.0 * layer.r * np.sinh(-grid.eta_min)
        assert grid.volume[grid.layer == i].sum() == pytest.approx(area * length, rel=1e-12)


@GRIDS
def test_every_cell_is_found_at_its_centre(grid):
    for i in range(grid.n_layers):
        here = np.flatnonzero(grid.layer == i)
        np.testing.assert_array_equal(grid.locate(i, grid.eta[here], grid.phi[here]), here)


@given(
    eta=st.floats(-0.79, 0.79),
    phi=st.floats(-3.1, 3.1),
    turns=st.integers(-3, 3),
    layer=st.integers(0, 6),
)
def test_the_cell_that_is_found_holds_the_point_in_any_turn(eta, phi, turns, layer):
    cell = int(BARREL.locate(layer, eta, phi + 2.0 * np.pi * turns))
    assert abs(eta - BARREL.eta[cell]) <= 0.5 * BARREL.d_eta[cell] + 1e-12
    assert abs(phi - BARREL.phi[cell]) <= 0.5 * BARREL.d_phi[cell] + 1e-12


def test_points_outside_have_no_cell():
    assert BARREL.locate(2, [-0.81, 0.81], 0.0).tolist() == [-1, -1]
    assert WINDOW.locate(2, 0.0, [-0.21, 0.21]).tolist() == [-1, -1]


@pytest.mark.parametrize("grid", SMALL, ids=lambda grid: grid.name)
def test_neighbours_are_the_cells_that_a_search_by_brute_force_finds(grid):
    """Boxes in eta and phi: touching within a layer, corners included; sharing more than an edge in
    the adjacent layers.
    """
    indptr, indices = grid.neighbours
    far_phi = np.abs(grid.phi[:, None] - grid.phi[None, :])
    if grid.wraps:
        far_phi = np.minimum(far_phi, 2.0 * np.pi - far_phi)
    far_eta = np.abs(grid.eta[:, None] - grid.eta[None, :])
    reach_eta, reach_phi = (
        0.5 * (size[:, None] + size[None, :]) for size in (grid.d_eta, grid.d_phi)
    )
    apart = np.abs(grid.layer[:, None] - grid.layer[None, :])
    touch = (far_eta < reach_eta + 1e-9) & (far_phi < reach_phi + 1e-9) & (apart == 0)
    overlap = (far_eta < reach_eta - 1e-9) & (far_phi < reach_phi - 1e-9) & (apart == 1)
    expected = touch | overlap
    np.fill_diagonal(expected, False)
    np.testing.assert_array_equal(indptr, np.concatenate([[0], np.cumsum(expected.sum(axis=1))]))
    np.testing.assert_array_equal(indices, np.nonzero(expected)[1])


@GRIDS
def test_neighbours_are_mutual(grid):
    indptr, indices = grid.neighbours
    cell = np.repeat(np.arange(grid.n_cells), np.diff(indptr))
    forth, back = cell * grid.n_cells + indices, indices * np.int64(grid.n_cells) + cell
    np.testing.assert_array_equal(np.sort(forth), np.sort(back))
    assert not np.any(cell == indices)


def test_the_first_and_last_cells_in_phi_are_neighbours_in_the_barrel_only():
    for grid, expected in ((BARREL, True), (WINDOW, False)):
        indptr, indices = grid.neighbours
        first = int(grid.offset[2])
        last = first + grid.layers[2].n_phi - 1
        assert (last in indices[indptr[first] : indptr[first + 1]]) is expected


def test_an_inner_cell_of_the_middle_layer_has_eight_neighbours_in_it():
    indptr, indices = BARREL.neighbours
    cell = int(BARREL.locate(2, 0.26, 1.0))
    around = indices[indptr[cell] : indptr[cell + 1]]
    assert np.bincount(BARREL.layer[around], minlength=7).tolist() == [0, 8, 8, 1, 0, 0, 0]


def test_arrays_of_a_grid_are_made_once_and_a_grid_does_not_change():
    assert BARREL.eta is BARREL.eta
    with pytest.raises(dataclasses.FrozenInstanceError):
        BARREL.eta_min = 0.0
