"""From a trained Keras model to an ONNX file that carries its contract and is held against
reference outputs.
"""
