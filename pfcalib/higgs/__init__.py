"""Pairs of Higgs bosons in two b quarks and two photons: collisions of signal and backgrounds,
their selection, and classifiers whose probabilities become one discriminant.
"""
