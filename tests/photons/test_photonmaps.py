"""Events hold what was shot into them, boxes are those of known showers, and a sample is the same
however it is made.
"""

import numpy as np
import pytest

from pfcalib.errors import ConfigError
from pfcalib.geometry import BARREL
from pfcalib.photons.boxes import distances
from pfcalib.photons.photonmaps import (
    EM_CELLS,
    ETA_CELL,
    N_ETA,
    N_PHI,
    PARTS,
    MapsConfig,
    box_of,
    cached_maps,
    read_maps,
    simulate_maps,
    to_maps,
)
from pfcalib.simulation.pileup import NO_POOL


@pytest.fixture(scope="module")
def quiet():
    """Photons alone, without pile-up and dead cells."""
    config = MapsConfig(
        n_events=60, n_pions=0, mu=0.0, dead=0.0, et=(30.0, 60.0), eta_max=0.6, chunk=60
    )
    return simulate_maps(config, NO_POOL, 0)


def test_pixels_add_up_to_the_energy_of_the_cells_and_lie_where_these_do(rng):
    cells = np.zeros((3, EM_CELLS.stop - EM_CELLS.start))
    place = rng.uniform(-0.75, 0.75, 3), rng.uniform(-np.pi, np.pi, 3)
    for k, layer in enumerate((1, 2, 3)):
        cells[k, BARREL.locate(layer, place[0][k], place[1][k]) - EM_CELLS.start] = 1.0
    dead = np.zeros((3, N_ETA, N_PHI), np.bool_)
    dead[0, 5, 7] = True
    maps = to_maps(cells, dead)
    np.testing.assert_allclose(maps[..., :10].sum(axis=(1, 2, 3)), 1.0, rtol=1e-6)
    at = np.divmod(BARREL.locate(2, *place) - BARREL.offset[2], N_PHI)
    assert (maps[np.arange(3), at[0], at[1], :10].sum(axis=1) > 0.2).all()
    strip = np.floor((place[0][0] - BARREL.eta_min) / ETA_CELL * 8).astype(int) % 8
    assert maps[0, at[0][0], at[1][0], strip] == pytest.approx(0.25)
    assert maps[0, 5, 7, 10] == 0.0
    assert maps[..., 10].sum() == 3 * N_ETA * N_PHI - 1


def test_boxes_hold_the_energy_that_they_say(quiet):
    for k in range(10):
        shower = np.zeros((N_ETA, N_PHI))
        eta, phi = np.floor(quiet.centre[k]).astype(int)
        for i in range(-3, 4):
            for j in range(-5, 6):
                shower[np.clip(eta + i, 0, N_ETA - 1), (phi + j) % N_PHI] += np.exp(
                    -abs(i) - abs(j)
                )
        centre, box = box_of(shower)
        assert box[0] < centre[0] < box[2]
        assert box[1] < centre[1] < box[3]
        share = shower.sum(axis=1) / shower.sum()
        cumulative = np.append(0.0, np.cumsum(share))
        inside = np.diff(np.interp([box[0], box[2]], np.arange(N_ETA + 1), cumulative))
        assert inside == pytest.approx(0.95, abs=1e-3)


def test_centres_are_where_the_photons_point_and_energies_theirs(quiet):
    assert len(quiet.et) > 60
    energy = quiet.cells.sum(axis=1, dtype=np.float64)
    alone = np.bincount(quiet.event, minlength=60) == 1
    first = np.searchsorted(quiet.event, np.flatnonzero(alone))
    # noise adds as much as it takes
    ratio = energy[alone] / quiet.energy[first]
    assert np.median(ratio) == pytest.approx(1.0, abs=0.15)
    pairs = np.flatnonzero((np.diff(quiet.event) == 0) & np.isfinite(quiet.distance[1:]))
    straight = pairs[~(quiet.converted[pairs] | quiet.converted[pairs + 1])]
    apart = np.diag(distances(quiet.centre[straight], quiet.centre[straight + 1]))
    # a cell is much wider than what the direction is blurred by
    assert np.median(np.abs(apart - quiet.distance[straight])) < 0.3 * ETA_CELL


def test_events_are_the_same_from_a_folder_that_was_left_and_dead_cells_are_empty(tmp_path):
    pytest.importorskip("pythia8mc")
    config = MapsConfig(n_events=4, chunk=2, n_pool=10, mu=5.0)
    path = cached_maps(config, cache_dir=tmp_path)
    first = read_maps(path)
    assert first.n_events == 4
    assert (first.cells[:, PARTS[1]].reshape(first.dead.shape)[first.dead] == 0.0).all()
    assert first.dead.mean() == pytest.approx(config.dead, abs=0.003)
    path.unlink()
    again = read_maps(cached_maps(config, cache_dir=tmp_path))
    for one, other in zip(first, again, strict=True):
        np.testing.assert_array_equal(one, other)
    some = first.take(np.array([1, 3]))
    assert some.n_events == 2
    np.testing.assert_array_equal(some.box[some.event == 1], first.box[first.event == 3])


def test_settings_out_of_range_are_refused():
    with pytest.raises(ConfigError, match="dead"):
        MapsConfig(n_events=1, dead=1.0)
    with pytest.raises(ConfigError, match="at least 1"):
        MapsConfig(n_events=0)
