"""IP2D and IP3D: likelihoods of jets whose densities are known, categories, files."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import norm
from tagging.toy_jets import toy_jets

from pfcalib.errors import ValidationError
from pfcalib.tagging.ftagfiles import LABEL, TaggedJets
from pfcalib.tagging.impact import (
    CATEGORIES,
    D0_EDGES,
    counted_tracks,
    fit_impact,
    impact_columns,
    impact_scores,
    track_category,
)


def area(signal, background):
    """Of the ROC curve: how often a signal is above a background."""
    both = np.concatenate([signal, background])
    rank = np.argsort(np.argsort(both)) + 1.0
    n = len(signal)
    return (rank[:n].sum() - 0.5 * n * (n + 1)) / (n * len(background))


def one_track_each(n, seed):
    """Jets with one good track: significance normal around 0, 1 and 2 in light, c and b jets."""
    sample = toy_jets(n, seed, n_tracks=1)
    rng = np.random.default_rng(seed)
    tracks = sample.tracks
    shift = np.select([sample.label == 5, sample.label == 4], [2.0, 1.0], 0.0)
    tracks["valid"], tracks["pt"], tracks["d0"], tracks["z0SinTheta"] = True, 5.0, 0.1, 0.1
    tracks["numberOfInnermostPixelLayerHits"] = tracks["numberOfNextToInnermostPixelLayerHits"] = 1
    tracks["lifetimeSignedD0Significance"][:, 0] = rng.normal(shift, 1.0)
    tracks["lifetimeSignedZ0SinThetaSignificance"][:, 0] = rng.normal(0.0, 1.0, n)
    return sample


def test_the_ratio_is_that_of_the_densities_in_the_bin():
    sample = one_track_each(60_000, 1)
    columns = impact_columns(sample, fit_impact(sample, use_z0=False), "IP2D")
    value = sample.tracks["lifetimeSignedD0Significance"][:, 0]
    place = np.searchsorted(D0_EDGES, value) - 1
    shares = [norm.cdf(D0_EDGES[1:] - mean) - norm.cdf(D0_EDGES[:-1] - mean) for mean in (0.0, 2.0)]
    middle = (value > -1.0) & (value < 3.0)
    expected = np.log(shares[1][place] / shares[0][place])
    np.testing.assert_allclose(columns["IP2D_bu"][middle], expected[middle], atol=0.25)
    np.testing.assert_allclose(
        columns["IP2D_bc"] + columns["IP2D_cu"], columns["IP2D_bu"], atol=1e-9
    )


def test_more_tracks_and_the_second_impact_parameter_help():
    fitted, test = toy_jets(20_000, 1), toy_jets(6_000, 2)
    found = {}
    for use_z0 in (False, True):
        scores = impact_scores(test, fit_impact(fitted, use_z0=use_z0))
        ratio = scores[:, 0] - scores[:, 2]
        found[use_z0] = area(ratio[test.label == 5], ratio[test.label == 0])
    assert 0.85 < found[False] < found[True] + 1e-3
    first = TaggedJets(test.jets, test.tracks[:, :1])
    scores = impact_scores(first, fit_impact(TaggedJets(fitted.jets, fitted.tracks[:, :1])))
    ratio = scores[:, 0] - scores[:, 2]
    assert area(ratio[test.label == 5], ratio[test.label == 0]) < found[True] - 0.01


def test_jets_without_tracks_say_nothing_and_weights_count():
    sample = toy_jets(5_000, 3)
    table = fit_impact(sample)
    empty = ~counted_tracks(sample).any(axis=1)
    assert empty.sum() > 50
    np.testing.assert_array_equal(impact_scores(sample, table)[empty], 0.0)
    weight = np.where(np.arange(5_000) < 2_500, 1.0, 0.0)
    np.testing.assert_allclose(
        fit_impact(sample, weight=weight).log_density, fit_impact(sample[:2_500]).log_density
    )
    light = toy_jets(50, 4)
    light.jets[LABEL] = 0
    with pytest.raises(ValidationError, match="no track in jets of label 5"):
        fit_impact(light)


def test_categories_go_from_worst_to_best():
    sample = toy_jets(40, 5)
    tracks = sample.tracks
    assert set(np.unique(track_category(sample)[sample.valid])) <= {1, len(CATEGORIES) - 1}
    tracks["numberOfPixelSplitHits"] = 1
    assert set(np.unique(track_category(sample)[sample.valid])) <= {1, 5}
    tracks["numberOfPixelSharedHits"] = 1
    assert set(np.unique(track_category(sample)[sample.valid])) <= {1, 3}
