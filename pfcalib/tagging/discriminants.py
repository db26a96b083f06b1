"""From probabilities of flavours to one discriminant, and what passes a cut on it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import ArrayLike, NDArray

from pfcalib.errors import ConfigError
from pfcalib.tagging.tagdata import CLASSES

FloatArray = NDArray[np.float64]
PLACE = {name: i for i, name in enumerate(CLASSES.values())}


def discriminant(p: ArrayLike, signal: str, fractions: Mapping[str, float]) -> FloatArray:
    """ln(p_signal / sum_i f_i p_i) over the other classes, shape (n,).

    With signal b and fractions f_c and 1 - f_c of c and light it is the discriminant D_b, with
    signal c and f_b, 1 - f_b it is D_c: one training serves both, at any fraction.

    Parameters
    ----------
    p : array_like, shape (n, n_classes)
        In the order of `tagdata.CLASSES`.
    signal : str
    fractions : mapping of str to float
        Of all other classes; they sum to 1.

    Raises
    ------
    ConfigError
        If the fractions are not of all other classes, or do not sum to 1.

    Examples
    --------
    >>> discriminant([[0.6, 0.2, 0.2]], "b", {"c": 0.1, "light": 0.9}).round(3).tolist()
    [1.099]
    """
    others = {name for name in PLACE if name != signal}
    if set(fractions) != others or abs(sum(fractions.values()) - 1.0) > 1e-9:
        raise ConfigError(
            f"fractions {dict(fractions)}: expected of {', '.join(sorted(others))}, of sum 1"
        )
    values = np.maximum(np.asarray(p, dtype=np.float64), 1e-12)
    background = sum(share * values[:, PLACE[name]] for name, share in fractions.items())
    return np.asarray(np.log(values[:, PLACE[signal]] / background))


def passing(
    scores: ArrayLike, label: ArrayLike, efficiencies: Sequence[float], *, signal: str = "b"
) -> FloatArray:
    """Share of each class that passes cuts which keep shares of the signal; for bootstraps too,
    as at least half a jet passes.

    Parameters
    ----------
    scores : array_like, shape (n_scores, n)
    label : array_like of int, shape (n,)
        Place in `tagdata.CLASSES`.
    efficiencies : sequence of float
    signal : str

    Returns
    -------
    ndarray, shape (n_scores, n_efficiencies, n_classes)

    Examples
    --------
    >>> scores, label = [[3.0, 2.0, 1.0, 2.5, 0.0, 1.5, 0.5]], [0, 0, 0, 1, 1, 2, 2]
    >>> passing(scores, label, [0.7]).round(2).tolist()
    [[[0.67, 0.5, 0.25]]]
    """
    values, kind = np.asarray(scores, dtype=np.float64), np.asarray(label)
    found = np.empty((len(values), len(efficiencies), len(PLACE)))
    cuts = [
        np.quantile(row[kind == PLACE[signal]], 1.0 - np.asarray(efficiencies), method="higher")
        for row in values
    ]
    for place in PLACE.values():
        mine = np.sort(values[:, kind == place], axis=1)
        n = max(mine.shape[1], 1)
        for i, (row, cut) in enumerate(zip(mine, cuts, strict=True)):
            n_passed = mine.shape[1] - np.searchsorted(row, cut, side="left")
            found[i, :, place] = np.maximum(n_passed, 0.5) / n
    return found
