"""pfcalib: calorimeter clusters to validated networks.

Energies are in GeV, angles in rad, lengths in mm. What to import, along the way of the data:

* ``simulation.produce``: ``ProduceConfig``, ``produce_sample`` shoot particles and write a sample
* ``samples.read``: ``read_sample``, ``iterate_sample`` (with cells, any layout);
  ``samples.table``: ``read_table``, one record a cluster; ``samples.objects``: ``read_objects``
* ``features.images``: ``build_images``; ``training.stream``: ``ClusterStream``, batches for Keras
* ``calibration.lcw``: ``derive_lcw``, ``apply_lcw``, local cell weighting
* ``training.settings``: ``regression_config``, ``classifier_config``; ``training.regressors``:
  ``fit_regressor``; ``training.friend``: ``open_model``, ``write_friend``
* ``deploy.export``: ``export_onnx``; ``deploy.validator``: ``check_model``, ``require_parity``
* ``metrics.response``: ``response``, ``resolution``, ``response_curve``; ``metrics.roc``
* ``reporting.results``: ``open_report``, the record of a study
* ``columns``, ``geometry``, ``errors``: every quantity, the detector, what may go wrong

Examples
--------
The response of neutral pions, before any calibration:

>>> import tempfile
>>> from pathlib import Path
>>> import numpy as np
>>> from pfcalib.metrics.response import resolution, response
>>> from pfcalib.samples.table import read_table
>>> from pfcalib.simulation.produce import ProduceConfig, produce_sample
>>> pions = Path(tempfile.mkdtemp()) / "pions.root"
>>> guns = {"particles": ("pi0",), "e_min": 20.0, "e_max": 50.0, "eta_max": 0.05}
>>> _ = produce_sample(pions, ProduceConfig(n_events=40, grid="window", **guns, seed=1))
>>> clusters = read_table(pions)
>>> clusters = clusters[clusters["cluster_ENG_CALIB_TOT"] > 5.0]
>>> found = response(clusters["clusterE"], clusters["cluster_ENG_CALIB_TOT"])
>>> bool(0.9 < np.median(found) < 1.1), bool(resolution(found) < 0.1)
(True, True)
"""

from pfcalib.cache import use_kernel_cache
from pfcalib.orphans import end_with_parent
from pfcalib.quiet import silence_remarks

__version__ = "0.1.0"

use_kernel_cache()  # before anything imports numba
silence_remarks()  # before anything imports it
end_with_parent()  # where this is a worker of a pool
