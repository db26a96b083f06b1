"""Prompt photons and the neutral pions and etas of jets that look like them: collisions, images of
the calorimeter with and without pile-up, shower shapes, cuts, networks.
"""
