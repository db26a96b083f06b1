"""A student sees its own inputs and what the teacher said of the same clusters, and comes nearer to
the teacher than a network of its size that was trained on the truth.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from factories import make_sample

from pfcalib.deploy.export import predict
from pfcalib.errors import ConfigError
from pfcalib.features.augment import AugmentConfig
from pfcalib.features.targets import TargetConfig
from pfcalib.metrics.roc import auc
from pfcalib.samples.write import write_sample
from pfcalib.training.distillation import TaughtStream, _taught, fit_student
from pfcalib.training.fit import TrainConfig
from pfcalib.training.networks import (
    SELECTION,
    NetworkConfig,
    apply_network,
    build_network,
    fit_network,
    network_folder,
    open_stream,
)

# of Keras with numpy 2
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")

TEACH = TrainConfig(epochs=8, batch_size=32, learning_rate=0.002, seed=3)
LEARN = TrainConfig(epochs=10, patience=10, batch_size=32, learning_rate=0.01, seed=4)
TEACHERS = {
    "classes": NetworkConfig(name="dnn", options={"widths": [16]}, train=TEACH),
    "energy": NetworkConfig(
        name="dnn",
        options={"widths": [16], "head": "energy"},
        target=TargetConfig(),
        select=SELECTION,
        train=replace(TEACH, loss="huber"),
    ),
}


def student_of(config, **more):
    """A smaller network on the same inputs."""
    options = {**config.options, "widths": [4], "dropout": 0.0}
    train = replace(LEARN, loss=config.train.loss)
    return replace(config, **{"options": options, "train": train, **more})


def quiet(line):
    pass


@pytest.fixture(scope="module")
def path(tmp_path_factory):
    path = tmp_path_factory.mktemp("samples") / "toy.root"
    write_sample(path, make_sample(np.random.default_rng(7), 400))
    return path


@pytest.fixture(scope="module")
def teachers(path):
    return {name: fit_network(path, config, say=quiet) for name, config in TEACHERS.items()}


@pytest.mark.parametrize("head", TEACHERS)
def test_a_student_comes_nearer_to_its_teacher_than_the_truth_brings_it(path, teachers, head):
    teacher, config = teachers[head], student_of(TEACHERS[head])
    answers = apply_network(teacher, open_stream(path, teacher.config, split="test"))

    def distance(model):
        stream = open_stream(path, config, split="test")
        outputs = np.concatenate([predict(model, batch[0]) for batch in stream])
        return np.sqrt(np.mean((outputs - answers) ** 2))

    student = fit_student(path, config, teacher, say=quiet).model
    labelled = fit_network(path, config, say=quiet).model
    untrained = build_network(config, open_stream(path, config, split="train"))
    assert student.count_params() == labelled.count_params() == untrained.count_params()
    assert distance(student) < 0.8 * distance(labelled)
    assert distance(student) < 0.8 * distance(untrained)


def test_the_answers_are_those_of_the_same_clusters(path, teachers):
    """Also where the student sees less: what it hears then fits the labels of what it sees."""
    teacher = teachers["classes"]
    alike = _taught(path, replace(teacher.config, train=LEARN), teacher, "train")
    inputs, answers = alike[1]
    assert np.allclose(predict(teacher.model, inputs), answers, atol=1e-6)
    one_layer = student_of(teacher.config, kind="layer:EMB2")
    taught = _taught(path, one_layer, teacher, "train")
    assert taught[1][0]["pixels"].shape[1] < inputs["pixels"].shape[1]
    assert auc(taught.answers[:, 1], taught.stream.labels[:, 1] > 0.5).value > 0.95


def test_every_cluster_comes_once_an_epoch_in_an_order_of_seed_and_epoch(path):
    config = student_of(TEACHERS["classes"])
    stream = open_stream(path, config, split="train", shuffle=True, batch_size=32)
    numbers = np.arange(stream.n_clusters, dtype=np.float32)[:, None]
    taught = TaughtStream(stream, numbers, shuffle=True)

    def epoch():
        return np.concatenate([taught[i][1][:, 0] for i in range(len(taught))]).tolist()

    first = epoch()
    assert sorted(first) == numbers[:, 0].tolist()
    taught.on_epoch_end()
    second = epoch()
    assert sorted(second) == sorted(first)
    assert second != first
    taught.set_epoch(0)
    assert epoch() == first
    straight = TaughtStream(stream, numbers, shuffle=False)
    assert straight[0][1][:, 0].tolist() == list(range(32))


def test_a_student_is_found_again_and_is_not_the_network_of_the_same_settings(path, teachers):
    config, lines = student_of(TEACHERS["classes"], train=replace(LEARN, epochs=1)), []
    first = fit_student(path, config, teachers["classes"], say=lines.append)
    again = fit_student(path, config, teachers["classes"], say=lines.append)
    assert len(lines) == 1
    assert first.folder == again.folder
    fine_tuned = network_folder(path, config, start=teachers["classes"])
    assert first.folder not in (network_folder(path, config), fine_tuned)


@pytest.mark.parametrize(
    ("config", "message"),
    [
        (student_of(TEACHERS["energy"]), "cannot learn from a teacher with 'classes'"),
        (student_of(TEACHERS["classes"], n_clusters=10), "no augment, no n_clusters"),
        (student_of(TEACHERS["classes"], augment=AugmentConfig()), "no augment, no n_clusters"),
    ],
)
def test_a_student_that_cannot_be_is_refused(path, teachers, config, message):
    with pytest.raises(ConfigError, match=message):
        fit_student(path, config, teachers["classes"])


def test_quantiles_are_no_targets(path, teachers):
    options = {"widths": [4], "head": "quantiles"}
    config = replace(TEACHERS["energy"], options=options, train=replace(TEACH, loss="pinball"))
    teacher = teachers["energy"]._replace(config=config)
    with pytest.raises(ConfigError, match="head 'quantiles' are no targets"):
        fit_student(path, config, teacher)
