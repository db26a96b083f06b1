"""Showers as voxels and fast generators of them: Geant4's as truth, parametrisations and networks
that learn from it, and a yardstick for all.
"""
