"""Images hold the energy of the window, centred on the cluster, on both grids; the known faults of
other converters stay away.
"""

import dataclasses

import numpy as np
import pytest
from factories import make_sample
from hypothesis import given, settings
from hypothesis import strategies as st

from pfcalib.columns import LAYER_NAMES
from pfcalib.errors import ConfigError, ValidationError
from pfcalib.features.images import IMAGE_LAYERS, IMAGE_SHAPES, N_PIXELS, ImageWindow, build_images
from pfcalib.geometry import BARREL, WINDOW
from pfcalib.samples.schema import CellGeo, Sample

GRIDS = pytest.mark.parametrize("grid", [BARREL, WINDOW], ids=["barrel", "window"])


def clusters(grid, centres, cells, energies, cluster_e):
    """A sample of given clusters: position, cells and their energies."""
    offsets = np.concatenate([[0], np.cumsum([len(some) for some in cells])])
    eta, phi = np.array(centres, dtype=np.float32).T
    scalars = {
        "clusterEta": eta,
        "clusterPhi": phi,
        "clusterE": np.array(cluster_e, dtype=np.float32),
    }
    flat = {
        "cluster_cell_ID": np.concatenate(cells).astype(np.uint64),
        "cluster_cell_E": np.concatenate(energies).astype(np.float32),
    }
    return Sample(scalars, offsets, flat, CellGeo.from_grid(grid), {})


def expected_pixels(grid, centre):
    """Pixel of every cell around a central cell by integer arithmetic in quarters of the finest
    EMB2 steps; -1 outside the window.
    """
    i_eta, i_phi = grid._index
    layer = grid.layer
    n_eta = np.array([IMAGE_SHAPES[name][0] for name in LAYER_NAMES])[layer]
    n_phi = np.array([IMAGE_SHAPES[name][1] for name in LAYER_NAMES])[layer]
    # strips in a cell
    strips = np.array([round(one.d_eta / 0.003125) for one in grid.layers])[layer]
    # 4 for EMB2, 1 for towers
    quarters = np.array([4 * one.n_phi // grid.layers[2].n_phi for one in grid.layers])
    fine = 4 // quarters[layer]  # EMB2 cells in phi of a cell
    # twice the distance of the centres in strips (eta) and in EMB2 cells (phi): whole numbers
    d_eta = (2 * i_eta + 1) * strips - (2 * i_eta[centre] + 1) * 8
    turn = 2 * grid.layers[2].n_phi
    d_phi = (2 * i_phi + 1) * fine - (2 * i_phi[centre] + 1)
    if grid.wraps:
        d_phi = (d_phi + turn // 2) % turn - turn // 2
    k_eta = (d_eta + n_eta * strips) // (2 * strips)
    k_phi = (d_phi + n_phi * fine) // (2 * fine)
    inside = (k_eta >= 0) & (k_eta < n_eta) & (k_phi >= 0) & (k_phi < n_phi)
    return np.where(inside, k_eta * n_phi + k_phi, -1)


@GRIDS
def test_every_cell_falls_into_the_pixel_that_whole_numbers_give(grid, rng):
    emb2 = np.flatnonzero(grid.layer == 2)
    window = ImageWindow(CellGeo.from_grid(grid), layers=LAYER_NAMES)
    everything = np.arange(grid.n_cells)
    for centre in [*rng.choice(emb2, 40, replace=False).tolist(), int(emb2[0]), int(emb2[-1])]:
        pixels = np.full((1, window.n_pixels), np.nan, dtype=np.float32)  # what was there goes
        one = np.zeros(1, dtype=np.int64)
        window.fill(
            pixels,
            one,
            one,
            np.array([0, grid.n_cells]),
            everything,
            everything + 1.0,
            np.array([centre]),
            np.ones(1),
        )
        expected = expected_pixels(grid, centre)
        for i, (name, image) in enumerate(window.split(pixels).items()):
            here = (grid.layer == i) & (expected >= 0)
            wanted = np.zeros(image[0].size, dtype=np.float32)
            wanted[expected[here]] = everything[here] + 1.0
            np.testing.assert_array_equal(
                image[0].ravel(), wanted, err_msg=f"{name} around cell {centre}"
            )


def test_cells_on_no_common_lattice_fall_where_their_distance_says(rng):
    n, centre = 400, 0
    eta, phi = rng.uniform(-0.3, 0.3, n), rng.uniform(-0.3, 0.3, n)
    d_eta, d_phi = (
        rng.choice([0.003125, 0.025, 0.05], n),
        rng.choice([2 * np.pi / 64, 2 * np.pi / 256], n),
    )
    sampling = rng.integers(1, 4, n)
    sampling[centre] = 2
    ones = np.ones(n)
    geo = CellGeo(np.arange(n), sampling, eta, phi, 1500 * ones, d_eta, d_phi, ones, ones)
    window = ImageWindow(geo, layers=("EMB1", "EMB2", "EMB3"))
    energy = rng.uniform(1.0, 2.0, n)
    pixels, one = np.zeros((1, window.n_pixels), dtype=np.float32), np.zeros(1, dtype=np.int64)
    window.fill(pixels, one, one, np.array([0, n]), np.arange(n), energy, one, np.ones(1))
    for i, (name, image) in enumerate(window.split(pixels).items(), start=1):
        wanted = np.zeros(IMAGE_SHAPES[name])
        for c in np.flatnonzero(geo.sampling == i):
            k_eta = (geo.eta[c] - geo.eta[centre]) / np.float64(geo.deta[c]) + wanted.shape[0] / 2
            k_phi = (geo.phi[c] - geo.phi[centre]) / np.float64(geo.dphi[c]) + wanted.shape[1] / 2
            if 0 <= k_eta < wanted.shape[0] and 0 <= k_phi < wanted.shape[1]:
                wanted[int(k_eta), int(k_phi)] += energy[c]
        assert np.abs(image[0] - wanted).sum() <= 0.01 * wanted.sum()


@GRIDS
def test_the_central_cell_is_the_emb2_cell_of_the_barycentre(grid):
    emb2 = np.flatnonzero(grid.layer == 2)
    window = ImageWindow(CellGeo.from_grid(grid))
    for shift in (-0.49, 0.0, 0.49):
        eta, phi = (
            grid.eta[emb2] + shift * grid.d_eta[emb2],
            grid.phi[emb2] + shift * grid.d_phi[emb2],
        )
        np.testing.assert_array_equal(window.central_cell(eta, phi), emb2)
        np.testing.assert_array_equal(window.central_cell(eta, phi + 2 * np.pi), emb2)


@GRIDS
def test_the_central_cell_is_the_middle_pixel(grid):
    centre = np.flatnonzero(grid.layer == 2)[len(np.flatnonzero(grid.layer == 2)) // 2]
    images = build_images(
        clusters(grid, [(grid.eta[centre], grid.phi[centre])], [[centre]], [[3.0]], [4.0])
    )
    assert {name: image.shape[1:] for name, image in images.items()} == {
        name: IMAGE_SHAPES[name] for name in IMAGE_LAYERS
    }
    assert images["EMB2"][0, 8, 8] == np.float32(0.75)
    assert sum(float(image.sum()) for image in images.values()) == np.float32(0.75)


@given(st.integers(0, 2**32 - 1), st.sampled_from([BARREL, WINDOW]))
@settings(max_examples=20, deadline=None)
def test_the_sum_of_an_image_is_the_share_of_the_energy_in_the_window(seed, grid):
    sample = make_sample(np.random.default_rng(seed), 20, grid)
    images = build_images(sample, layers=LAYER_NAMES)
    sums = sum(image.sum(axis=(1, 2), dtype=np.float64) for image in images.values())
    cell = sample.cells["cluster_cell_ID"].astype(np.int64)
    owner = np.repeat(np.arange(len(sample)), np.diff(sample.offsets))
    centre = grid.locate(2, sample["clusterEta"], sample["clusterPhi"])
    pixel = np.stack([expected_pixels(grid, one) for one in centre])
    inside = pixel[owner, cell] >= 0
    wanted = (
        np.bincount(
            owner[inside], weights=sample.cells["cluster_cell_E"][inside], minlength=len(sample)
        )
        / sample["clusterE"]
    )
    np.testing.assert_allclose(sums, wanted, rtol=1e-5, atol=1e-6)


def test_a_cluster_at_the_seam_in_phi_is_whole():
    """First known fault: without a wrap in phi, half of such a cluster is lost."""
    eta = np.zeros(4) + 0.01
    phi = np.array([-0.03, -0.005, 0.005, 0.03]) + np.pi
    cells = BARREL.locate(2, eta, phi)
    seam = clusters(
        BARREL, [(0.01, -np.pi + 0.005)] * 2, [cells, cells], [np.ones(4)] * 2, [4.0, 4.0]
    )
    np.testing.assert_allclose(build_images(seam)["EMB2"].sum(axis=(1, 2)), 1.0)
    np.testing.assert_array_equal(np.flatnonzero(build_images(seam)["EMB2"][0, 8]), [6, 7, 8, 9])


def test_clusters_of_one_event_do_not_overwrite_each_other():
    """Second known fault: images indexed by event keep only the last cluster; each has its own
    here, common cells by their shares.
    """
    shared, own = BARREL.locate(2, 0.11, 0.0), BARREL.locate(2, [0.06, 0.16], 0.0)
    pair = clusters(
        BARREL,
        [(0.06, 0.0), (0.16, 0.0)],
        [[own[0], shared], [own[1], shared]],
        [[3.0, 1.5], [6.0, 0.5]],
        [4.5, 6.5],
    )
    images = build_images(
        dataclasses.replace(pair, scalars=pair.scalars | {"eventNumber": np.array([5, 5])})
    )["EMB2"]
    np.testing.assert_allclose(np.sort(images[0][images[0] > 0]), [1.5 / 4.5, 3.0 / 4.5], rtol=1e-6)
    np.testing.assert_allclose(np.sort(images[1][images[1] > 0]), [0.5 / 6.5, 6.0 / 6.5], rtol=1e-6)


def test_a_cell_that_comes_twice_is_summed():
    cell = BARREL.locate(2, 0.01, 0.01)
    image = build_images(clusters(BARREL, [(0.01, 0.01)], [[cell, cell]], [[1.0, 2.0]], [4.0]))[
        "EMB2"
    ]
    assert image[0, 8, 8] == np.float32(0.75)


def test_cells_by_another_numbering_give_the_same_images(rng):
    sample = make_sample(rng, 50, BARREL)
    renamed = CellGeo(
        **{
            name.removeprefix("cell_geo_"): array[::-1]
            for name, array in sample.geo.arrays().items()
        }
    )
    one, two = build_images(sample), build_images(dataclasses.replace(sample, geo=renamed))
    for name in one:
        np.testing.assert_array_equal(one[name], two[name])


def test_without_normalisation_pixels_are_energies(rng):
    sample = make_sample(rng, 50)
    raw, shares = build_images(sample, normalise_by=None), build_images(sample)
    np.testing.assert_allclose(
        raw["EMB1"], shares["EMB1"] * sample["clusterE"][:, None, None], rtol=1e-5
    )
    assert sum(image[0].size for image in raw.values()) == N_PIXELS == 936


def test_what_cannot_be_an_image_is_refused(rng):
    sample = make_sample(rng, 5)
    with pytest.raises(ConfigError, match="EMB9"):
        build_images(sample, layers=("EMB9",))
    with pytest.raises(ConfigError, match="different"):
        build_images(sample, layers=("EMB1", "EMB1"))
    zero = dataclasses.replace(
        sample, scalars=sample.scalars | {"clusterE": np.array([1, 2, 0, 1, 1], dtype=np.float32)}
    )
    with pytest.raises(ValidationError, match=r"clusterE\[2\]"):
        build_images(zero)
    lost = dataclasses.replace(
        sample,
        cells=sample.cells
        | {"cluster_cell_ID": sample.cells["cluster_cell_ID"] + np.uint64(10**6)},
    )
    with pytest.raises(ValidationError, match="not in CellGeo"):
        build_images(lost)
    tile = CellGeo(
        **{
            name.removeprefix("cell_geo_"): array[sample.geo.sampling > 11]
            for name, array in sample.geo.arrays().items()
        }
    )
    with pytest.raises(ValidationError, match="EMB2"):
        ImageWindow(tile).central_cell(np.zeros(1), np.zeros(1))
