"""Each network has a loss that can be counted by hand, mirrors and crops are what they say, and a
cascade that is trained on bright spots finds them, on the seam and at the edge too.
"""

import keras
import numpy as np
import pytest

from pfcalib.deploy.validator import check_stored_model
from pfcalib.errors import ConfigError
from pfcalib.photons.boxes import distances
from pfcalib.photons.cascade import (
    NAMES,
    SIZES,
    CascadeConfig,
    build_network,
    crops,
    detect,
    detection_loss,
    examples,
    fit_stage,
    mirrored,
    padded,
    targets_of,
)
from pfcalib.photons.photonmaps import EM_CELLS, N_ETA, N_PHI, PARTS, Maps, to_maps
from pfcalib.training.fit import TrainConfig

pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")


def spots(n, rng):
    """Events with one spot of 3 x 4 cells of EMB2, some across the seam and at the edge."""
    cells = rng.normal(0.0, 0.03, (n, EM_CELLS.stop - EM_CELLS.start))
    low = np.column_stack([rng.integers(0, N_ETA - 2, n), rng.integers(-3, N_PHI - 3, n)])
    low[0], low[1] = (20, -2), (0, 50)
    middle = cells[:, PARTS[1]].reshape(n, N_ETA, N_PHI)
    for k, (eta, phi) in enumerate(low):
        middle[k, eta : eta + 3, (phi + np.arange(4)) % N_PHI] += 3.0
    cells[:, PARTS[1]] = middle.reshape(n, -1)
    box = np.column_stack([low, low + np.array([3, 4])]).astype(np.float64)
    centre = low + np.array([1.5, 2.0])
    centre[:, 1] %= N_PHI
    one = np.full(n, 30.0)
    return Maps(
        np.arange(n), cells.astype(np.float16), np.zeros((n, N_ETA, N_PHI), np.bool_),
        np.arange(n), one, one, np.full(n, np.inf), np.zeros(n, np.bool_), centre, box,
    )  # fmt: skip


def test_the_loss_is_that_of_the_hardest_and_of_boxes_that_count():
    y = np.zeros((4, 8), np.float32)
    y[:, 0] = 1, 0, -1, 1
    y[0, 1], y[0, 2:6], y[0, 6:] = 1.0, 1.0, 2.0
    output = np.zeros((4, 7), np.float32)
    output[:, 0] = 0.5, 0.2, 0.9, 0.8
    entropy = -np.log([0.5, 0.8, 0.8])
    hardest = np.sort(entropy)[-2:].mean()  # 70 % of three are two
    loss = float(detection_loss(y, output, centre_weight=0.25))
    assert loss == pytest.approx(hardest + 0.5 * 0.5 + 0.25 * 1.5, rel=1e-5)


def test_targets_are_told_by_overlap_and_count_from_the_cell_across_the_seam():
    truth, centre = np.array([[10.0, 254.0, 13.0, 258.0]]), np.array([[11.5, 0.0]])
    cell = np.array([[11, 0], [12, 1], [11, 3], [40, 100]])
    box = np.tile(cell + 0.5, 2) + np.array([-1.5, -2.0, 1.5, 2.0])
    config = CascadeConfig(positive=0.6, part=0.4, negative=0.3)
    made = targets_of(box, cell, truth, centre, config)
    # overlaps of 3 x 4 boxes moved by (0, 0.5), (1, 1.5), (0, 3.5) and far cells
    assert made[:, 0].tolist() == [1.0, 0.0, 0.0, 0.0]
    np.testing.assert_allclose(made[0, 2:], [-1.5, -2.5, 1.5, 1.5, 0.0, -0.5])
    assert (made[1:, 1:] == 0.0).all()
    half_off, farther = np.array([0, 1.5, 0, 1.5]), np.array([0, 2.0, 0, 2.0])
    half = targets_of(truth + half_off, cell[:1], truth, centre, config)
    assert half[0, 0] == 1.0  # the best that there is
    both = np.concatenate([truth, truth + half_off, truth + farther])
    kinds = targets_of(both, np.repeat(cell[:1], 3, axis=0), truth, centre, config)
    assert kinds[:, 0].tolist() == [1.0, -1.0, -1.0]
    assert kinds[:, 1].tolist() == [1.0, 1.0, 0.0]


def test_a_crop_shows_its_cell_in_the_middle_and_dead_cells_beyond_the_edge(rng):
    maps = spots(3, rng)
    image = to_maps(maps.cells, maps.dead)
    cell = np.array([[30, 255], [0, 0], [63, 128]])
    cut = crops(image, np.arange(3), cell, SIZES["refining"])
    for k, (eta, phi) in enumerate(cell):
        np.testing.assert_array_equal(cut[k, 3, 5], image[k, eta, phi])
    np.testing.assert_array_equal(cut[0, 3, 6], image[0, 30, 0])
    assert (cut[1, :3] == 0.0).all()
    assert (cut[1, 3:, :, 10] == 1.0).all()


def test_a_mirror_of_a_mirror_is_the_crop_and_strips_change_sides(rng):
    pixels, targets = rng.normal(size=(5, 7, 7, 11)), rng.normal(size=(5, 8)).astype(np.float32)
    once = mirrored(pixels, targets, eta=True, phi=True)
    np.testing.assert_array_equal(once[0][:, 0, 0, 0], pixels[:, -1, -1, 7])
    np.testing.assert_array_equal(once[1][:, 2], -targets[:, 4])
    twice = mirrored(*once, eta=True, phi=True)
    np.testing.assert_array_equal(twice[0], pixels)
    np.testing.assert_array_equal(twice[1], targets)


def test_a_cascade_learns_to_find_spots_and_its_files_hold(rng, tmp_path, monkeypatch):
    monkeypatch.setenv("PFCALIB_CACHE", str(tmp_path))
    parts = spots(40, rng), spots(12, rng)
    config = CascadeConfig(filters=(4, 4, 4), keep=(0.3, 0.3, 0.3))
    train = TrainConfig(learning_rate=0.01, epochs=5, batch_size=64)
    networks, said = {}, []
    for name in NAMES:
        before = dict(networks)

        def data(name=name, before=before):
            return tuple(
                examples(part, name, config, before, seed=1, batch_size=64, shuffle=k == 0)
                for k, part in enumerate(parts)
            )

        for _ in range(2):
            stage = fit_stage(name, data, config, train, settings={"toy": 1}, say=said.append)
        assert check_stored_model(stage.path).passed
        networks[name] = stage.run
    assert len(said) == 3 * 5  # the second call of each found it
    held_out = parts[1]
    image = to_maps(held_out.cells.astype(np.float32), held_out.dead)
    found = detect(image, networks, config)
    for k in range(12):
        own = found.take(found.event == k)
        best = int(np.argmax(own.score))
        assert distances(own.centre[best : best + 1], held_out.centre[k : k + 1])[0, 0] < 0.03
    # one network on the whole map is that network on each crop
    whole = networks["proposal"](padded(image[:1], SIZES["proposal"]))[0]
    cell = np.array([[0, 0], [20, 255], [63, 100]])
    alone = networks["proposal"](crops(image, np.zeros(3, int), cell, SIZES["proposal"]))
    np.testing.assert_allclose(alone[:, 0, 0], whole[cell[:, 0], cell[:, 1]], atol=1e-4)
    # nothing to be found
    quiet = to_maps(np.zeros((1, held_out.cells.shape[1])), held_out.dead[:1])
    assert len(detect(quiet, networks, config).score) == 0


def test_wrong_names_and_overlaps_are_refused():
    with pytest.raises(ConfigError, match="expected one of"):
        build_network("fourth")
    with pytest.raises(ConfigError, match="must fall"):
        CascadeConfig(part=0.9)
    assert keras.utils.get_registered_object("pfcalib>Detector") is not None
