"""Matching of vertices on events that are written out."""

from __future__ import annotations

import numpy as np
import pytest

from pfcalib.tracking.beamline import BeamEvents
from pfcalib.tracking.vertexdensity import Found
from pfcalib.tracking.vertexmatch import choose_cut, match, neighbours, per_event, scan


def events(z, n_prompt, n_vertices):
    """Collisions alone; the tracks do not matter here."""
    vertices = np.column_stack([np.zeros((len(z), 2)), z]).astype(np.float32)
    n = len(n_vertices)
    return BeamEvents(
        np.zeros(n, np.int32), np.array(n_vertices, np.int32), np.zeros((0, 5), np.float32),
        np.zeros(0, np.int32), np.zeros(0, bool), vertices, np.array(n_prompt, np.int32),
    )  # fmt: skip


TWO = events([10.0, 10.8, 50.0, 20.0, 900.0], [10, 20, 3, 7, 99], [3, 2])
FOUND = Found(
    np.array([0, 0, 0, 0, 1]), np.array([10.3, 10.35, 50.2, 70.0, 20.6]),
    np.array([5.0, 4.0, 3.0, 2.0, 1.0]),
)  # fmt: skip


def test_vertices_are_matched_one_to_one_and_those_of_few_tracks_are_neither():
    """The one beyond the histogram does not count, and 0.6 mm is too far."""
    matches = match(TWO, FOUND)
    assert matches.n_tracks.tolist() == [10, 20, 7]
    assert matches.found.tolist() == [True, True, False]
    assert matches.residual[:2] == pytest.approx([0.3, -0.45], abs=1e-5)
    assert matches.n_false.tolist() == [1, 1]
    assert match(TWO, FOUND, window=0.7).n_false.tolist() == [1, 0]
    assert match(TWO, FOUND, cut=4.5).n_false.tolist() == [0, 0]


def test_efficiency_rises_with_false_vertices_and_the_cut_keeps_to_the_limit():
    curve = scan(TWO, FOUND)
    assert (np.diff(curve.cut) < 0.0).all()
    assert (np.diff(curve.efficiency) >= 0.0).all()
    assert curve.false[-1] == 1.0
    cut = choose_cut(curve, 0.0)
    assert match(TWO, FOUND, cut=cut).n_false.sum() == 0
    assert match(TWO, FOUND, cut=cut).found.sum() == 2
    none = Found(*np.zeros((3, 0)))
    assert scan(TWO, none).efficiency.tolist() == [0.0]


def test_neighbours_and_numbers_by_event():
    matches = match(TWO, FOUND)
    gap, both = neighbours(matches)
    assert gap == pytest.approx([0.8], abs=1e-5)
    assert both.tolist() == [True]
    found, wanted = per_event(matches, 2)
    assert (found.tolist(), wanted.tolist()) == ([2, 0], [2, 1])
    found, wanted = per_event(matches, 2, matches.n_tracks > 15)
    assert (found.tolist(), wanted.tolist()) == ([1, 0], [1, 0])
