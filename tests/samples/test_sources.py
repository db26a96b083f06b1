"""Clusters come from caches and from ROOT alike, in orders that are as random as is said, at
bounded memory.
"""

import pickle
from collections import Counter

import numpy as np
import pytest
from factories import make_sample
from scipy import stats

from pfcalib.errors import BadFileError, ConfigError, ValidationError
from pfcalib.geometry import BARREL
from pfcalib.samples import sources
from pfcalib.samples.schema import concatenate
from pfcalib.samples.sources import CacheSource, RootSource
from pfcalib.samples.write import SampleWriter, write_sample

N_EPOCHS = 200
CRITICAL = 1e-4  # probability below which a hypothesis is given up; the seeds are fixed


@pytest.fixture(scope="module")
def samples():
    rng = np.random.default_rng(3)
    return [make_sample(rng, n, max_cells=8) for n in (500, 300, 700)]


@pytest.fixture(scope="module")
def paths(samples, tmp_path_factory):
    folder = tmp_path_factory.mktemp("sources")
    for i, sample in enumerate(samples):
        # baskets of 100
        with SampleWriter(folder / f"{i}.root", sample.geo, {}, chunk=100) as writer:
            for part in (sample[start : start + 100] for start in range(0, len(sample), 100)):
                writer.extend(part.scalars, part.offsets, part.cells)
    return [folder / f"{i}.root" for i in range(len(samples))]


@pytest.fixture(autouse=True)
def short_ranges(monkeypatch):
    monkeypatch.setattr(sources, "_MIN_RANGE", 100)


def open_source(name, paths):
    return CacheSource(paths) if name == "cache" else RootSource(paths, pool_size=500)


def gathered(source, rows):
    """Cells of some clusters as two flat arrays, in the order asked for."""
    found = {}
    for part in source.cells(rows):
        for place, row in zip(part.place, part.row, strict=True):
            cells = slice(part.offsets[row], part.offsets[row + 1])
            found[int(place)] = part.cell[cells], part.energy[cells]
    return tuple(np.concatenate([found[i][k] for i in range(len(rows))]) for k in (0, 1))


@pytest.mark.parametrize("name", ["cache", "root"])
def test_any_clusters_can_be_had_in_any_order(name, samples, paths, rng):
    whole, rows = concatenate(samples), rng.permutation(1500)[:400]
    cell, energy = gathered(open_source(name, paths), rows)
    np.testing.assert_array_equal(cell, whole[rows].cells["cluster_cell_ID"])
    np.testing.assert_array_equal(energy, whole[rows].cells["cluster_cell_E"])


@pytest.mark.parametrize("name", ["cache", "root"])
def test_scalars_come_in_the_order_of_the_files(name, samples, paths):
    source = open_source(name, paths)
    found = np.concatenate([chunk["truthE"] for chunk in source.scan(("truthE", "clusterE"))])
    np.testing.assert_array_equal(found, concatenate(samples)["truthE"])
    with pytest.raises(ConfigError, match="no column 'colour'"):
        list(source.scan(("colour",)))


@pytest.mark.parametrize("name", ["cache", "root"])
def test_a_source_can_be_sent_to_another_process_without_its_data(name, samples, paths):
    source = open_source(name, paths)
    sent = pickle.dumps(source)
    assert len(sent) < 5000
    there = pickle.loads(sent)  # noqa: S301 - our own bytes
    np.testing.assert_array_equal(
        gathered(there, np.arange(20))[1], gathered(source, np.arange(20))[1]
    )


def positions(source, rows):
    """Place of each cluster in the order of many epochs, shape (n_epochs, n_clusters)."""
    orders = np.array(
        [source.shuffled(rows, np.random.default_rng([1, epoch])) for epoch in range(N_EPOCHS)]
    )
    assert all(np.array_equal(np.sort(order), np.arange(len(rows))) for order in orders)
    assert len({order.tobytes() for order in orders}) == N_EPOCHS
    return np.argsort(orders, axis=1)


@pytest.mark.parametrize("name", ["cache", "root"])
def test_every_place_in_an_epoch_is_equally_likely_for_every_part_of_the_files(name, paths):
    """Counts over 15 baskets and 15 stretches of the epoch: chi squared for the cache, whose
    clusters are independent of each other.
    """
    place = positions(open_source(name, paths), np.arange(1500))
    basket = np.broadcast_to(np.arange(1500) // 100, place.shape)
    counts = np.histogram2d(basket.ravel(), place.ravel() // 100, bins=15)[0]
    if name == "cache":
        assert (
            stats.chi2.sf((((counts - counts.mean()) ** 2) / counts.mean()).sum(), 14 * 14)
            > CRITICAL
        )
    # clusters of a basket travel together through the pool: the error is that of the mean place of
    # a basket over the epochs
    mean = place.reshape(N_EPOCHS, 15, 100).mean(axis=2)
    pull = (mean.mean(axis=0) - 749.5) / (mean.std(axis=0) / np.sqrt(N_EPOCHS))
    assert stats.chi2.sf((pull**2).sum() * 14 / 15, 14) > CRITICAL


def test_the_cache_shuffles_the_whole_sample_alike(paths):
    """Displacements are those of a random permutation, and neighbours are nothing special."""
    place = positions(CacheSource(paths), np.arange(1500))
    uniform = (place.ravel() + 0.5) / 1500
    assert stats.kstest(uniform, "uniform").pvalue > CRITICAL
    assert abs(np.abs(place - np.arange(1500)).mean() / 1500 - 1 / 3) < 5e-3
    correlation = [stats.spearmanr(row, np.arange(1500)).statistic for row in place]
    assert abs(np.mean(correlation)) < 4 / np.sqrt(1499 * N_EPOCHS)
    assert np.std(correlation) == pytest.approx(1 / np.sqrt(1499), rel=0.2)
    assert np.abs(np.diff(place, axis=1)).mean() / 1500 == pytest.approx(1 / 3, rel=0.02)


def test_the_pool_mixes_as_many_baskets_as_it_holds(paths):
    """Place and file are not correlated on average, though more in one epoch than in a permutation,
    as baskets stay within reach of the pool.
    """
    source = RootSource(paths, pool_size=500)
    assert source.n_pool == 5
    place = positions(source, np.arange(1500))
    correlation = [stats.spearmanr(row, np.arange(1500)).statistic for row in place]
    assert abs(np.mean(correlation)) < 4 * np.std(correlation) / np.sqrt(N_EPOCHS)
    # 15 baskets, not 1500 clusters, are what is permuted
    assert 1 / np.sqrt(1499) < np.std(correlation) < 1.5 / np.sqrt(15)
    together = np.abs(np.diff(place.reshape(N_EPOCHS, 15, 100), axis=2)).mean()
    assert 0.10 < together / 1500 < 1 / 3
    baskets = np.argsort(place, axis=1) // 100
    mixed = np.mean(
        [len(set(row[start : start + 50])) for row in baskets for start in range(0, 1500, 50)]
    )
    assert mixed > 4.0


def test_a_pool_that_holds_everything_is_a_permutation(paths):
    place = positions(RootSource(paths, pool_size=10_000), np.arange(1500))
    correlation = [stats.spearmanr(row, np.arange(1500)).statistic for row in place]
    assert np.std(correlation) == pytest.approx(1 / np.sqrt(1499), rel=0.2)


def test_an_epoch_reads_every_basket_once_and_keeps_no_more_than_the_pool(paths, monkeypatch):
    source, read, held = RootSource(paths, pool_size=300), Counter(), []
    rows = np.sort(np.random.default_rng(2).permutation(1500)[:1000])
    order = source.shuffled(rows, np.random.default_rng(1))
    original = RootSource._read

    def noted(self, part, columns):
        read[part] += 1
        return original(self, part, columns)

    monkeypatch.setattr(RootSource, "_read", noted)
    for start in range(0, len(order), 32):
        list(source.cells(rows[order[start : start + 32]]))
        held.append(len(source._pool))
    assert set(read.values()) == {1}
    assert len(read) == 15
    assert max(held) == source.n_pool + 1 == 4


def test_files_of_other_cells_and_files_that_change_are_refused(samples, paths, tmp_path, rng):
    write_sample(tmp_path / "barrel.root", make_sample(rng, 5, BARREL))
    for name in ("cache", "root"):
        with pytest.raises(ValidationError, match=r"barrel\.root.*same cells"):
            open_source(name, [paths[0], tmp_path / "barrel.root"])
    write_sample(tmp_path / "changed.root", samples[0])
    source = RootSource([tmp_path / "changed.root"], pool_size=500)
    write_sample(tmp_path / "changed.root", samples[1])
    with pytest.raises(BadFileError, match="replaced or changed"):
        list(source.scan(("clusterE",)))
