"""Triggers: what is kept of collisions, candidates of decays of heavy hadrons among it."""
