"""Networks of shares see a set of points, whose order and padding do not matter; ONNX computes what
they do.
"""

import keras
import numpy as np
import pytest

from pfcalib.deploy.export import export_onnx, predict
from pfcalib.errors import ConfigError
from pfcalib.models.cell_shares import SharesConfig, build_cell_shares
from pfcalib.particleflow.surroundings import INPUT_SHAPES, N_SLOTS

# of Keras with numpy 2
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")
N = 40


@pytest.fixture(params=INPUT_SHAPES)
def form(request):
    return request.param


def network(form, **options):
    keras.utils.set_random_seed(3)
    return build_cell_shares(INPUT_SHAPES[form], SharesConfig(form=form, width=8, **options))


def inputs_of(form, rng):
    """Of random numbers; the first set is empty, others are filled more and more."""
    inputs = {
        name: rng.normal(size=(N, *shape)).astype(np.float32)
        for name, shape in INPUT_SHAPES[form].items()
    }
    if form == "points":
        cells = inputs["cells"]
        cells[:, :, 0] = rng.integers(1, 8, cells.shape[:2])
        for i in range(N):
            cells[i, 3 * i :] = 0.0
    else:
        inputs["images"][0] = 0.0
    return inputs


def test_every_slot_has_shares_that_sum_to_one(form, rng):
    shares = predict(network(form), inputs_of(form, rng))
    assert shares.shape == (N, N_SLOTS[form], 2)
    np.testing.assert_allclose(shares.sum(axis=-1), 1.0, atol=1e-6)
    assert np.isfinite(shares).all()


def test_points_in_another_order_get_the_same_shares(rng):
    model, inputs = network("points"), inputs_of("points", rng)
    order = rng.permutation(N_SLOTS["points"])
    found = predict(model, {**inputs, "cells": inputs["cells"][:, order]})
    np.testing.assert_allclose(found, predict(model, inputs)[:, order], atol=2e-6)


def test_what_stands_in_places_without_a_cell_does_not_matter(rng):
    model, inputs = network("points"), inputs_of("points", rng)
    cells = inputs["cells"].copy()
    empty = cells[:, :, 0] == 0.0
    cells[empty, 1:] = rng.normal(size=cells[empty, 1:].shape)
    found = predict(model, {**inputs, "cells": cells})
    np.testing.assert_allclose(found[~empty], predict(model, inputs)[~empty], atol=1e-6)


def test_the_whole_set_and_the_track_tell_on_each_cell(form, rng):
    model, inputs = network(form), inputs_of(form, rng)
    before = predict(model, inputs)[-1, 3]
    others = {name: x.copy() for name, x in inputs.items()}
    if form == "points":
        others["cells"][-1, 50:, 1:] += 1.0
        assert np.abs(predict(model, others)[-1, 3] - before).max() > 1e-5
    others = {**inputs, "track": inputs["track"] + 1.0}
    assert np.abs(predict(model, others)[-1, 3] - before).max() > 1e-5


def test_a_layer_matters_by_its_name_only(rng):
    """Layers are flags, not a scale: what stands for EMB2 is no mean of its neighbours."""
    model, inputs = network("points"), inputs_of("points", rng)
    flags = model.get_layer("flags")(inputs["cells"])
    found = keras.ops.convert_to_numpy(flags)[:, :, :7]
    number = inputs["cells"][:, :, 0].astype(int)
    np.testing.assert_array_equal(found.sum(axis=-1), number > 0)
    np.testing.assert_array_equal(found.argmax(axis=-1)[number > 0] + 1, number[number > 0])


def test_onnx_computes_what_keras_does_and_a_stored_model_too(form, rng, tmp_path):
    model, inputs = network(form, depth=1), inputs_of(form, rng)
    assert export_onnx(model, tmp_path / "shares.onnx", inputs=inputs, kind=form).passed
    model.save(tmp_path / "shares.keras")
    again = keras.saving.load_model(tmp_path / "shares.keras", compile=False, safe_mode=True)
    np.testing.assert_array_equal(predict(again, inputs), predict(model, inputs))


@pytest.mark.parametrize("wrong", [{"form": "graph"}, {"width": 3}, {"depth": 0}])
def test_a_config_out_of_range_is_refused(wrong):
    with pytest.raises(ConfigError, match=next(iter(wrong))):
        SharesConfig(**wrong)
