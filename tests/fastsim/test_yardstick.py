"""The yardstick finds what differs, nothing where nothing does, and showers known by heart."""

import numpy as np
import pytest

from pfcalib.errors import ConfigError
from pfcalib.fastsim.voxels import Voxels
from pfcalib.fastsim.yardstick import (
    high_level,
    high_table,
    low_table,
    network_auc,
    repeated_share,
    separations,
    trees_auc,
)
from pfcalib.samples.layouts.calochallenge import Binning, VoxelLayer

TOY = Binning("toy", 22, (VoxelLayer(1, (0, 10, 30), 4), VoxelLayer(12, (0, 50), 1)))


def toy(n, seed, lean=0.0):
    rng = np.random.default_rng(seed)
    showers = rng.gamma(2.0, 0.1, (n, TOY.n_voxels))
    showers[:, [1, 7]] *= 1.0 + lean  # of outer rings
    return Voxels(TOY, np.tile([1.0, 2.0], n // 2), showers.astype(np.float32))


def test_centre_and_width_of_two_voxels_are_those_of_two_points():
    showers = np.zeros((1, TOY.n_voxels), np.float32)
    showers[0, [0, 5]] = [1.0, 3.0]  # r = 5, alpha = -3 pi/4; r = 20, alpha = pi/4
    found = high_level(Voxels(TOY, np.array([10.0]), showers))
    x = np.array([-5.0, 20.0]) / np.sqrt(2.0) / 100.0
    mean = (x[0] + 3.0 * x[1]) / 4.0
    for axis in ("eta", "phi"):
        assert found[f"centre_{axis}_EMB1"][0] == pytest.approx(mean)
        assert found[f"width_{axis}_EMB1"][0] == pytest.approx(np.sqrt(3.0) / 4.0 * (x[1] - x[0]))
    assert found["log10_E_EMB1"][0] == pytest.approx(np.log10(4.0), abs=1e-5)


@pytest.mark.parametrize("measure", [trees_auc, network_auc])
def test_classifiers_find_what_differs_and_nothing_else(measure):
    options = {"width": 32, "epochs": 15} if measure is network_auc else {}
    same = measure(high_table(toy(800, 1)), high_table(toy(800, 2)), seed=1, **options)
    other = measure(high_table(toy(800, 1)), high_table(toy(800, 2, 0.8)), seed=1, **options)
    assert abs(same.value - 0.5) < 4.0 * same.error
    assert other.value > 0.5 + 5.0 * other.error


def test_a_network_wants_as_many_of_both_and_low_level_is_all_voxels():
    table = low_table(toy(10, 1))
    assert table.shape == (10, 1 + TOY.n_voxels)
    assert table[1, 0] == pytest.approx(np.log10(2.0))
    with pytest.raises(ConfigError, match="as many"):
        network_auc(table, table[:5], seed=1)


def test_separations_point_at_the_quantity_that_differs():
    same, other = (separations(toy(4000, 1), toy(4000, 2, lean)) for lean in (0.0, 1.5))
    assert max(same.values()) < 0.03
    assert other["width_eta_EMB1"] > 0.05
    assert other["log10_E_TileBar0"] < 0.03


def test_showers_that_were_learnt_by_heart_are_found():
    training, held_out, new = (toy(400, seed) for seed in (1, 2, 3))
    honest = repeated_share(new, training, held_out)
    assert abs(honest.value - 0.5) < 4.0 * honest.error
    by_heart = training._replace(showers=training.showers * np.float32(1.01))
    assert repeated_share(by_heart, training, held_out).value > 0.99
