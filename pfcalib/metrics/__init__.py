"""How good a calibration, a classifier or a simulation is: one definition each."""
