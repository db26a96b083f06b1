"""Untrained networks that tell neutral from charged pions or give an energy: a frozen configuration
in, a Keras model out.

families: build_model, load_model; pointnets: build_pointnet (clouds of any number of points);
elementnets: build_elements (windows of tracks and clusters);
heads: what a network ends in; losses: build_loss.
"""
