"""Histograms of the response of calibrations in bins of true energy, for figures and for files."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import hist
import numpy as np
from numpy.typing import ArrayLike

from pfcalib.metrics.performance import Mask, in_energy_bin
from pfcalib.metrics.response import response


def response_histogram(
    e_pred: Mapping[str, ArrayLike], e_true: ArrayLike, species: Mapping[str, Mask], energies: Sequence[float], *,
    n_bins: int = 100, limits: tuple[float, float] = (0.0, 2.0),
) -> hist.Hist:  # fmt: skip
    """Response of every calibration for every species at every energy; what lies outside the limits
    is kept as overflow.

    Parameters
    ----------
    e_pred : mapping of str to array_like, shape (n_clusters,), GeV
        By calibration.
    e_true : array_like, shape (n_clusters,), GeV
    species : mapping of str to ndarray of bool, shape (n_clusters,)
    energies : sequence of float, GeV
        Centres of the bins, see `pfcalib.metrics.performance.in_energy_bin`.
    n_bins : int
    limits : (float, float)

    Returns
    -------
    hist.Hist
        Axes ``model``, ``species``, ``energy`` (such as "10 GeV") and ``response``.

    Examples
    --------
    >>> e_true = np.full(3, 10.0)
    >>> histogram = response_histogram({"lcw": [9.0, 10.0, 99.0]}, e_true, {"pi0": e_true > 0}, [10.0], n_bins=2)
    >>> histogram[{"model": "lcw", "species": "pi0", "energy": "10 GeV"}].values(flow=True)
    array([0., 1., 1., 1.])
    """
    truth = np.asarray(e_true, dtype=np.float64)
    names = {energy: f"{energy:g} GeV" for energy in energies}
    histogram = hist.Hist(
        hist.axis.StrCategory(list(e_pred), name="model"),
        hist.axis.StrCategory(list(species), name="species"),
        hist.axis.StrCategory(list(names.values()), name="energy"),
        hist.axis.Regular(n_bins, *limits, name="response", label="calibrated over true energy"),
    )
    for model, predicted in e_pred.items():
        ratio = response(predicted, truth)
        for name, mask in species.items():
            for energy, label in names.items():
                histogram.fill(
                    model=model,
                    species=name,
                    energy=label,
                    response=ratio[np.asarray(mask) & in_energy_bin(truth, energy)],
                )
    return histogram
