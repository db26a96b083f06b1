"""pfcalib: calorimeter clusters to validated networks."""

from pfcalib.cache import use_kernel_cache

__version__ = "0.1.0"

use_kernel_cache()  # before anything imports numba
