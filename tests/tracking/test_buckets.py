"""Buckets of hits: exact ones against a sort of all angles, approximate ones against exact ones."""

from __future__ import annotations

import numpy as np
import pytest

from pfcalib.errors import ConfigError
from pfcalib.tracking.buckets import (
    KINDS,
    build_index,
    find_buckets,
    most_in_a_bucket,
    recall,
    unit,
)


@pytest.fixture
def vectors(rng):
    return unit(rng.normal(size=(3000, 3)))


def test_a_bucket_holds_the_hits_of_the_smallest_angles_whatever_their_distance(rng):
    places = rng.normal(size=(500, 3)) * rng.uniform(1.0, 1000.0, (500, 1))
    vectors, queries = unit(places), np.arange(0, 500, 50)
    found = find_buckets(build_index(vectors, kind="tree"), vectors, queries, 20)
    cosine = (places @ places[queries].T) / np.linalg.norm(places, axis=1)[:, None]
    expected = np.argsort(-cosine, axis=0)[:20].T
    assert (np.sort(found, axis=1) == np.sort(expected, axis=1)).mean() > 0.99
    assert (found[:, 0] == queries).all()


@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind != "tree"])
def test_approximate_neighbours_are_nearly_the_exact_ones(kind, vectors):
    pytest.importorskip("faiss")
    queries = np.arange(100)
    exact = find_buckets(build_index(vectors, kind="tree"), vectors, queries, 30)
    found = find_buckets(build_index(vectors, kind=kind), vectors, queries, 30)
    assert recall(found, exact) > (0.999 if kind == "exact" else 0.9)
    assert recall(exact[:, ::-1], exact) == 1.0


def test_a_bucket_larger_than_the_event_is_filled_up(vectors):
    found = find_buckets(build_index(vectors[:5], kind="tree"), vectors[:5], np.arange(2), 8)
    assert (np.sort(found[:, :5], axis=1) == np.arange(5)).all()
    assert (found[:, 5:] == -1).all()


def test_the_most_hits_of_a_particle_are_those_of_one_bucket():
    particle = np.array([0, 0, 0, 1, 1, -1], np.int32)
    buckets = np.array([[0, 1, 3, 5], [2, 3, 4, -1]])
    assert most_in_a_bucket(particle, buckets, 3).tolist() == [2, 2, 0]


def test_an_unknown_index_is_refused(vectors):
    with pytest.raises(ConfigError, match="expected one of"):
        build_index(vectors, kind="none")
