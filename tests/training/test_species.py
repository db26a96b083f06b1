"""Each cluster is calibrated by the network or the trees of its species; calibrations learn from as
many clusters as they are told.
"""

from __future__ import annotations

import numpy as np
import pytest
from factories import make_sample

from pfcalib.features.targets import TargetConfig
from pfcalib.samples.write import write_sample
from pfcalib.training.fit import TrainConfig
from pfcalib.training.networks import NetworkConfig
from pfcalib.training.regressors import (
    SELECTION,
    energy_apart,
    fit_apart,
    fit_trees_apart,
    read_clusters,
    trees_energy_apart,
)
from pfcalib.training.trees import TreesConfig

# of Keras with numpy 2
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")

WIDTH = 0.1  # of ln(clusterE / deposit)
OPTIONS = {"widths": [24, 12], "dropout": 0.0, "with_scalars": True}
TRAIN = TrainConfig(
    epochs=8, batch_size=32, learning_rate=0.01, loss="huber", schedule="cosine", seed=3
)
ENERGY = NetworkConfig(
    name="dnn",
    kind="layer:TileBar2",
    options={**OPTIONS, "head": "energy"},
    target=TargetConfig(),
    select=SELECTION,
    train=TRAIN,
)
TREES = TreesConfig(max_iter=30, min_samples_leaf=5)


@pytest.fixture(scope="module")
def path(tmp_path_factory):
    """Neutral clusters measure 0.9 of their deposit and charged ones 0.6 of it, with a Gaussian
    spread of the logarithm.
    """
    rng, sample = np.random.default_rng(7), make_sample(np.random.default_rng(7), 2000)
    deposit = 10.0 ** rng.uniform(0.0, 2.0, len(sample))
    sample.scalars["cluster_ENG_CALIB_TOT"] = deposit.astype(np.float32)
    share = np.where(sample.is_em, 0.9, 0.6) * np.exp(WIDTH * rng.standard_normal(len(sample)))
    sample.scalars["clusterE"] = (share * deposit).astype(np.float32)
    file = tmp_path_factory.mktemp("samples") / "toy.root"
    write_sample(file, sample)
    return file


@pytest.fixture(scope="module")
def splits(path):
    return {split: read_clusters(path, split=split) for split in ("train", "validation", "test")}


@pytest.fixture(scope="module")
def pair(path):
    return fit_apart(path, ENERGY)


def medians(energy, clusters):
    return [np.median(energy[mask] / clusters.e_true[mask]) for mask in clusters.species.values()]


def test_each_cluster_is_calibrated_by_the_network_of_its_own_species(path, splits, pair):
    energy = energy_apart(pair, path, splits["test"], split="test")
    assert medians(energy, splits["test"]) == pytest.approx([1.0, 1.0], abs=0.03)
    swapped = energy_apart(
        {"pi0": pair["pic"], "pic": pair["pi0"]}, path, splits["test"], split="test"
    )
    assert medians(swapped, splits["test"]) == pytest.approx([1.5, 1.0 / 1.5], rel=0.06)


def test_trees_of_each_species_calibrate_it(splits):
    trees = fit_trees_apart(splits["train"], splits["validation"], config=TREES)
    assert medians(trees_energy_apart(trees, splits["test"]), splits["test"]) == pytest.approx(
        [1.0, 1.0], abs=0.04
    )
