"""pfcalib: calorimeter clusters to validated networks."""

from pfcalib.cache import use_kernel_cache
from pfcalib.quiet import silence_tensorflow

__version__ = "0.1.0"

use_kernel_cache()  # before anything imports numba
silence_tensorflow()  # before anything imports it
