"""Features: what a model sees of a cluster, as images, as points of any number, as inputs of a
network or as a table of moments.
"""
