"""Jets with tracks drawn from simple shapes, for tests of files, algorithms and networks."""

from __future__ import annotations

import numpy as np

from pfcalib.tagging.ftagfiles import (
    FROM_B,
    FROM_C,
    JETS,
    LABEL,
    MAX_TRACKS,
    PRIMARY,
    TRACKS,
    TaggedJets,
    structure,
)


def toy_jets(n_jets: int, seed: int = 1, n_tracks: int = MAX_TRACKS) -> TaggedJets:
    """A third of each of b, c and light jets; some tracks of the first two come from one vertex
    that is some, or a few, tenths of mm away, so their impact parameters are large.
    """
    rng = np.random.default_rng(seed)
    jets, tracks = (
        np.zeros(n_jets, structure(JETS)),
        np.zeros((n_jets, n_tracks), structure(TRACKS)),
    )
    label = rng.permutation(np.arange(n_jets) % 3)
    jets[LABEL] = np.array([0, 4, 5])[label]
    jets["pt"] = rng.uniform(20.0, 250.0, n_jets)
    jets["eta"], jets["phi"] = rng.uniform(-2.5, 2.5, n_jets), rng.uniform(-np.pi, np.pi, n_jets)
    jets["mass"] = 0.1 * jets["pt"]
    jets["energy"] = np.hypot(jets["pt"] * np.cosh(jets["eta"]), jets["mass"])
    jets["ptFromTruthDressedWZJet"] = jets["pt"] * rng.normal(1.0, 0.1, n_jets)
    far = label > 0
    jets["HadronConeExclTruthLabelPt"] = np.where(far, 0.6 * jets["pt"], np.nan)
    jets["HadronConeExclTruthLabelLxy"] = np.where(far, rng.exponential(3.0, n_jets), np.nan)
    jets["eventNumber"] = np.arange(n_jets) // 2
    n = rng.integers(0, min(n_tracks, 15), n_jets, endpoint=True)
    jets["n_tracks"] = n
    valid = np.arange(n_tracks) < n[:, None]
    shape = valid.shape
    displaced = rng.random(shape) < np.array([0.0, 0.25, 0.5])[label][:, None]
    sigma = rng.uniform(0.01, 0.05, shape)
    scale = np.array([0.0, 0.1, 0.3])[label][:, None]
    lifetime = np.where(displaced, rng.exponential(1.0, shape) * scale, 0.0)
    d0 = lifetime + sigma * rng.standard_normal(shape)
    z0 = lifetime * rng.uniform(-1.0, 1.0, shape) + 2.0 * sigma * rng.standard_normal(shape)
    pt = 0.5 + rng.exponential(3.0, shape)
    eta = jets["eta"][:, None] + rng.normal(0.0, 0.1, shape)
    values = {
        "qOverP": rng.choice([-1.0, 1.0], shape) / (pt * np.cosh(eta)),
        "deta": eta - jets["eta"][:, None],
        "dphi": rng.normal(0.0, 0.1, shape),
        "d0": d0 * rng.choice([-1.0, 1.0], shape),
        "z0SinTheta": z0,
        "qOverPUncertainty": 0.02 / (pt * np.cosh(eta)),
        "thetaUncertainty": 1e-3,
        "phiUncertainty": 1e-3,
        "lifetimeSignedD0Significance": d0 / sigma,
        "lifetimeSignedZ0SinThetaSignificance": z0 / (2.0 * sigma),
        "numberOfPixelHits": 4,
        "numberOfSCTHits": 8,
        "numberOfInnermostPixelLayerHits": rng.random(shape) < 0.95,
        "numberOfNextToInnermostPixelLayerHits": 1,
        "pt": pt,
        "d0Uncertainty": sigma,
        "z0SinThetaUncertainty": 2.0 * sigma,
        "ftagTruthOriginLabel": np.where(
            displaced, np.array([PRIMARY, FROM_C, FROM_B])[label][:, None], PRIMARY
        ),
        "ftagTruthVertexIndex": displaced,
    }
    for name, value in values.items():
        tracks[name] = value
    tracks["valid"] = valid
    tracks[~valid] = np.zeros((), tracks.dtype)
    order = np.argsort(-np.abs(tracks["lifetimeSignedD0Significance"]), axis=1, kind="stable")
    return TaggedJets(jets, np.take_along_axis(tracks, order, axis=1))
