"""Time of one call of each exported network at full size, for one cluster and for a batch, on one
thread.
"""

from __future__ import annotations

import numpy as np
import pytest

from pfcalib.deploy.export import export_onnx
from pfcalib.deploy.validator import open_session, run_in_batches
from pfcalib.models.families import MODEL_KINDS, build_model

pytestmark = pytest.mark.filterwarnings(
    "ignore:__array__ implementation doesn't accept a copy keyword:DeprecationWarning"
)  # TensorFlow 2.21 with numpy 2

N_CLUSTERS = 256


@pytest.fixture(scope="module", params=MODEL_KINDS)
def exported(request, tmp_path_factory):
    """Session and inputs of an untrained network of the default size: its speed does not depend on
    its weights.
    """
    rng = np.random.default_rng(1)
    model = build_model(request.param)
    shapes = {tensor.name: (N_CLUSTERS, *tensor.shape[1:]) for tensor in model.inputs}
    inputs = {
        name: (rng.random(shape) * (rng.random(shape) < 0.05)).astype(np.float32)
        for name, shape in shapes.items()
    }
    path = tmp_path_factory.mktemp("onnx") / f"{request.param}.onnx"
    report = export_onnx(model, path, inputs=inputs, kind=MODEL_KINDS[request.param])
    return open_session(path), inputs, report


@pytest.mark.parametrize("batch", [1, 256])
def test_inference_of_a_network(exported, batch, benchmark):
    session, inputs, report = exported
    feed = {name: array[:batch] for name, array in inputs.items()}
    output = benchmark(run_in_batches, session, feed, batch)
    assert output.shape == (batch, 2)
    benchmark.extra_info["parity_max"] = report.max_abs
    if benchmark.stats is not None:
        benchmark.extra_info["microseconds_per_cluster"] = (
            1e6 * benchmark.stats.stats.median / batch
        )
