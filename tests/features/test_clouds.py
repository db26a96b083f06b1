"""Clouds written as points are the cells of a plain loop, in physical units or in Athena's."""

import numpy as np
import pytest
from factories import make_sample

from pfcalib.columns import LAYER_NAMES
from pfcalib.errors import ConfigError, ValidationError
from pfcalib.features.clouds import (
    CLOUD_FEATURES,
    MIN_CELL,
    N_LAYERS,
    cell_columns,
    cluster_clouds,
    count_points,
    join_clouds,
    write_points,
)
from pfcalib.features.images import SAMPLING

COLUMN = {name: i for i, name in enumerate(CLOUD_FEATURES)}
NAME_OF = {number: name for name, number in SAMPLING.items()}


@pytest.fixture(scope="module")
def sample():
    return make_sample(np.random.default_rng(5), 40)


def with_tracks(clouds, rng):
    """A track through some layers of every cloud."""
    n = clouds.n_clouds
    at = clouds.centre[:, :, None] + rng.normal(0.0, 0.05, (n, 2, N_LAYERS))
    at[::3, :, 5:] = np.nan
    return clouds._replace(track=np.column_stack([np.full(n, 12.0), at[:, 0], at[:, 1]]))


def test_points_are_those_of_a_plain_loop(sample):
    points = write_points(cluster_clouds(sample), np.arange(40), 50)
    geo = sample.geo
    for i, (start, stop) in enumerate(zip(sample.offsets[:-1], sample.offsets[1:], strict=True)):
        energy = sample.cells["cluster_cell_E"][start:stop]
        rows = geo.rows(sample.cells["cluster_cell_ID"][start:stop])
        order = [j for j in np.argsort(-np.abs(energy), kind="stable") if energy[j] != 0.0][:50]
        for place, j in enumerate(order):
            cell, here = rows[j], points[i, place]
            d_phi = np.angle(np.exp(1j * (geo.phi[cell] - sample["clusterPhi"][i])))
            layer = LAYER_NAMES.index(NAME_OF[geo.sampling[cell]])
            expected = [
                energy[j], energy[j] / geo.sigma[cell] if geo.sigma[cell] > 0.0 else 0.0,
                geo.eta[cell] - sample["clusterEta"][i], d_phi, layer, geo.rPerp[cell],
                geo.deta[cell], geo.dphi[cell], 0.0,
            ]  # fmt: skip
            np.testing.assert_allclose(here, expected, rtol=1e-4, atol=1e-6)
        assert not points[i, len(order) :].any()


def test_the_track_is_never_cut(sample, rng):
    clouds = with_tracks(cluster_clouds(sample), rng)
    reached = np.where(np.arange(40) % 3 == 0, 5, N_LAYERS)
    np.testing.assert_array_equal(count_points(clouds), np.diff(sample.offsets) + reached)
    for n_points in (9, 200):
        points = write_points(clouds, np.arange(40), n_points)
        is_track = points[..., COLUMN["is_track"]]
        np.testing.assert_array_equal(is_track.sum(axis=1), reached)
        momentum = (points[..., COLUMN["energy"]] * is_track).sum(axis=1)
        np.testing.assert_allclose(momentum, 12.0, rtol=1e-5)
        # behind the cells, nothing in between
        filled = points[..., COLUMN["r"]] > 0.0
        assert (np.diff(filled.astype(int), axis=1) <= 0).all()


def test_athenas_layout_holds_the_same_standardised(sample, rng):
    clouds = with_tracks(cluster_clouds(sample), rng)
    athena = write_points(clouds, np.arange(40), 300, layout="athena")
    cells = write_points(clouds, np.arange(40), 300)
    for mine, theirs in zip(athena, cells, strict=True):
        kept = theirs[:, COLUMN["r"]] > 0.0
        kept &= (theirs[:, COLUMN["energy"]] >= MIN_CELL) | (theirs[:, COLUMN["is_track"]] > 0.0)
        n = kept.sum()
        energy = np.exp(mine[:n, 0] * 2.01005066 - 2.28525747)
        np.testing.assert_allclose(energy, theirs[kept, COLUMN["energy"]], rtol=1e-5)
        for column, scale, name in ((1, 0.7, "d_eta"), (2, 0.69169774, "d_phi"), (3, 3630.0, "r")):
            expected = theirs[kept, COLUMN[name]]
            np.testing.assert_allclose(mine[:n, column] * scale, expected, rtol=1e-5, atol=1e-6)
        np.testing.assert_array_equal(mine[:n, 4], theirs[kept, COLUMN["is_track"]])
        assert not mine[n:].any()


def test_joined_clouds_are_those_of_the_whole(sample):
    whole = cluster_clouds(sample)
    joined = join_clouds([cluster_clouds(sample[:15]), cluster_clouds(sample[15:])])
    np.testing.assert_array_equal(joined.offsets, whole.offsets)
    rows = np.array([3, 39, 15])
    np.testing.assert_array_equal(write_points(joined, rows, 80), write_points(whole, rows, 80))


def test_what_is_wrong_is_told(sample):
    with pytest.raises(ConfigError, match="layout must be one of cells, athena"):
        write_points(cluster_clouds(sample), np.arange(2), 5, layout="athens")
    broken = sample[:3]
    broken.cells["cluster_cell_ID"] = broken.cells["cluster_cell_ID"] + np.uint64(10**6)
    with pytest.raises(ValidationError, match="is not in CellGeo"):
        cluster_clouds(broken)
    assert cell_columns(sample.geo).shape == (len(sample.geo), 7)
