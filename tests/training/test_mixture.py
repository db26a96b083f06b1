"""A mixture gives each stream its share of every batch, the first one once an epoch and the others
as often as is needed.
"""

from __future__ import annotations

import numpy as np
import pytest
from factories import make_sample

from pfcalib.errors import ConfigError
from pfcalib.features.augment import AugmentConfig
from pfcalib.features.targets import TargetConfig
from pfcalib.geometry import BARREL, WINDOW
from pfcalib.samples.write import write_sample
from pfcalib.training.stream import ClusterStream, MixedStream

# clusters, cells, shift of truthE
SIZES = {"first": (300, WINDOW, 0.0), "second": (60, WINDOW, 300.0), "barrel": (90, BARREL, 600.0)}


@pytest.fixture(scope="module")
def paths(tmp_path_factory):
    """Samples whose clusters can be told apart: truthE counts them."""
    folder, rng = tmp_path_factory.mktemp("samples"), np.random.default_rng(3)
    for name, (n, grid, shift) in SIZES.items():
        sample = make_sample(rng, n, grid)
        sample.scalars["truthE"] = (shift + 1.0 + np.arange(n)).astype(np.float32)
        write_sample(folder / f"{name}.root", sample)
    return {name: folder / f"{name}.root" for name in SIZES}


def stream(path, batch_size, **options):
    """Its one scalar is log10(truthE), the number of the cluster."""
    return ClusterStream(
        path, split="all", balance=None, scalars=("truthE",), batch_size=batch_size, **options
    )


def numbers(batch):
    return np.round(10.0 ** batch[0]["scalars"][:, 0].astype(np.float64)).astype(int) - 1


def epoch_of(mixed):
    return [numbers(mixed[i]) for i in range(len(mixed))]


def test_the_batch_sizes_are_the_shares(paths):
    mixed = MixedStream(
        [stream(paths["first"], 20), stream(paths["second"], 8), stream(paths["barrel"], 4)]
    )
    assert mixed.batch_size == 32
    for place in epoch_of(mixed)[:-1]:
        assert [np.count_nonzero(place // 300 == i) for i in range(3)] == [20, 8, 4]


def test_every_cluster_of_the_first_stream_comes_once_and_the_others_come_equally_often(paths):
    first, second = stream(paths["first"], 20), stream(paths["second"], 16)
    mixed = MixedStream([first, second])
    seen = np.concatenate(epoch_of(mixed))
    counts = np.bincount(seen, minlength=360)
    assert counts[:300].sum() == first.n_clusters
    assert set(counts[:300]) == {0, 1} or set(counts[:300]) == {1}
    chosen = counts[300:][counts[300:] > 0]
    assert len(chosen) == second.n_clusters
    assert chosen.max() - chosen.min() <= 1
    assert chosen.sum() == 16 * len(mixed)
    assert mixed.n_clusters == len(seen)


def test_the_epoch_alone_decides_the_order(paths):
    one, two = (
        MixedStream([stream(paths["first"], 20), stream(paths["second"], 8)]) for _ in range(2)
    )
    first = epoch_of(one)
    assert all(map(np.array_equal, first, epoch_of(two)))
    one.on_epoch_end()
    second = epoch_of(one)
    assert not all(map(np.array_equal, first, second))
    two.set_epoch(1)
    assert all(map(np.array_equal, second, epoch_of(two)))
    two.set_epoch(0)
    assert np.array_equal(numbers(two[2]), first[2])


def test_other_cells_and_other_noise_may_be_mixed_and_stay_with_their_targets(paths):
    options = {"target": TargetConfig(), "augment": AugmentConfig(noise=1.0)}
    parts = [stream(paths["first"], 12, **options), stream(paths["barrel"], 6, **options)]
    inputs, answers, weights = MixedStream(parts)[0]
    assert inputs["pixels"].shape == (18, 936)
    assert answers.shape == (18, 1)
    assert weights.shape == (18,)
    alone = parts[0][0]
    np.testing.assert_array_equal(inputs["pixels"][:12], alone[0]["pixels"])
    np.testing.assert_array_equal(answers[:12], alone[1])
    np.testing.assert_array_equal(weights[:12], alone[2])
    chosen = np.searchsorted(parts[1].column("truthE"), numbers((inputs,))[12:] + 1.0)
    np.testing.assert_array_equal(weights[12:], parts[1].weights[chosen])


def test_streams_that_do_not_go_together_are_refused(paths):
    first = stream(paths["first"], 20)
    for other in (
        stream(paths["second"], 8, target=TargetConfig()),
        stream(paths["second"], 8, kind="layers"),
    ):
        with pytest.raises(ConfigError, match="must have the same inputs, targets"):
            MixedStream([first, other])
    with pytest.raises(ConfigError, match="must have the same inputs"):
        MixedStream([])
