"""Feeds hold the same clusters, and measurements answer from processes of their own."""

from __future__ import annotations

import dataclasses
import mmap
import time

import numpy as np
import pytest
from factories import make_sample
from studies.throughput import (
    FEEDS,
    MemoryWatch,
    ThroughputConfig,
    feed_alone,
    measure,
    measure_all,
    open_feed,
    resident,
    split_sample,
    train,
)

from pfcalib.errors import ConfigError, PfcalibError
from pfcalib.features.images import build_images
from pfcalib.features.inputs import build_inputs
from pfcalib.samples.read import read_sample
from pfcalib.samples.write import write_sample

N = 400


@pytest.fixture(scope="module")
def sample():
    return make_sample(np.random.default_rng(5), N + 30)


@pytest.fixture(scope="module")
def files(sample, tmp_path_factory):
    folder = tmp_path_factory.mktemp("throughput")
    write_sample(folder / "whole.root", sample)
    return split_sample(folder / "whole.root", [100, N], folder)


@pytest.fixture
def config(files, tmp_path):
    options = {
        "network": "dnn",
        "options": {"widths": [8]},
        "batch_size": 16,
        "n_warm": 2,
        "n_steps": 6,
        "n_rounds": 3,
        "pool_size": 150,
    }
    return ThroughputConfig(
        task="train",
        feeds=("cache",),
        paths=files[N],
        cache_dir=str(tmp_path / "maps"),
        max_seconds=5.0,
        **options,
    )


def test_smaller_samples_are_the_first_clusters_of_larger_ones(sample, files):
    assert [len(paths) for paths in files.values()] == [3, 6]
    assert files[N][:3] == files[100]
    for size, paths in files.items():
        np.testing.assert_array_equal(read_sample(paths)["clusterE"], sample["clusterE"][:size])


def test_a_sample_that_is_too_small_is_refused(sample, tmp_path):
    write_sample(tmp_path / "small.root", sample[:20])
    with pytest.raises(ConfigError, match="20 clusters, 30 are wanted"):
        split_sample(tmp_path / "small.root", [30], tmp_path, n_parts=1)
    with pytest.raises(ConfigError, match="not 30 clusters"):
        split_sample(tmp_path / "small.root", [20, 30], tmp_path, n_parts=1)


def test_a_second_sample_goes_on_where_the_first_ends(sample, tmp_path):
    for name, part in (("one", sample[:20]), ("two", sample[20:60])):
        write_sample(tmp_path / f"{name}.root", part)
    both = [tmp_path / "one.root", tmp_path / "two.root"]
    files = split_sample(both, [10, 50], tmp_path, n_parts=2)
    np.testing.assert_array_equal(read_sample(files[50])["clusterE"], sample["clusterE"][:50])
    assert len(read_sample(files[10])) == 10


@pytest.mark.parametrize("name", FEEDS)
def test_every_feed_holds_every_cluster_once(name, sample, config):
    feed, n_clusters = open_feed(name, config, "flat")
    assert n_clusters == N
    if name == "memory":
        pixels, labels = feed["x"]["pixels"], feed["y"]
    else:
        data = feed["x"]
        batches = [data[i] for i in range(len(data))] if name in ("root", "cache") else list(data)
        pixels = np.concatenate([np.asarray(batch[0]["pixels"]) for batch in batches])
        labels = np.concatenate([np.asarray(batch[1]) for batch in batches])
    wanted = build_inputs(build_images(sample[:N]), "flat")["pixels"]
    np.testing.assert_allclose(np.sort(pixels.sum(axis=1)), np.sort(wanted.sum(axis=1)), rtol=1e-5)
    assert labels[:, 1].sum() == sample[:N].is_em.sum()


def test_feeds_of_a_comparison_take_turns(config):
    (rates, processor_rates), n_clusters = train(
        dataclasses.replace(config, task="compare", feeds=("memory", "root", "cache"))
    )
    assert n_clusters == N
    assert np.shape(rates) == np.shape(processor_rates) == (3, 3)
    assert np.all(np.array(rates) > 0.0)


def test_an_epoch_is_fetched_without_a_network(config):
    for name in ("root", "memory", "tfdata"):
        (rates, processor_rates), _ = feed_alone(
            dataclasses.replace(config, task="feed", feeds=(name,), kind="layers")
        )
        assert np.shape(rates) == np.shape(processor_rates) == (3, 1)
        assert np.all(np.array(rates) > 0.0)


def test_memory_that_is_taken_is_seen_and_told_from_pages_of_files():
    size = 50_000_000
    _, own_before, files_before = resident()
    watch = MemoryWatch()
    watch.start()
    # new pages, which an array need not take: it may get memory that had been freed
    with mmap.mmap(-1, size, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS) as block:
        block.write(bytes(size))
        total, own, files = resident()
        time.sleep(0.2)  # ten looks of the watch
        found = watch.stop()
    assert total == own + files
    assert own > own_before + 40.0
    assert abs(files - files_before) < 10.0
    assert found["peak_mb"] > watch.start_mb + 40.0
    assert found["peak_mb"] == pytest.approx(found["anonymous_mb"] + found["file_mb"])


def test_a_process_of_its_own_answers(config):
    lines = []
    (found,) = measure_all([config], say=lines.append)
    assert found.n_clusters == N
    assert found.rates.shape == (5, 1)
    assert found.peak_mb >= found.start_mb > 50.0
    assert found.anonymous_mb + found.file_mb == pytest.approx(found.peak_mb)
    assert lines[0].startswith("train cache, 400 clusters, 1 workers: ")


def test_a_process_that_fails_says_why(config):
    with pytest.raises(PfcalibError, match=r"failed \(1\): .*no such file"):
        measure(dataclasses.replace(config, paths=("gone.root",)))


def test_what_cannot_be_measured_is_refused(config):
    for wrong, message in (
        (("tape",), "unknown feeds tape"),
        (("root", "cache"), "takes one feed"),
        ((), "takes one feed"),
    ):
        with pytest.raises(ConfigError, match=message):
            dataclasses.replace(config, feeds=wrong)
