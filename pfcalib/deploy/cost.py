"""What one call of a network takes: multiplications and additions, counted from its graph."""

from __future__ import annotations

from typing import Any

import keras
import tensorflow as tf
from tensorflow.python.framework.convert_to_constants import convert_variables_to_constants_v2


def count_multiply_adds(model: Any) -> int:
    """Multiplications with an addition for one cluster: half of the floating-point operations of
    the graph, by the profiler of TensorFlow.

    Parameters
    ----------
    model : keras.Model
        Functional model whose inputs have a fixed shape but for the batch axis.

    >>> inputs = keras.Input((10,))
    >>> count_multiply_adds(keras.Model(inputs, keras.layers.Dense(20, use_bias=False)(inputs)))
    200
    """
    flat = keras.Model(model.inputs, model.outputs)
    specs = [tf.TensorSpec((1, *tensor.shape[1:]), tf.float32) for tensor in model.inputs]
    call = tf.function(lambda *tensors: flat(list(tensors)))
    graph = convert_variables_to_constants_v2(call.get_concrete_function(*specs)).graph
    builder = tf.compat.v1.profiler.ProfileOptionBuilder
    options = builder(builder.float_operation()).with_empty_output().build()
    return int(tf.compat.v1.profiler.profile(graph, options=options).total_float_ops) // 2
