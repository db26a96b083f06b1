"""Every head of every family of networks becomes an ONNX file that gives the same energies, with a
contract that says what they are.
"""

from __future__ import annotations

import keras
import numpy as np
import pytest

from pfcalib.deploy.contract import read_contract, read_reference
from pfcalib.deploy.export import export_onnx
from pfcalib.deploy.validator import check_model, check_stored_model, open_session, run_in_batches
from pfcalib.features.targets import TargetConfig
from pfcalib.models.families import MODEL_KINDS, build_model
from pfcalib.models.heads import HEADS, MEANINGS
from pfcalib.training.fit import TrainConfig
from pfcalib.training.networks import NetworkConfig, output_energy

pytestmark = pytest.mark.filterwarnings(
    "ignore:__array__ implementation doesn't accept a copy keyword:DeprecationWarning"
)  # TensorFlow 2.21 with numpy 2

TINY = {
    "dnn": {"widths": [8, 4]},
    "cnn": {"filters": 2, "branch_width": 4, "merged_width": 4, "pixel_power": 0.5},
    "densenet": {"growth": 2, "block_layers": [1, 1], "head_width": 4},
    "mlp": {"widths": [8, 4]},
    "points": {"widths": [8, 4]},
}
# numbers that a head gives for a cluster, two Gaussians in a mixture
WIDTHS = {"classes": 2, "energy": 1, "quantiles": 5, "mixture": 6, "members": (5, 6)}
WIDTHS["class_and_energy"] = 3
N_CLUSTERS = 60


@pytest.fixture(
    scope="module", params=[(name, head) for name in MODEL_KINDS for head in HEADS], ids="-".join
)
def exported(request, tmp_path_factory):
    name, head = request.param
    keras.utils.set_random_seed(1)
    model = build_model(name, **TINY[name], head=head, n_components=2, with_scalars=True)
    rng = np.random.default_rng(1)
    shapes = {tensor.name: (N_CLUSTERS, *tensor.shape[1:]) for tensor in model.inputs}
    inputs = {
        key: (rng.normal(0.1, 0.3, shape) * (rng.random(shape) < 0.1)).astype(np.float32)
        for key, shape in shapes.items()
    }
    path = tmp_path_factory.mktemp("exported") / f"{name}.onnx"
    report = export_onnx(model, path, inputs=inputs, kind=MODEL_KINDS[name])
    return path, report, model, inputs, head


def test_a_head_computes_what_keras_does_at_every_batch_size(exported):
    path, report, model, inputs, _ = exported
    assert report.passed
    assert report.max_abs < 1e-5
    assert all(batch.n_nan == batch.n_changed_argmax == 0 for batch in report.batches)
    wanted = np.asarray(model(inputs, training=False))
    for batch in (1, 13, N_CLUSTERS):
        np.testing.assert_allclose(
            run_in_batches(open_session(path), inputs, batch), wanted, atol=1e-5
        )


def test_logarithms_of_weights_beyond_one_alone_may_differ_by_a_share_of_themselves(tmp_path):
    """A logarithm of a weight of -9 is known to 1e-6 in single precision, not to 1e-7; means and
    widths are held absolutely, as far from zero as they may be.
    """
    keras.utils.set_random_seed(1)
    model = build_model("dnn", n_pixels=6, widths=[8, 4], head="mixture", n_components=2)
    model.get_layer("logits").bias.assign([-9.0, 0.0])
    model.get_layer("means").bias.assign([-9.0, 0.0])
    pixels = np.random.default_rng(1).random((N_CLUSTERS, 6), np.float32)
    inputs = {model.inputs[0].name: pixels}
    path = tmp_path / "dnn.onnx"
    export_onnx(model, path, inputs=inputs, kind="flat")
    reference = np.asarray(model(inputs, training=False))
    assert np.all(reference[:, [0, 2]] < -5.0)
    assert np.all(np.abs(reference[:, 4]) > 1.2)
    for column, shift, passes in (
        *((0, 4e-5, True), (0, 2e-4, False)),
        *((2, 3e-5, False), (4, 1.2e-5, False), (4, 5e-6, True)),
    ):
        wrong = reference.copy()
        wrong[17, column] += shift
        report = check_model(path, inputs, wrong)
        assert report.passed == passes
        assert all(batch.worst_cluster == 17 for batch in report.batches)


def test_the_contract_says_what_the_output_means(exported):
    path, _, _, _, head = exported
    output = read_contract(path).output
    assert output.name == HEADS[head][0]
    assert output.shape == tuple(np.atleast_1d(WIDTHS[head]))
    assert output.meaning == MEANINGS[output.name] != ""


def test_onnx_runtime_gives_the_same_energies(exported):
    path, _, model, inputs, head = exported
    if head == "classes":
        return
    config = NetworkConfig(
        name=path.stem,
        options={"head": head},
        target=TargetConfig(with_class=head == "class_and_energy"),
        train=TrainConfig(loss=HEADS[head][1][0]),
    )
    cluster_e = np.random.default_rng(2).uniform(0.5, 500.0, N_CLUSTERS)
    energies = [
        output_energy(config.head, config.target, output, cluster_e)
        for output in (
            run_in_batches(open_session(path), inputs, 7),
            np.asarray(model(inputs, training=False)),
        )
    ]
    np.testing.assert_allclose(energies[0], energies[1], rtol=2e-5)
    assert np.all(energies[0] > 0.0)


def test_only_probabilities_can_change_class(exported):
    """The reference is turned round: its largest column is another one, also where the columns are
    no classes.
    """
    path, _, _, _, head = exported
    reference = read_reference(path, read_contract(path))
    turned = reference.output[:, ::-1].copy()
    if head == "class_and_energy":
        turned = reference.output[:, [1, 0, 2]]
    report = check_model(path, reference.inputs, turned)
    changed = {batch.n_changed_argmax for batch in report.batches}
    classes = reference.output[:, :2]
    assert changed == (
        {np.count_nonzero(classes[:, 0] != classes[:, 1])}
        if head in ("classes", "class_and_energy")
        else {0}
    )
    assert any("change class" in problem for problem in report.problems) == (
        head in ("classes", "class_and_energy")
    )


def test_an_energy_above_the_probabilities_is_no_class(exported):
    path, _, _, _, head = exported
    if head != "class_and_energy":
        return
    reference = read_reference(path, read_contract(path))
    report = check_model(
        path, reference.inputs, reference.output + np.array([0.0, 0.0, 100.0], dtype=np.float32)
    )
    assert {batch.n_changed_argmax for batch in report.batches} == {0}
    assert not report.passed
    assert check_stored_model(path).passed
