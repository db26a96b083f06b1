"""pfcalib: calorimeter clusters to validated networks."""

__version__ = "0.1.0"
