"""The energy scale of jets by numerical inversion (arXiv:1703.09665): one recipe for
every kind of jets, so that a comparison of them is fair.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from pfcalib.calibration.inversion import MIN_COUNT, Inversion, fit_inversion
from pfcalib.errors import ConfigError, ValidationError

FloatArray = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class JetScale:
    """Calibrated against measured pT in bins of abs(eta)."""

    eta_edges: FloatArray  # (n_bins + 1,)
    inversions: tuple[Inversion, ...]  # (n_bins,)

    def apply(self, pt: ArrayLike, eta: ArrayLike = 0.0) -> FloatArray:
        """Calibrated pT in GeV, shape as pt; 0 stays 0. Jets beyond the last edge in abs(eta) are
        calibrated as those of the last bin.

        Raises
        ------
        ValidationError
            If a pT is negative or not finite.
        """
        measured = np.asarray(pt, dtype=np.float64)
        if not np.all(np.isfinite(measured) & (measured >= 0.0)):
            raise ValidationError("jet energy scale: expected finite pT, not below 0")
        place = np.broadcast_to(_bin_of(eta, self.eta_edges), measured.shape)
        calibrated = np.zeros_like(measured)
        for b, inversion in enumerate(self.inversions):
            here = (place == b) & (measured > 0.0)
            calibrated[here] = inversion.apply(measured[here])
        return calibrated


def fit_jet_scale(
    pt: ArrayLike, pt_true: ArrayLike, eta: ArrayLike = 0.0, *,
    eta_edges: ArrayLike = (0.0, np.inf), pt_min: float = 10.0, pt_max: float = 1000.0,
    min_count: int = MIN_COUNT,
) -> JetScale:  # fmt: skip
    """The scale that makes the median of pT over true pT one in bins of true pT.

    Fit it to matched jets of events that are not looked at later, such as every other one.

    Parameters
    ----------
    pt, pt_true : array_like, shape (n_jets,), GeV
        Jets and the truth jets that they are matched to, see `jets.match_jets`.
    eta : array_like, shape (n_jets,)
    eta_edges : array_like, shape (n_bins + 1,)
        In abs(eta), increasing; one bin by default.
    pt_min, pt_max, min_count
        Range of true pT in GeV, and jets that a bin of it needs, see `fit_inversion`. Where jets
        are lost below a cut in pT, those that are left have a median that is too high: keep pt_min
        above.

    Raises
    ------
    ConfigError
        If the range is empty or the edges do not increase.
    ValidationError
        If too few jets lie in a bin of abs(eta).
    """
    edges = np.asarray(eta_edges, dtype=np.float64)
    if edges.ndim != 1 or edges.size < 2 or not np.all(np.diff(edges) > 0.0):
        raise ConfigError(f"jet energy scale: edges {edges.tolist()}, expected to increase")
    measured, truth = np.asarray(pt, dtype=np.float64), np.asarray(pt_true, dtype=np.float64)
    place = np.broadcast_to(_bin_of(eta, edges), truth.shape)
    inversions = []
    for b in range(edges.size - 1):
        here = place == b
        try:
            inversions.append(
                fit_inversion(
                    measured[here], truth[here], e_min=pt_min, e_max=pt_max, min_count=min_count
                )
            )
        except ValidationError as error:
            raise ValidationError(f"abs(eta) {edges[b]} to {edges[b + 1]}: {error}") from error
    return JetScale(edges, tuple(inversions))


def _bin_of(eta: ArrayLike, edges: FloatArray) -> NDArray[np.int64]:
    """Bin in abs(eta); the first or last one beyond the edges."""
    return np.clip(np.digitize(np.abs(eta), edges) - 1, 0, len(edges) - 2)
