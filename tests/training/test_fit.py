"""A training keeps its best weights, stops in time, and goes on after a kill as if nothing had
happened.
"""

from __future__ import annotations

import dataclasses
import math

import keras
import numpy as np
import pytest
from factories import make_sample

from pfcalib.errors import BadFileError, ConfigError
from pfcalib.features.augment import AugmentConfig
from pfcalib.features.targets import TargetConfig
from pfcalib.models.dnn import DnnConfig, build_dnn
from pfcalib.models.families import load_model
from pfcalib.models.heads import HEADS
from pfcalib.samples.write import SampleWriter
from pfcalib.training.fit import (
    ArrayBatches,
    TrainConfig,
    best_epoch,
    fit_model,
    learning_rate,
    read_history,
)
from pfcalib.training.stream import ClusterStream

pytestmark = pytest.mark.filterwarnings(
    "ignore:__array__ implementation doesn't accept a copy keyword:DeprecationWarning"
)  # TensorFlow 2.21 with numpy 2

QUICK = TrainConfig(
    learning_rate=1e-2, batch_size=64, epochs=4, schedule="plateau", plateau_patience=1, seed=5
)
AVERAGED = dataclasses.replace(QUICK, schedule="cosine_steps", ema=0.9, weight_decay=0.1)
SILENT = {"say": lambda line: None}


def make_model():
    keras.utils.set_random_seed(1)
    return build_dnn(DnnConfig(n_pixels=6, widths=(8, 8), dropout=0.2))


@pytest.fixture
def data(rng):
    pixels = rng.normal(size=(600, 6)).astype(np.float32)
    labels = np.eye(2, dtype=np.float32)[(pixels[:, 0] + pixels[:, 1] > 0).astype(int)]
    arrays = ({"pixels": pixels}, labels, rng.uniform(0.5, 1.5, 600).astype(np.float32))
    return tuple(cut(part, slice(0, 400)) for part in arrays), tuple(
        cut(part, slice(400, 600)) for part in arrays
    )


def cut(part, rows):
    return (
        {name: array[rows] for name, array in part.items()}
        if isinstance(part, dict)
        else part[rows]
    )


class Killed(Exception):
    """Stands for the end of the process."""


def killer(after):
    lines = []

    def say(line):
        lines.append(line)
        if len(lines) == after:
            raise Killed

    return say


def test_a_network_learns_and_the_result_tells_how(data, tmp_path):
    lines = []
    model = make_model()
    result = fit_model(model, *data, QUICK, out_dir=tmp_path, say=lines.append)
    assert result.history["val_accuracy"][-1] > 0.8
    assert result.best_epoch == np.argmin(result.history["val_loss"])
    assert result.n_parameters == model.count_params()
    assert result.clusters_per_second > 0
    assert len(lines) == len(result.history["loss"]) == 4
    assert lines[0].startswith("epoch   1/4  loss ")
    with pytest.raises(TypeError):
        result.history["loss"] = None


@pytest.mark.parametrize(("config", "after"), [(QUICK, 1), (QUICK, 3), (AVERAGED, 2)])
def test_a_killed_training_goes_on_as_if_unbroken(data, tmp_path, config, after):
    unbroken_model, broken_model = make_model(), make_model()
    unbroken = fit_model(unbroken_model, *data, config, out_dir=tmp_path / "unbroken", **SILENT)
    with pytest.raises(Killed):
        fit_model(broken_model, *data, config, out_dir=tmp_path / "broken", say=killer(after))
    fresh_model = make_model()
    resumed = fit_model(fresh_model, *data, config, out_dir=tmp_path / "broken", **SILENT)
    for name in ("loss", "accuracy", "val_loss", "val_accuracy", "learning_rate"):
        np.testing.assert_allclose(
            resumed.history[name], unbroken.history[name], rtol=1e-5, err_msg=name
        )
    for first, second in zip(fresh_model.get_weights(), unbroken_model.get_weights(), strict=True):
        np.testing.assert_allclose(first, second, rtol=1e-4, atol=1e-6)


def test_a_finished_training_is_not_repeated(data, tmp_path):
    first = fit_model(make_model(), *data, QUICK, out_dir=tmp_path, **SILENT)
    lines = []
    again = fit_model(make_model(), *data, QUICK, out_dir=tmp_path, say=lines.append)
    assert lines == []
    assert again.seconds == first.seconds


def test_the_model_ends_with_its_best_weights_and_the_file_holds_them(data, tmp_path):
    training, validation = data
    # learns the contrary: the validation only gets worse
    wrong = (training[0], 1.0 - training[1], training[2])
    model = make_model()
    result = fit_model(
        model,
        wrong,
        validation,
        dataclasses.replace(QUICK, epochs=20, patience=2),
        out_dir=tmp_path,
        **SILENT,
    )
    assert result.best_epoch == 0
    assert len(result.history["loss"]) == 3
    inputs, labels, weights = validation
    p = np.asarray(model(inputs, training=False))
    assert np.mean(-weights * np.log(np.sum(p * labels, axis=1))) == pytest.approx(
        result.history["val_loss"][0], rel=1e-4
    )
    np.testing.assert_allclose(
        load_model(tmp_path / "model.keras")(validation[0]), model(validation[0]), rtol=1e-6
    )


def test_only_the_last_and_the_best_checkpoint_stay(data, tmp_path):
    fit_model(make_model(), *data, QUICK, out_dir=tmp_path, **SILENT)
    assert len(list(tmp_path.glob("epoch-*.weights.h5"))) <= 2
    assert not [path for path in tmp_path.iterdir() if path.name.startswith(".")]


def test_weights_and_no_weights_are_both_taken(data, tmp_path):
    (inputs, labels, _), (val_inputs, val_labels, _) = data
    one = dataclasses.replace(QUICK, epochs=1)
    plain = fit_model(
        make_model(),
        (inputs, labels),
        (val_inputs, val_labels),
        one,
        out_dir=tmp_path / "a",
        **SILENT,
    )
    ones = np.ones(len(labels), dtype=np.float32)
    weighted = fit_model(
        make_model(),
        (inputs, labels, ones),
        (val_inputs, val_labels, ones[:200]),
        one,
        out_dir=tmp_path / "b",
        **SILENT,
    )
    assert plain.history["loss"][0] == pytest.approx(weighted.history["loss"][0], rel=1e-5)


def test_a_folder_with_other_settings_is_refused(data, tmp_path):
    fit_model(make_model(), *data, QUICK, out_dir=tmp_path, **SILENT)
    with pytest.raises(ConfigError, match="other settings"):
        fit_model(
            make_model(), *data, dataclasses.replace(QUICK, seed=6), out_dir=tmp_path, **SILENT
        )


def test_a_broken_checkpoint_is_named(data, tmp_path):
    with pytest.raises(Killed):
        fit_model(make_model(), *data, QUICK, out_dir=tmp_path, say=killer(1))
    (tmp_path / "epoch-0001.weights.h5").write_bytes(b"not a file")
    with pytest.raises(BadFileError, match=r"epoch-0001\.weights\.h5"):
        fit_model(make_model(), *data, QUICK, out_dir=tmp_path, **SILENT)


def test_every_epoch_sees_each_cluster_once_in_an_order_of_its_own(data):
    batches = ArrayBatches(data[0], batch_size=64, seed=2, shuffle=True)

    def order():
        return np.concatenate([batches[i][0]["pixels"][:, 0] for i in range(len(batches))])

    first = order()
    batches.on_epoch_end()
    second = order()
    assert not np.array_equal(first, second)
    np.testing.assert_array_equal(np.sort(first), np.sort(second))
    batches.set_epoch(0)
    np.testing.assert_array_equal(order(), first)


def test_schedules_are_functions_of_the_past():
    constant, plateau = (
        TrainConfig(learning_rate=1.0),
        TrainConfig(learning_rate=1.0, schedule="plateau", plateau_patience=2),
    )
    losses = np.array([1.0, 0.9, 0.95, 0.91, 0.92, 0.93, 0.8])
    assert [learning_rate(constant, losses[:n]) for n in range(3)] == [1.0, 1.0, 1.0]
    assert [learning_rate(plateau, losses[:n]) for n in range(8)] == [
        1.0,
        1.0,
        1.0,
        1.0,
        0.5,
        0.5,
        0.25,
        0.25,
    ]


def test_the_rate_by_steps_rises_then_falls_to_nothing():
    config = TrainConfig(learning_rate=2.0, epochs=10, schedule="cosine_steps")
    rates = [learning_rate(config, [0.0] * n, done) for n in range(10) for done in (0.0, 0.5)]
    assert rates[:2] == [0.0, 2.0]  # a twentieth of all steps lies before the second
    assert rates[1:] == sorted(rates[1:], reverse=True)
    assert learning_rate(config, [0.0] * 5, 0.25) == pytest.approx(1.0)  # half of the way down
    assert learning_rate(config, [0.0] * 9, 1.0) == pytest.approx(0.0, abs=1e-9)


def test_the_average_of_the_weights_is_validated_and_kept(data, tmp_path):
    """By hand: a model without averages is stopped after each step."""
    config = dataclasses.replace(AVERAGED, epochs=1, batch_size=100, ema=0.7)
    model = make_model()
    result = fit_model(model, *data, config, out_dir=tmp_path / "averaged", **SILENT)
    steps, plain = [], make_model()
    plain_config = dataclasses.replace(config, ema=0.0)

    class Record(keras.callbacks.Callback):
        def on_train_batch_end(self, batch, logs=None):
            steps.append(plain.get_weights())

    fit = plain.fit
    plain.fit = lambda *args, callbacks, **more: fit(
        *args, callbacks=[*callbacks, Record()], **more
    )
    fit_model(plain, *data, plain_config, out_dir=tmp_path / "plain", **SILENT)
    average = steps[0]
    for step in steps[1:]:
        average = [0.7 * old + 0.3 * new for old, new in zip(average, step, strict=True)]
    for found, wanted, last in zip(model.get_weights(), average, steps[-1], strict=True):
        np.testing.assert_allclose(found, wanted, rtol=1e-4, atol=1e-6)
        assert np.any(found != last)
    inputs, labels, weights = data[1]
    p = np.asarray(model(inputs, training=False))
    entropy = -np.log(np.sum(p * labels, axis=1))
    assert result.history["val_loss"][0] == pytest.approx(
        float(np.mean(weights * entropy)), rel=1e-4
    )


def test_weights_decay_but_biases_do_not(data, tmp_path):
    quiet = dataclasses.replace(QUICK, learning_rate=1e-9, schedule="constant", epochs=1)
    before, after = make_model(), make_model()
    strong = dataclasses.replace(quiet, weight_decay=1e8)  # times the rate, each of 7 steps
    fit_model(after, *data, strong, out_dir=tmp_path, **SILENT)
    for old, new in zip(before.get_weights(), after.get_weights(), strict=True):
        share = 0.9**7 if old.ndim == 2 else 1.0
        np.testing.assert_allclose(new, share * old, rtol=1e-3, atol=1e-5)


def test_a_loss_that_is_not_a_number_is_never_the_best():
    assert best_epoch([math.nan, 0.2, math.inf, 0.1]) == 3


def test_the_history_holds_the_numbers_of_keras_exactly(data, tmp_path):
    seen = []
    result = fit_model(
        make_model(),
        *data,
        QUICK,
        out_dir=tmp_path,
        watch=lambda _, row: seen.append(row),
        **SILENT,
    )
    assert result.history["val_loss"].tolist() == [row["val_loss"] for row in seen]
    assert read_history(tmp_path / "history.csv").keys() == result.history.keys() == seen[0].keys()


@pytest.mark.parametrize(
    "text",
    [
        "epoch,val_loss\n0,x\n",
        "epoch,val_loss\n1,0.5\n",
        "epoch,val_loss\n0\n",
        "epoch,loss\n0,0.5\n",
    ],
)
def test_a_broken_history_is_refused(tmp_path, text):
    (tmp_path / "history.csv").write_text(text)
    with pytest.raises(BadFileError, match=r"history\.csv"):
        read_history(tmp_path / "history.csv")


@pytest.mark.parametrize(
    ("option", "value"),
    [
        ("learning_rate", 0.0),
        ("batch_size", -1),
        ("schedule", "linear"),
        ("patience", 0),
        ("huber_delta", 0.0),
        ("clip_norm", 0.0),
        ("weight_decay", -1.0),
        ("ema", 1.0),
    ],
)
def test_settings_out_of_range_are_refused(option, value):
    with pytest.raises(ConfigError, match=option):
        TrainConfig(**{option: value})


def test_a_stream_from_a_file_trains_a_network_and_a_restart_sees_the_same_batches(rng, tmp_path):
    sample = make_sample(rng, 400)
    with SampleWriter(tmp_path / "sample.root", sample.geo, sample.metadata) as writer:
        writer.extend(sample.scalars, sample.offsets, sample.cells)
    settings = TrainConfig(learning_rate=1e-3, epochs=2, schedule="cosine")

    def train(folder, say=lambda line: None):
        keras.utils.set_random_seed(1)
        model = build_dnn(DnnConfig(widths=(4,)))
        parts = [
            ClusterStream(tmp_path / "sample.root", split=split, batch_size=32)
            for split in ("train", "validation")
        ]
        return fit_model(model, *parts, settings, out_dir=tmp_path / folder, say=say)

    unbroken = train("unbroken")
    with pytest.raises(Killed):
        train("broken", say=killer(1))
    np.testing.assert_allclose(train("broken").history["loss"], unbroken.history["loss"], rtol=1e-5)


def goals_of(head, pixels):
    """What a head shall learn from the first two pixels."""
    y = (0.2 * pixels[:, :1] - 0.1 * pixels[:, 1:2]).astype(np.float32)
    labels = np.eye(2, dtype=np.float32)[(y[:, 0] > 0).astype(int)]
    return {"classes": labels, "class_and_energy": np.concatenate([labels, y], axis=1)}.get(head, y)


@pytest.mark.parametrize(
    ("head", "loss"), [(head, loss) for head, (_, losses) in HEADS.items() for loss in losses]
)
def test_every_loss_trains_its_head_and_the_file_is_read_back(head, loss, rng, tmp_path):
    pixels, weights = (
        rng.normal(size=(600, 6)).astype(np.float32),
        rng.uniform(0.5, 1.5, 600).astype(np.float32),
    )
    arrays = ({"pixels": pixels}, goals_of(head, pixels), weights)
    keras.utils.set_random_seed(1)
    model = build_dnn(DnnConfig(n_pixels=6, widths=(16,), dropout=0.05, head=head, n_components=2))
    config = TrainConfig(learning_rate=1e-2, batch_size=64, epochs=8, loss=loss, clip_norm=1.0)
    parts = [tuple(cut(part, rows) for part in arrays) for rows in (slice(0, 400), slice(400, 600))]
    losses = fit_model(model, *parts, config, out_dir=tmp_path, **SILENT).history["val_loss"]
    assert losses.min() < losses[0] - 0.2 * abs(losses[0])
    np.testing.assert_array_equal(
        load_model(tmp_path / "model.keras")(parts[1][0]), model(parts[1][0])
    )


def test_a_killed_regression_on_augmented_clusters_goes_on_as_if_unbroken(rng, tmp_path):
    sample = make_sample(rng, 300)
    with SampleWriter(tmp_path / "sample.root", sample.geo, sample.metadata) as writer:
        writer.extend(sample.scalars, sample.offsets, sample.cells)
    settings = TrainConfig(learning_rate=1e-3, epochs=3, loss="huber", clip_norm=1.0)

    def train(folder, say=lambda line: None):
        keras.utils.set_random_seed(1)
        model = build_dnn(DnnConfig(widths=(4,), head="energy", with_scalars=True))
        options = {
            "target": TargetConfig(),
            "balance": None,
            "scalars": ("clusterE", "clusterEta"),
            "batch_size": 32,
        }
        training = ClusterStream(tmp_path / "sample.root", augment=AugmentConfig(), **options)
        validation = ClusterStream(
            tmp_path / "sample.root", split="validation", shuffle=False, **options
        )
        return fit_model(model, training, validation, settings, out_dir=tmp_path / folder, say=say)

    unbroken = train("unbroken")
    with pytest.raises(Killed):
        train("broken", say=killer(2))
    resumed = train("broken")
    for name in ("loss", "val_loss"):
        np.testing.assert_allclose(resumed.history[name], unbroken.history[name], rtol=1e-4)
    assert "accuracy" not in resumed.history


def test_a_watcher_sees_every_epoch_and_may_end_the_training(data, tmp_path):
    seen = []

    def watch(epoch, row):
        seen.append((epoch, row["val_loss"]))
        assert (tmp_path / f"epoch-{epoch + 1:04d}.weights.h5").exists()
        if epoch == 1 and len(seen) == 2:
            raise Killed

    with pytest.raises(Killed):
        fit_model(make_model(), *data, QUICK, out_dir=tmp_path, watch=watch, **SILENT)
    assert [epoch for epoch, _ in seen] == [0, 1]
    result = fit_model(make_model(), *data, QUICK, out_dir=tmp_path, watch=watch, **SILENT)
    assert [epoch for epoch, _ in seen] == [0, 1, 2, 3]
    np.testing.assert_allclose([loss for _, loss in seen], result.history["val_loss"])


def test_an_unknown_loss_is_refused_before_anything_is_trained(data, tmp_path):
    with pytest.raises(ConfigError, match="loss 'hinge' is unknown"):
        fit_model(
            make_model(),
            *data,
            dataclasses.replace(QUICK, loss="hinge"),
            out_dir=tmp_path,
            **SILENT,
        )


def test_a_network_without_dropout_is_trained(data, tmp_path):
    model = build_dnn(DnnConfig(n_pixels=6, widths=(8,), dropout=0.0))
    result = fit_model(
        model, *data, dataclasses.replace(QUICK, epochs=1), out_dir=tmp_path, **SILENT
    )
    assert len(result.history["loss"]) == 1
