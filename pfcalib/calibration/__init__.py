"""Calibration of clusters: the steps of local cell weighting, the baseline that the networks have
to beat.
"""
