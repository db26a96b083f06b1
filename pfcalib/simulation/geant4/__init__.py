"""Geant4 as an engine: the reference slice, its scoring with calibration truth, and sessions that
shoot rows of particles.
"""
