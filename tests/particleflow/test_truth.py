"""The ideal subtraction takes what the particles of the tracks left, no more and no less."""

import numpy as np
import pytest
from particleflow.hand_made import CELLS, random_event, tracks_of

from pfcalib.errors import ValidationError
from pfcalib.particleflow.match import SUBTRACTED, UNMATCHED, UNSELECTED, FlowConfig
from pfcalib.particleflow.methods import build_method
from pfcalib.particleflow.truth import match_truth, remove_truth

TRUTH = build_method("truth")


def test_all_charged_energy_goes_and_nothing_else(rng):
    """Cells hold what the particles left: what stays is that of the particle without a track."""
    for _ in range(50):
        event = random_event(rng)
        removed = remove_truth(event, CELLS, (sets := TRUTH.match(event, CELLS).sets))
        clusters, truth = event.clusters, event.truth
        left = clusters.cell_energy - np.bincount(sets.entry, removed, len(clusters.cell))
        used = np.isin(truth.hit_particle, event.tracks.particle[sets.track])
        of_others = (
            np.bincount(truth.hit_cell[~used], truth.hit_signal[~used], len(CELLS.layer))[
                clusters.cell
            ]
            * clusters.weight
        )
        lit = np.isin(clusters.cell, truth.hit_cell[truth.hit_signal > 0.0])
        np.testing.assert_allclose(left[lit], of_others[lit], atol=1e-12)
        np.testing.assert_array_equal(left[~lit], clusters.cell_energy[~lit])
        charged = truth.hit_signal[used].sum()
        assert removed.sum() == pytest.approx(charged, rel=1e-6)


def test_fakes_and_unused_tracks_take_nothing(rng):
    event = random_event(rng, n_tracks=2)
    tracks = tracks_of(
        {"pt": 5.0, "particle": -1}, {"pt": 0.3, "particle": 0}, {"pt": 5.0, "particle": 1}
    )
    found = match_truth(event._replace(tracks=tracks), CELLS, FlowConfig())
    assert found.status.tolist() == [UNMATCHED, UNSELECTED, SUBTRACTED]
    assert found.sets.track.tolist() == [2]


def test_an_event_without_truth_is_refused(rng):
    event = random_event(rng)._replace(truth=None, number=17)
    with pytest.raises(ValidationError, match="event 17: no calibration truth"):
        TRUTH.match(event, CELLS)
