"""Higgs bosons in rare final states: collisions of signal and backgrounds, their selection, and
discriminants made of the probabilities of several classes.
"""
