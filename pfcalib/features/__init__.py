"""Features: what a model sees of a cluster, as images, as inputs of a network or as a table of
moments.
"""
