"""The shards of a sample together are the sample, and a network trained on them is the one that is
trained on it.
"""

import dataclasses

import numpy as np
import pytest

from pfcalib.columns import JAGGED, SCALARS
from pfcalib.errors import ConfigError
from pfcalib.samples.check import check_sample
from pfcalib.samples.locate import as_paths
from pfcalib.samples.read import read_sample
from pfcalib.simulation.produce import ProduceConfig, produce_sample
from pfcalib.simulation.shards import Shard, produce_shard
from pfcalib.training.fit import TrainConfig
from pfcalib.training.networks import NetworkConfig, fit_network

CONFIG = ProduceConfig(n_events=330, e_max=50.0, eta_max=0.05, grid="window", chunk=50)

# of Keras with numpy 2
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")


@pytest.fixture(scope="module")
def paths(tmp_path_factory):
    """The whole sample, and a pattern of its three shards."""
    folder = tmp_path_factory.mktemp("shards")
    whole = produce_sample(folder / "whole.root", CONFIG)
    for number in (3, 1):
        produce_shard(folder / f"part_{number}.root", CONFIG, Shard(number, 3))
    several = dataclasses.replace(CONFIG, n_processes=2)
    produce_shard(folder / "part_2.root", several, Shard(2, 3))
    return whole, folder / "part_*.root"


def test_the_shards_together_are_the_whole_sample(paths):
    whole, parts = map(read_sample, paths)
    np.testing.assert_array_equal(parts.offsets, whole.offsets)
    for name in SCALARS:
        np.testing.assert_array_equal(parts[name], whole[name], err_msg=name)
    for name in JAGGED:
        np.testing.assert_array_equal(parts.cells[name], whole.cells[name], err_msg=name)


def test_each_shard_counts_its_own_events_and_says_which_it_is(paths):
    reports = [check_sample(path) for path in as_paths(paths[1])]
    assert all(report.passed for report in reports)
    assert [report.metadata["n_events"] for report in reports] == [100, 100, 130]
    assert [report.metadata["config"]["shard"] for report in reports] == [[1, 3], [2, 3], [3, 3]]


def test_a_network_of_the_shards_is_that_of_the_whole_sample(paths, tmp_path):
    train = TrainConfig(learning_rate=1e-3, batch_size=32, epochs=2, seed=3)
    config = NetworkConfig(name="dnn", options={"widths": [8]}, train=train)
    one, other = (
        fit_network(path, config, folder=tmp_path / name, say=lambda line: None)
        for path, name in zip(paths, ("whole", "parts"), strict=True)
    )
    for name in ("loss", "val_loss"):
        assert one.result.history[name].tolist() == other.result.history[name].tolist()
    for weights, others in zip(one.model.get_weights(), other.model.get_weights(), strict=True):
        np.testing.assert_array_equal(weights, others)


@pytest.mark.parametrize("text", ["0/3", "4/3", "1", "a/b", "1/-3"])
def test_a_shard_that_is_none_is_refused(text):
    with pytest.raises(ConfigError, match="--shard must be K/N"):
        Shard.parse(text)


def test_more_shards_than_chunks_are_refused():
    with pytest.raises(ConfigError, match="330 events are 7 chunks of 50: ask for at most 7"):
        Shard(1, 8).chunks(CONFIG)
    covered = [number for k in range(1, 8) for number in Shard(k, 7).chunks(CONFIG)]
    assert covered == list(range(7))
