"""How good a calibration, a classifier or a simulation is: one definition each.

``curve`` has a value with its error (`Estimate`) and such values in bins (`Curve`); ``bootstrap``
their errors by resampling; ``response`` linearity and resolution; ``roc`` areas, accuracy and
rejection; ``uncertainty`` pulls, coverage and quantiles of mixtures; ``fidelity`` two shower
simulations against each other; ``jetperformance`` jets and jets of pile-up.
"""
