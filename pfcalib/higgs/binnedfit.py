"""What a histogram is worth: the expected significance of a signal in a binned profile-likelihood
fit, by pyhf (arXiv:2103.04853), an extra: ``pip install 'pfcalib[fits]'``.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Mapping

import numpy as np
from numpy.typing import ArrayLike

from pfcalib.errors import ConfigError


def expected_significance(
    signal: ArrayLike,
    backgrounds: Mapping[str, ArrayLike],
    *,
    errors: Mapping[str, float] | None = None,
) -> float:
    """Median significance with which the signal refutes its absence: the square root of the
    test statistic of discovery for the Asimov data set (arXiv:1007.1727).

    Parameters
    ----------
    signal : array_like, shape (n_bins,)
        Expected events.
    backgrounds : mapping of str to array_like, shape (n_bins,)
        Expected events by name.
    errors : mapping of str to float, optional
        Of a background the relative error of its number, the same in all bins, which the fit is
        told and pulls; the others are known.

    Raises
    ------
    ConfigError
        If pyhf is missing, or a bin expects nothing.
    """
    if importlib.util.find_spec("pyhf") is None:
        raise ConfigError("the binned fit needs the package pyhf: pip install 'pfcalib[fits]'")
    import pyhf

    errors = errors or {}
    mu = {"name": "mu", "type": "normfactor", "data": None}
    samples = [{"name": "signal", "data": np.asarray(signal).tolist(), "modifiers": [mu]}]
    for name, events in backgrounds.items():
        pull = {"hi": 1.0 + errors.get(name, 0.0), "lo": max(1.0 - errors.get(name, 0.0), 1e-3)}
        norm = {"name": f"norm_{name}", "type": "normsys", "data": pull}
        data, modifiers = np.asarray(events).tolist(), [norm] if name in errors else []
        samples.append({"name": name, "data": data, "modifiers": modifiers})
    if not np.all(sum(np.asarray(sample["data"]) for sample in samples[1:]) > 0.0):
        raise ConfigError("expected_significance: no background is expected in some bin")
    spec = {"channels": [{"name": "discriminant", "samples": samples}]}
    # what is checked otherwise is the spelling of the line above
    model = pyhf.Model(spec, poi_name="mu", validate=False)
    config = model.config
    start = config.suggested_init()
    start[config.poi_index] = 1.0
    asimov = model.expected_data(start)
    q0 = pyhf.infer.test_statistics.q0(
        0.0, asimov, model, start, config.suggested_bounds(), config.suggested_fixed()
    )
    return float(np.sqrt(q0))
