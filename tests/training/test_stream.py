"""The stream gives every chosen cluster once an epoch, in an order that its seed alone decides,
whoever fetches the batches.
"""

import multiprocessing
import operator
import pickle
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

import keras
import numpy as np
import pytest
from factories import make_sample
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pfcalib.errors import BadFileError, ConfigError, ValidationError
from pfcalib.features.augment import AugmentConfig
from pfcalib.features.images import build_images
from pfcalib.features.inputs import INPUT_SHAPES, build_inputs
from pfcalib.features.points import build_points
from pfcalib.features.scalars import MOMENT_COLUMNS
from pfcalib.features.targets import TargetConfig, flat_weights
from pfcalib.geometry import BARREL, WINDOW
from pfcalib.samples.schema import concatenate
from pfcalib.samples.select import SelectionConfig, choose_clusters
from pfcalib.samples.write import write_sample
from pfcalib.training.stream import ClusterStream


@pytest.fixture(scope="module")
def samples():
    rng = np.random.default_rng(7)
    return [make_sample(rng, n) for n in (300, 1, 200)]


@pytest.fixture(scope="module")
def paths(samples, tmp_path_factory):
    folder = tmp_path_factory.mktemp("samples")
    for i, sample in enumerate(samples):
        write_sample(folder / f"{i}.root", sample)
    return [folder / f"{i}.root" for i in range(len(samples))]


def epoch_of(stream):
    """All inputs and labels of one epoch, in the order of the batches."""
    batches = [stream[i] for i in range(len(stream))]
    return {
        name: np.concatenate([batch[0][name] for batch in batches]) for name in batches[0][0]
    }, np.concatenate([batch[1] for batch in batches])


@pytest.mark.parametrize(
    ("kind", "source"),
    [
        *((kind, "cache") for kind in (*INPUT_SHAPES, "layer:EMB2")),
        *((kind, "root") for kind in ("flat", "points")),
    ],
)
def test_batches_are_the_inputs_of_the_sample(samples, paths, kind, source):
    options = {"split": "test", "balance": None, "shuffle": False, "batch_size": 16}
    stream = ClusterStream(paths, source=source, kind=kind, moments=True, **options)
    whole = concatenate(samples)
    chosen = whole[choose_clusters(whole.scalars, split="test").rows]
    layers = (kind.removeprefix("layer:"),) if ":" in kind else stream.layers
    wanted = {"moments": np.column_stack([chosen[name] for name in MOMENT_COLUMNS])}
    if kind == "points":
        wanted |= {"points": build_points(chosen)}
    elif layers:
        per_sigma = build_images(chosen, layers=layers, normalise_by=None, significance=True)
        images = build_images(chosen, layers=layers)
        wanted |= build_inputs(images, kind, significance=per_sigma)
    inputs, labels = epoch_of(stream)
    assert {name: array.shape[1:] for name, array in inputs.items()} == stream.input_shapes
    for name, array in wanted.items():
        np.testing.assert_allclose(inputs[name], array, rtol=1e-6)
    np.testing.assert_array_equal(labels[:, 1], chosen.is_em)
    np.testing.assert_array_equal(labels.sum(axis=1), 1.0)
    np.testing.assert_array_equal(stream.column("truthE"), chosen["truthE"])


@settings(
    max_examples=8, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(
    seed=st.integers(0, 2**31),
    batch_size=st.integers(7, 600),
    balance=st.sampled_from(["subsample", "weight", None]),
    source=st.sampled_from(["cache", "root"]),
)
def test_every_chosen_cluster_comes_exactly_once_an_epoch(
    samples, paths, seed, batch_size, balance, source
):
    stream = ClusterStream(
        paths,
        source=source,
        pool_size=200,
        seed=seed,
        batch_size=batch_size,
        balance=balance,
        scalars=("clusterE", "clusterEta"),
    )
    whole = concatenate(samples)
    chosen = whole[choose_clusters(whole.scalars, split="train", balance=balance, seed=seed).rows]
    for _ in range(2):
        inputs, labels = epoch_of(stream)
        assert len(labels) == stream.n_clusters == len(chosen)
        wanted = np.column_stack([np.log10(chosen["clusterE"]), chosen["clusterEta"]])
        np.testing.assert_allclose(
            np.sort(inputs["scalars"], axis=0), np.sort(wanted, axis=0), rtol=1e-5, atol=1e-7
        )
        stream.on_epoch_end()


@pytest.mark.parametrize("source", ["cache", "root"])
def test_scalars_images_and_labels_of_a_shuffled_batch_belong_together(paths, source):
    shuffled = ClusterStream(paths, source=source, pool_size=1, balance=None, scalars=("clusterE",))
    ordered = ClusterStream(paths, shuffle=False, balance=None, scalars=("clusterE",))
    (inputs, labels), (wanted, wanted_labels) = epoch_of(shuffled), epoch_of(ordered)
    order = np.argsort(inputs["scalars"][:, 0]), np.argsort(wanted["scalars"][:, 0])
    assert not np.array_equal(inputs["scalars"], wanted["scalars"])
    np.testing.assert_array_equal(inputs["pixels"][order[0]], wanted["pixels"][order[1]])
    np.testing.assert_array_equal(labels[order[0]], wanted_labels[order[1]])


@pytest.mark.parametrize("source", ["cache", "root"])
def test_the_seed_and_the_epoch_decide_the_order(paths, source):
    one, two, other = (
        ClusterStream(paths, source=source, seed=seed, balance=None) for seed in (3, 3, 4)
    )
    first = epoch_of(one)[0]["pixels"]
    np.testing.assert_array_equal(first, epoch_of(two)[0]["pixels"])
    assert not np.array_equal(first, epoch_of(other)[0]["pixels"])
    one.on_epoch_end()
    second = epoch_of(one)[0]["pixels"]
    assert not np.array_equal(first, second)
    two.set_epoch(1)
    np.testing.assert_array_equal(second, epoch_of(two)[0]["pixels"])


def test_an_epoch_mixes_the_files(samples, paths):
    """In the order of the files, the first half of the clusters would be of the first file."""
    stream = ClusterStream(
        paths, split="all", balance=None, select=SelectionConfig(min_cluster_e=1e-6), batch_size=250
    )
    assert stream.n_clusters == 501
    first_file = stream._order[:250] < 300
    assert 0.5 < first_file.mean() < 0.7


def test_no_event_is_in_two_splits(paths):
    train, validation, test = (
        set(ClusterStream(paths, split=split, balance=None).column("eventNumber").tolist())
        for split in ("train", "validation", "test")
    )
    assert len(train | validation | test) == len(train) + len(validation) + len(test)


def test_weights_come_only_when_asked_for(paths):
    inputs, labels, weights = ClusterStream(paths, balance="weight")[0]
    assert len(inputs["pixels"]) == len(labels) == len(weights)
    assert weights.dtype == np.float32
    assert len(ClusterStream(paths)[0]) == 2


@pytest.mark.parametrize("source", ["cache", "root"])
def test_threads_fetch_what_one_thread_does(paths, source):
    stream = ClusterStream(paths, source=source, pool_size=1, batch_size=7)
    with ThreadPoolExecutor(4) as pool:
        threaded = list(pool.map(stream.__getitem__, range(len(stream))))
    for i, (inputs, labels) in enumerate(threaded):
        np.testing.assert_array_equal(inputs["pixels"], stream[i][0]["pixels"])
        np.testing.assert_array_equal(labels, stream[i][1])


def test_a_spawned_process_fetches_the_same_batch_and_the_maps_are_not_sent(paths):
    stream = ClusterStream(paths, batch_size=64)
    stream.set_epoch(5)
    assert len(pickle.dumps(stream)) < 100 * stream.n_clusters + 10_000
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        inputs, labels = pool.apply(operator.getitem, (stream, 2))
    np.testing.assert_array_equal(inputs["pixels"], stream[2][0]["pixels"])
    np.testing.assert_array_equal(labels, stream[2][1])


class Recorder(ClusterStream):
    """A stream that notes the epoch of every batch fetched."""

    def __getitem__(self, index):
        vars(self).setdefault("fetched", []).append(self.epoch)
        return super().__getitem__(index)


@pytest.mark.parametrize(
    ("source", "workers", "first"),
    [
        ("cache", 0, 0),
        ("cache", 1, 3),
        ("cache", 2, 0),
        ("cache", 8, 3),
        ("root", 1, 0),
        ("root", 4, 3),
    ],
)
def test_keras_trains_on_the_order_of_each_epoch(paths, source, workers, first):
    """Keras ends epochs of its own before a fit, so the order is set from the number that fit
    counts.
    """
    stream = Recorder(paths, source=source, batch_size=64, workers=workers)
    pixels = keras.Input((936,), name="pixels")
    model = keras.Model({"pixels": pixels}, keras.layers.Dense(2, activation="softmax")(pixels))
    model.compile(optimizer="sgd", loss="categorical_crossentropy")
    history = model.fit(
        stream,
        initial_epoch=first,
        epochs=first + 2,
        shuffle=False,
        verbose=0,
        callbacks=[
            keras.callbacks.LambdaCallback(
                on_epoch_begin=lambda epoch, logs: stream.set_epoch(epoch)
            )
        ],
    )
    assert np.isfinite(history.history["loss"]).all()
    assert stream.fetched[-2 * len(stream) :] == [first] * len(stream) + [first + 1] * len(stream)
    assert model.predict(ClusterStream(paths, split="test", shuffle=False), verbose=0).shape[1] == 2


SPAWNED = """
import multiprocessing, sys
import keras
from pfcalib.training.stream import ClusterStream

if __name__ == "__main__":
    multiprocessing.set_start_method("spawn")
    stream = ClusterStream(sys.argv[1:], batch_size=64, workers=2, use_multiprocessing=True)
    pixels = keras.Input((936,), name="pixels")
    model = keras.Model({"pixels": pixels}, keras.layers.Dense(2, activation="softmax")(pixels))
    model.compile(optimizer="sgd", loss="categorical_crossentropy")
    print(len(model.fit(stream, epochs=1, shuffle=False, verbose=0).history["loss"]))
"""


def test_keras_trains_with_spawned_workers(paths, tmp_path):
    script = tmp_path / "spawned.py"
    script.write_text(SPAWNED)
    done = subprocess.run(
        [sys.executable, script, *paths], capture_output=True, text=True, check=False, timeout=300
    )
    assert done.stdout.strip() == "1", done.stderr


def test_what_a_stream_keeps_of_a_cluster_is_few_bytes(paths):
    for source in ("cache", "root"):
        stream = ClusterStream(paths, source=source, split="all", balance=None)
        kept = sum(
            value.nbytes
            for value in vars(stream).values()
            if isinstance(value, np.ndarray) and value.flags.owndata
        )
        assert kept <= 16 * stream.n_clusters
    stream = ClusterStream(paths, split="all", balance=None, target=TargetConfig())
    kept = sum(
        value.nbytes
        for value in vars(stream).values()
        if isinstance(value, np.ndarray) and value.flags.owndata
    )
    assert kept <= 24 * stream.n_clusters


def test_what_cannot_be_streamed_is_refused(paths, tmp_path, rng):
    write_sample(tmp_path / "barrel.root", make_sample(rng, 5, BARREL))
    with pytest.raises(ValidationError, match=r"barrel\.root.*same cells"):
        ClusterStream([paths[0], tmp_path / "barrel.root"])
    with pytest.raises(ValidationError, match="no cluster"):
        ClusterStream(paths, select=SelectionConfig(min_cluster_e=1e6))
    with pytest.raises(BadFileError, match="no such file"):
        ClusterStream(tmp_path / "gone.root")
    with pytest.raises(ConfigError, match="several processes cannot share"):
        ClusterStream(paths, source="root", workers=2, use_multiprocessing=True)
    choices = {
        "kind": "round",
        "split": "training",
        "balance": "both",
        "batch_size": 0,
        "scalars": ("colour",),
        "source": "tape",
        "pool_size": 0,
    }
    for wrong in ({name: value} for name, value in choices.items()):
        with pytest.raises(
            ConfigError,
            match=str(
                next(iter(wrong.values()))[0] if "scalars" in wrong else next(iter(wrong.values()))
            ),
        ):
            ClusterStream(paths, **wrong)
    with pytest.raises(IndexError):
        ClusterStream(paths)[10_000]


def test_the_window_grid_streams_like_the_barrel(tmp_path, rng):
    for grid in (WINDOW, BARREL):
        write_sample(tmp_path / f"{grid.name}.root", make_sample(rng, 50, grid))
        assert (
            ClusterStream(tmp_path / f"{grid.name}.root", balance=None)[0][0]["pixels"].shape[1]
            == 936
        )


def batches_of(stream):
    """Inputs, answers and weights of one epoch."""
    batches = [stream[i] for i in range(len(stream))]
    inputs = {name: np.concatenate([batch[0][name] for batch in batches]) for name in batches[0][0]}
    return inputs, *(
        np.concatenate([batch[i] for batch in batches]) for i in range(1, len(batches[0]))
    )


@pytest.mark.parametrize("source", ["cache", "root"])
@pytest.mark.parametrize("with_class", [False, True])
def test_targets_are_the_logarithm_of_true_over_measured_energy(samples, paths, source, with_class):
    target = TargetConfig(with_class=with_class)
    stream = ClusterStream(
        paths,
        source=source,
        split="train",
        balance=None,
        shuffle=False,
        target=target,
        batch_size=64,
    )
    _, answers, weights = batches_of(stream)
    chosen = concatenate(samples)[stream.rows]
    e_true = chosen["cluster_ENG_CALIB_TOT"].astype(np.float64)
    np.testing.assert_allclose(
        answers[:, -1], np.log(e_true / chosen["clusterE"]), rtol=1e-5, atol=1e-6
    )
    np.testing.assert_allclose(weights, flat_weights(e_true, chosen.is_em), rtol=1e-5)
    assert answers.shape == (stream.n_clusters, 3 if with_class else 1)
    assert answers.dtype == weights.dtype == np.float32
    if with_class:
        np.testing.assert_array_equal(answers[:, :2], stream.labels)


def test_targets_weights_and_images_of_a_shuffled_batch_belong_together(paths):
    options = {"balance": None, "target": TargetConfig(), "scalars": ("clusterE",)}
    shuffled, ordered = (
        batches_of(ClusterStream(paths, shuffle=shuffle, **options)) for shuffle in (True, False)
    )
    order = [np.argsort(part[0]["scalars"][:, 0]) for part in (shuffled, ordered)]
    np.testing.assert_array_equal(shuffled[0]["pixels"][order[0]], ordered[0]["pixels"][order[1]])
    for i in (1, 2):
        np.testing.assert_array_equal(shuffled[i][order[0]], ordered[i][order[1]])


def test_a_target_that_is_not_flat_brings_no_weights_unless_the_classes_are_balanced_by_them(paths):
    flat, plain = TargetConfig(), TargetConfig(flat=False)
    assert len(ClusterStream(paths, balance=None, target=plain)[0]) == 2
    balanced = [
        ClusterStream(paths, balance="weight", target=target) for target in (None, plain, flat)
    ]
    np.testing.assert_array_equal(balanced[0].weights, balanced[1].weights)
    assert not np.array_equal(balanced[0].weights, balanced[2].weights)


def test_a_cluster_without_a_target_is_told_before_the_training(tmp_path, rng):
    sample = make_sample(rng, 40)
    sample.scalars["cluster_ENG_CALIB_TOT"][:] = 0.0
    write_sample(tmp_path / "data.root", sample)
    with pytest.raises(ValidationError, match=r"true energy of cluster 0 is 0\.0 GeV"):
        ClusterStream(tmp_path / "data.root", balance=None, target=TargetConfig())


@pytest.mark.parametrize("source", ["cache", "root"])
@pytest.mark.parametrize("scale", ["log_ratio", "ratio"])
def test_an_augmented_batch_is_consistent_in_pixels_scalars_and_target(
    samples, paths, source, scale
):
    target = TargetConfig(scale=scale)
    options = {
        "source": source,
        "split": "train",
        "balance": None,
        "shuffle": False,
        "target": target,
        "scalars": ("clusterE", "clusterEta"),
    }
    plain = batches_of(ClusterStream(paths, **options))
    changed = batches_of(ClusterStream(paths, augment=AugmentConfig(noise=1.0, cut=3.0), **options))
    chosen = concatenate(samples)[ClusterStream(paths, **options).rows]
    cluster_e = 10.0 ** changed[0]["scalars"][:, 0].astype(np.float64)
    moved = changed[0]["scalars"][:, 0] != plain[0]["scalars"][:, 0]
    assert 0.6 < moved.mean() < 0.95
    np.testing.assert_allclose(
        target.decode(changed[1][:, 0], cluster_e), chosen["cluster_ENG_CALIB_TOT"], rtol=1e-5
    )
    np.testing.assert_array_equal(changed[2], plain[2])
    np.testing.assert_array_equal(changed[0]["scalars"][:, 1], plain[0]["scalars"][:, 1])
    np.testing.assert_array_equal(changed[0]["pixels"][~moved], plain[0]["pixels"][~moved])


def test_the_pixels_of_an_augmented_cluster_are_shares_of_its_new_energy(tmp_path, rng):
    """All cells lie in the window and in layers with an image, so the pixels sum to one before and
    after.
    """
    sample = make_sample(rng, 200)
    keep = np.isin(sample.geo.sampling[sample.cells["cluster_cell_ID"]], (1, 2, 3, 12, 13, 14))
    sample.cells["cluster_cell_E"][~keep] = 0.0
    owner = np.repeat(np.arange(200), np.diff(sample.offsets))
    sample.scalars["clusterE"] = np.bincount(owner, sample.cells["cluster_cell_E"], 200).astype(
        np.float32
    )
    sample.geo.sigma[:] = np.where(np.isin(sample.geo.sampling, (1, 2, 3, 12, 13, 14)), 0.05, 0.0)
    write_sample(tmp_path / "inside.root", sample)
    options = {
        "split": "all",
        "balance": None,
        "shuffle": False,
        "select": SelectionConfig(min_cluster_e=1e-6),
        "target": TargetConfig(),
    }
    plain, changed = (
        batches_of(ClusterStream(tmp_path / "inside.root", augment=augment, **options))
        for augment in (None, AugmentConfig())
    )
    inside = np.abs(plain[0]["pixels"].sum(axis=1) - 1.0) < 1e-5
    assert inside.mean() > 0.5
    np.testing.assert_allclose(changed[0]["pixels"].sum(axis=1)[inside], 1.0, atol=1e-4)
    assert np.mean(np.any(changed[0]["pixels"] != plain[0]["pixels"], axis=1)) > 0.6


def test_seed_and_epoch_decide_the_augmentation(paths):
    options = {"balance": None, "shuffle": False, "augment": AugmentConfig()}
    one, two = (ClusterStream(paths, **options) for _ in range(2))
    first = epoch_of(one)[0]["pixels"]
    np.testing.assert_array_equal(first, epoch_of(two)[0]["pixels"])
    one.set_epoch(1)
    assert not np.array_equal(first, epoch_of(one)[0]["pixels"])
    one.set_epoch(0)
    np.testing.assert_array_equal(first, epoch_of(one)[0]["pixels"])
    np.testing.assert_array_equal(one[1][0]["pixels"], two[1][0]["pixels"])
    assert not np.array_equal(first, epoch_of(ClusterStream(paths, seed=2, **options))[0]["pixels"])


def test_augmentation_leaves_no_trace_in_the_stream(paths):
    stream = ClusterStream(
        paths,
        balance=None,
        shuffle=False,
        augment=AugmentConfig(),
        scalars=("clusterE",),
        target=TargetConfig(),
    )
    first = batches_of(stream)
    second = batches_of(stream)
    for name in first[0]:
        np.testing.assert_array_equal(first[0][name], second[0][name])
    np.testing.assert_array_equal(first[1], second[1])
    np.testing.assert_array_equal(
        stream._scalar_input[:, 0],
        batches_of(ClusterStream(paths, balance=None, shuffle=False, scalars=("clusterE",)))[0][
            "scalars"
        ][:, 0],
    )
