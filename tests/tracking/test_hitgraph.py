"""Graphs of hits: bends as computed by hand, truth by hand, tracks from perfect scores."""

from __future__ import annotations

import numpy as np
import pytest

from pfcalib.errors import ConfigError
from pfcalib.tracking.forwardhits import PLANES, ForwardConfig, ForwardHits, simulate_forward_events
from pfcalib.tracking.hitgraph import (
    NO_NEIGHBOUR,
    GraphConfig,
    build_graph,
    find_doublets,
    link,
    raw_vectors,
    sectors,
    true_parts,
)
from pfcalib.tracking.trackmatch import match_tracks

Z = np.array(PLANES)


def hits_of(position, layer, particle, second=None):
    none = np.full(len(particle), -1)
    return ForwardHits(
        np.array(position, np.float32), np.array(layer, np.int8), np.array(particle, np.int32),
        np.array(none if second is None else second, np.int32),
    )  # fmt: skip


@pytest.fixture(scope="module")
def event():
    events = simulate_forward_events(ForwardConfig(n_events=1, mu=4.0, chunk=1, seed=9), 0)
    return events, events.event(0)


def test_doublets_are_near_pairs_of_planes_within_reach(event):
    _, hits = event
    config = GraphConfig(radius=0.1)
    vectors = raw_vectors(hits)
    found = {tuple(pair) for pair in find_doublets(hits, vectors, config)}
    place = hits.position.astype(np.float64)
    step = hits.layer[None].astype(int) - hits.layer[:, None]
    near = np.linalg.norm(vectors[:, None] - vectors[None], axis=-1) <= config.radius
    across = np.linalg.norm(place[:, None, :2] - place[None, :, :2], axis=-1)
    gentle = across <= config.slope * (place[None, :, 2] - place[:, None, 2])
    assert found == set(zip(*np.nonzero(near & gentle & (step >= 1) & (step <= 2)), strict=True))


def test_bends_of_a_triplet_are_its_change_of_slope():
    # on three planes 25 mm apart, 0.1 mm further out on the last one
    slope, z = 0.1, Z[10:13]
    position = np.column_stack([10.0 + slope * (z - z[0]), np.zeros(3), z])
    position[2, 0] += 0.1
    hits = hits_of(position, [10, 11, 12], [0, 0, 0])
    config = GraphConfig()
    graph = build_graph(hits, raw_vectors(hits), Z, config)
    assert graph.doublets.tolist() == [[0, 1], [1, 2]]
    k = config.k
    assert graph.neighbours[0, k] == 1
    assert graph.neighbours[1, 0] == 0
    assert (graph.neighbours >= 0).sum() == 2
    error = config.error * np.sqrt(6.0) / 25.0
    there, out, about, size, expected = graph.edges[0, k]
    assert there == 1.0
    assert np.sinh(out) * error == pytest.approx(0.1 / 25.0, rel=1e-4)
    assert about == pytest.approx(0.0, abs=1e-5)
    assert np.exp(size - 6.0) - 1e-4 == pytest.approx(0.1 / 25.0, rel=1e-4)
    assert np.exp(expected - 6.0) == pytest.approx(error, rel=1e-4)
    np.testing.assert_array_equal(graph.edges[1, 0], graph.edges[0, k])
    assert all(part.all() for part in (true_parts(hits, graph)[0],))
    assert true_parts(hits, graph)[1].sum() == 1


def test_truth_follows_both_particles_of_a_hit_and_passes_over_holes():
    z = Z[[10, 11, 12, 14]]
    line = np.column_stack([8.0 + 0.02 * (z - z[0]), np.zeros(4), z])
    other = line[2] + [0.0, 0.1, 0.0]  # where the second particle goes on
    hits = hits_of([*line, other], [10, 11, 12, 14, 12], [0, 0, 0, 0, 1], [1, 1, -1, -1, -1])
    graph = build_graph(hits, raw_vectors(hits), Z, GraphConfig())
    doublets, triplets = true_parts(hits, graph)
    true = {tuple(pair) for pair in graph.doublets[doublets]}
    assert true == {(0, 1), (1, 2), (1, 4), (2, 3)}
    assert triplets.sum() == 3


def test_perfect_scores_give_pure_tracks_of_what_the_graph_holds(event):
    events, hits = event
    config = GraphConfig(bend=0.05, radius=0.3, k=8)
    graph = build_graph(hits, raw_vectors(hits), Z, config)
    chains = link(hits, graph, true_parts(hits, graph)[1].astype(np.float32), 0.5, len(Z))
    matched = match_tracks(chains.tracks, hits, events.n_particles[0])
    assert matched.is_ghost.mean() < 0.01  # a pixel of two particles may join one to the other
    pion = matched.wanted & (events.kind == 0)
    assert (matched.n_tracks > 0)[pion].mean() > 0.99
    np.testing.assert_array_equal(chains.score, (chains.tracks >= 0).sum(axis=1) - 2)
    none = np.zeros((len(graph.nodes), config.k), np.float32)
    assert len(link(hits, graph, none, 0.5, len(Z)).tracks) == 0


def test_a_cut_ends_chains_where_scores_are_low():
    z = Z[8:14]
    hits = hits_of(np.column_stack([8.0 + 0.02 * z, 0.0 * z, z]), range(8, 14), [0] * 6)
    graph = build_graph(hits, raw_vectors(hits), Z, GraphConfig(reach=1))
    score = np.zeros((5, 4), np.float32)
    score[:4, 0] = [0.9, 0.3, 0.8, 0.6]
    whole, broken = (link(hits, graph, score, cut, len(Z)) for cut in (0.2, 0.5))
    assert (whole.tracks >= 0).sum(axis=1).tolist() == [6]
    assert whole.score == pytest.approx([2.6])
    assert broken.score == pytest.approx([0.9, 1.4])
    assert (broken.tracks >= 0).sum(axis=1).tolist() == [3, 4]


def test_sectors_hold_each_doublet_once_and_keep_triplets_within(event):
    _, hits = event
    graph = build_graph(hits, raw_vectors(hits), Z, GraphConfig())
    masks = sectors(hits, graph, 3)
    assert np.all(np.sum(masks, axis=0) == 1)
    part = graph.take(masks[1])
    rows = np.flatnonzero(masks[1])
    inside = masks[1][graph.neighbours[masks[1]]] & (graph.neighbours[masks[1]] >= 0)
    np.testing.assert_array_equal(part.neighbours >= 0, inside)
    np.testing.assert_array_equal(rows[part.neighbours[inside]],
                                  graph.neighbours[masks[1]][inside])  # fmt: skip
    assert not part.edges[~inside].any()
    assert part.neighbours.min() == NO_NEIGHBOUR


def test_a_mirrored_graph_is_that_of_mirrored_hits(event):
    _, hits = event
    flipped = hits._replace(position=hits.position * np.array([-1.0, 1.0, 1.0], np.float32))
    graph, other = (build_graph(of, raw_vectors(of), Z, GraphConfig()) for of in (hits, flipped))
    np.testing.assert_array_equal(other.neighbours, graph.neighbours)
    np.testing.assert_allclose(other.nodes, graph.mirrored().nodes, atol=1e-5)
    np.testing.assert_allclose(other.edges, graph.mirrored().edges, atol=1e-5)


def test_settings_without_sense_are_refused():
    with pytest.raises(ConfigError, match="GraphConfig"):
        GraphConfig(bend=0.0)
