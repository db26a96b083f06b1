"""Triggers at the rate of collisions: transverse energies of calorimeter regions, anomalies among
them, networks in fixed-point numbers, efficiencies at a rate; pairs of tracks of b hadrons.
"""
