"""What the calibration truth says of a cluster, whoever shot it: the share of its energy that is
electromagnetic.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from pfcalib.samples.schema import Sample


def em_share(sample: Sample) -> NDArray[np.float64]:
    """Electromagnetic share of the true energy in the cells of each cluster, shape (n_clusters,).

    It lies between 0 and 1 and is meaningful in jets, where clusters of both kinds merge; NaN where
    nothing was deposited, so for noise.

    Parameters
    ----------
    sample : Sample
        With the columns cluster_ENG_CALIB_EM and cluster_ENG_CALIB_TOT.

    Raises
    ------
    ValidationError
        If the sample was read without these columns.
    """
    total, em = (
        np.asarray(sample[f"cluster_ENG_CALIB_{name}"], dtype=np.float64) for name in ("TOT", "EM")
    )
    return np.divide(em, total, out=np.full(len(total), np.nan), where=total > 0.0)
