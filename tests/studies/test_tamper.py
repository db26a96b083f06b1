"""A model with one flipped weight is refused, whether its contract was renewed or not."""

import keras
import numpy as np
import pytest
from studies.tamper import tamper_model

from pfcalib.deploy.export import export_onnx
from pfcalib.deploy.validator import check_stored_model
from pfcalib.errors import ValidationError
from pfcalib.models.families import build_model


@pytest.fixture(scope="module")
def exported(tmp_path_factory):
    path = tmp_path_factory.mktemp("models") / "dnn.onnx"
    inputs = {"pixels": np.random.default_rng(1).random((20, 16), dtype=np.float32)}
    export_onnx(
        build_model("dnn", seed=1, n_pixels=16, widths=[8, 4]), path, inputs=inputs, kind="flat"
    )
    return path


@pytest.mark.parametrize("renew_contract", [False, True])
def test_one_flipped_weight_is_noticed(exported, tmp_path, renew_contract):
    report = check_stored_model(tamper_model(exported, tmp_path, renew_contract=renew_contract))
    assert any("differs by" in problem for problem in report.problems)
    assert any("sha256" in problem for problem in report.problems) != renew_contract
    assert check_stored_model(exported).passed


def test_a_model_whose_last_weights_do_nothing_cannot_be_tampered_with(tmp_path):
    inputs = keras.Input((3,), name="pixels")
    hidden = keras.layers.Dense(4, activation="relu", kernel_initializer="zeros")(inputs)
    model = keras.Model(
        {"pixels": inputs},
        keras.layers.Dense(2, activation="softmax", name="p")(hidden),
        name="off",
    )
    export_onnx(
        model,
        tmp_path / "off.onnx",
        inputs={"pixels": np.ones((5, 3), dtype=np.float32)},
        kind="flat",
    )
    with pytest.raises(ValidationError, match="no weight of the last matrix acts"):
        tamper_model(tmp_path / "off.onnx", tmp_path / "copy", renew_contract=True)
