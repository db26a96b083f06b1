"""Teacher and students: sizes as published, what they say, that they learn, that files agree."""

import keras
import numpy as np
import pytest

from pfcalib.deploy.validator import check_stored_model
from pfcalib.training.fit import TrainConfig
from pfcalib.trigger.cicada import (
    Bits,
    StudentConfig,
    TeacherConfig,
    anomaly,
    build_student,
    build_teacher,
    fit_student,
    fit_teacher,
    fixed_formats,
    multiply_adds,
    network_inputs,
    outliers,
    round_student,
    student_in_integers,
    targets,
)
from pfcalib.trigger.regions import Crossings

pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")


def crossings(rng, n):
    return rng.poisson(rng.gamma(2.0, 3.0, (n, 1, 1)) * np.ones((18, 14))).astype(np.uint16)


def test_networks_have_the_published_sizes():
    convolutions = [(1, 20), (20, 30), (30, 30), (30, 20), (20, 1)]
    dense = [(63 * 30, 80), (80, 63 * 30)]
    expected = sum(9 * a * b + b for a, b in convolutions) + sum(a * b + b for a, b in dense)
    assert build_teacher(TeacherConfig()).count_params() == expected
    for (filters, mixed), products in {
        (0, 0): 252 * 16 + 16,
        (4, 0): 63 * 4 * 4 + 252 * 16 + 16,
        (8, 12): 63 * (4 * 8 + 8 * 12) + 7 * 12 * 16 + 16,
    }.items():
        student = build_student(StudentConfig(filters=filters, mixed=mixed))
        # additions of biases and half of other operations count too
        assert multiply_adds(student) == pytest.approx(products / 252, rel=0.08)


def test_an_anomaly_is_the_logarithm_of_the_mean_squared_error(rng):
    teacher, images = build_teacher(TeacherConfig()), crossings(rng, 7)
    rebuilt = np.asarray(teacher(network_inputs(images)))
    expected = 32.0 * np.log(np.mean((images - rebuilt) ** 2, axis=(1, 2)))
    np.testing.assert_allclose(anomaly(teacher, images), expected, rtol=1e-5)


def test_targets_end_where_the_published_ones_do():
    found = 256.0 * targets(np.array([-3.0, 1.0 + 0.6 / 256.0, 99.0, 300.0]))[:, 0]
    assert found.tolist() == [0.0, 1.0 + 1.0 / 256.0, 99.0, 256.0 - 1.0 / 256.0]


def test_outliers_are_crossings_with_some_regions_raised(rng):
    images = crossings(rng, 500)
    unknown = np.zeros(500, np.float32), np.zeros(500, np.int16)
    found = outliers(Crossings(images, *unknown), rng, most=5)
    raised = (found != images).sum(axis=(1, 2))
    assert (found >= images).all()
    assert set(raised) == {1, 2, 3, 4, 5}
    assert found.max() <= 1023


def test_students_learn_also_through_the_rounding_and_their_files_agree(tmp_path, monkeypatch, rng):
    monkeypatch.setenv("PFCALIB_CACHE", str(tmp_path))
    parts = []
    for n in (3000, 500):
        images = crossings(rng, n)
        parts.append((images, 32.0 * np.log1p(images.mean(axis=(1, 2)))))
    train = TrainConfig(
        learning_rate=3e-3, batch_size=64, epochs=8, patience=8, schedule="cosine_steps",
        loss="mae",
    )  # fmt: skip
    config = StudentConfig(filters=4, train=train)
    kept = fit_student(tuple(parts), config, inputs="toy", say=lambda line: None)
    images, truth = parts[1]

    def distance(values):
        return np.mean(np.abs(values - truth))

    learnt = distance(anomaly(kept.model, images))
    assert learnt < 0.5 * np.mean(np.abs(truth - np.median(truth)))
    assert check_stored_model(kept.path).passed
    formats = fixed_formats(kept.model, parts[0][0], Bits(4, 4, 6, 8))
    through = fit_student(
        tuple(parts), config, inputs="toy", formats=formats, start=kept.model,
        say=lambda line: None,
    )  # fmt: skip
    assert check_stored_model(through.path).passed
    after = round_student(kept.model, config, formats)
    lost = [
        distance(student_in_integers(model).values(images)[:, 0])
        for model in (after, through.model)
    ]
    assert lost[1] < lost[0]
    lines = []
    again = fit_student(tuple(parts), config, inputs="toy", say=lines.append)
    assert not lines
    np.testing.assert_array_equal(anomaly(again.model, images), anomaly(kept.model, images))


def test_a_teacher_learns_and_its_file_gives_the_anomaly(tmp_path, monkeypatch, rng):
    monkeypatch.setenv("PFCALIB_CACHE", str(tmp_path))
    train = TrainConfig(learning_rate=3e-3, batch_size=32, epochs=2, patience=2, loss="mse")
    config = TeacherConfig(filters=(4, 4), latent=8, train=train)
    images = crossings(rng, 600)
    kept = fit_teacher(images[:500], images[500:], config, inputs="toy", say=lambda line: None)
    keras.utils.set_random_seed(train.seed)
    before = anomaly(build_teacher(config), images[500:])
    assert anomaly(kept.model, images[500:]).mean() < before.mean() - 10.0
    assert check_stored_model(kept.path).passed
