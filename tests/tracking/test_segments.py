"""Candidates of five hits: all triplets and nothing else, chi2 that are chi2, inputs that do not
know where the beam's axes point, and two processes that make what one makes.
"""

from __future__ import annotations

import dataclasses
import itertools

import numpy as np
import pytest
from scipy.stats import kstest

from pfcalib.errors import ConfigError
from pfcalib.tracking.barrelhits import CURVATURE, NOISE, Hits, follow
from pfcalib.tracking.longlived import LongLivedConfig, simulate_long_lived
from pfcalib.tracking.segments import (
    FEATURES,
    SegmentConfig,
    cached_segments,
    classical,
    curvatures,
    find_candidates,
    inputs,
    majority,
    read_segments,
    simulate_segments,
)
from pfcalib.tracking.trackfinder import circle

STRIPS = (*[0.0] * 4, 1.5, 1.5, 1.5, 50.0, 50.0, 50.0)
EVENTS = LongLivedConfig(n_events=4, n_tracks=150, n_decays=30, chunk=2, seed=6, strips=STRIPS)
CONFIG = SegmentConfig(events=EVENTS, slack=4.0)


def slow(hits: Hits, config: SegmentConfig) -> set[tuple[int, ...]]:
    """All paths of hits that pass the cuts, one cut after the other."""
    position, layer = hits.position.astype(np.float64), hits.layer
    r, phi, z = np.hypot(*position[:, :2].T), np.arctan2(*position[:, 1::-1].T), position[:, 2]
    strips, steepest = np.array(STRIPS)[layer], CURVATURE * 2.0 / config.pt_min

    def joined(a, b):
        if layer[b] != layer[a] + 1 or layer[a] < 4:
            return False
        ratio = r[b] / r[a]
        reach = config.z_max * (ratio - 1.0) + 0.5 * (strips[b] + ratio * strips[a])
        turn = abs(np.angle(np.exp(1j * (phi[b] - phi[a]))))
        step = r[b] - r[a]
        most = 0.6 * steepest * step + config.d_max * (1.0 / r[a] - 1.0 / r[b])
        return abs(z[b] - ratio * z[a]) <= reach and turn < most

    def on_a_line(a, b, c):
        share = (r[b] - r[a]) / (r[c] - r[a])
        wide = (1.0 - share) * strips[a] + strips[b] + share * strips[c]
        return abs(z[b] - z[a] - share * (z[c] - z[a])) <= config.slack + 0.5 * wide

    def bends(a, b, c):
        curve, x, y = circle(position[a], position[b], position[c])
        near = abs(np.hypot(x, y) - 1.0 / abs(curve)) <= config.d_max
        return abs(curve) <= steepest and near and on_a_line(a, b, c)

    segments = [(a, b) for a in range(len(z)) for b in range(len(z)) if joined(a, b)]
    of = {a: [end for begin, end in segments if begin == a] for a in range(len(z))}
    triplets = [(a, b, c) for a, b in segments for c in of[b] if bends(a, b, c)]
    curve = {t: circle(*position[list(t)])[0] for t in triplets}
    return {
        (*s, *t[1:]) for s, t in itertools.product(triplets, triplets)
        if s[2] == t[0] and abs(curve[s] - curve[t]) <= config.bend * steepest
        and on_a_line(s[0], s[2], t[2])
    }  # fmt: skip


def tracks(rng, n, config, pt=(1.0, 3.0)):
    """Hits on layers 4 to 8 of particles from the beam, (n, 5, 3)."""
    states = np.column_stack([
        np.zeros((n, 2)), rng.normal(0.0, 30.0, n), rng.uniform(-np.pi, np.pi, n),
        rng.uniform(-1.0, 1.0, n), rng.choice([-1.0, 1.0], n) / rng.uniform(*pt, n),
    ])  # fmt: skip
    places = follow(states, np.array(config.radii), config.field, config.thickness, rng)[:, 4:9]
    r, phi = np.hypot(*places[..., :2].T).T, np.arctan2(places[..., 1], places[..., 0])
    phi = phi + rng.normal(0.0, config.resolution[0], phi.shape) / r
    z = places[..., 2] + rng.normal(0.0, config.resolution[1], phi.shape)
    return np.stack([r * np.cos(phi), r * np.sin(phi), z], axis=-1)


def test_the_candidates_are_those_that_an_obvious_search_finds():

    events, _ = simulate_long_lived(EVENTS, 0)
    hits = events.event(0)
    found = find_candidates(hits, CONFIG)
    assert (hits.layer[found] == hits.layer[found[:, :1]] + np.arange(5)).all()
    rows = list(map(tuple, found.tolist()))
    assert len(set(rows)) == len(rows) > 50
    assert set(rows) == slow(hits, CONFIG)


def test_particles_of_enough_momentum_have_a_candidate_and_few_are_of_chance_in_a_quiet_event():
    segments = simulate_segments(CONFIG, 1)
    assert set(segments.event) == {2, 3}
    built = np.isin(segments.findable, segments.particle[segments.is_real])
    stiff = segments.pt > 1.0
    assert built[stiff & (segments.began == 0.0)].mean() > 0.98
    assert built[stiff & (segments.began > 5.0)].mean() > 0.9
    assert not built[segments.pt < 0.6].any()
    assert segments.is_real.mean() > 0.5
    known = np.isin(segments.particle[segments.is_real], segments.findable)
    assert known.mean() > 0.7  # the others have four hits on neighbouring layers


def test_both_chi2_follow_their_distributions_and_the_curvatures_of_a_helix_agree(rng):
    config = LongLivedConfig()
    quantities = classical(tracks(rng, 4000, config), np.full(4000, 4), config)
    assert kstest(quantities[:, 1], "chi2", (2,)).statistic < 0.05
    assert kstest(quantities[:, 2], "chi2", (3,)).statistic < 0.05
    assert (quantities[:, 3] <= quantities[:, 1:3].sum(axis=1)).all()
    bare = dataclasses.replace(config, thickness=1e-9, resolution=(1e-9, 1e-9))
    helices = tracks(rng, 50, bare)
    assert classical(helices, np.full(50, 4), bare)[:, 0] == pytest.approx(0.0, abs=2e-5)
    curves = curvatures(helices)
    assert curves == pytest.approx(np.repeat(curves[:, :1], 4, axis=1), rel=1e-5)


@pytest.mark.parametrize("k", range(5))
def test_without_the_hit_that_is_wrong_the_others_fit(rng, k):
    hits = tracks(rng, 500, EVENTS, pt=(2.0, 3.0))
    away = hits[:, k] * [1.0, 1.0, 0.0]
    away *= 2.0 / np.linalg.norm(away, axis=1, keepdims=True)
    hits[:, k] += np.column_stack([-away[:, 1], away[:, 0], np.zeros(500)])
    found = classical(hits, np.full(500, 4), LongLivedConfig())
    assert np.median(found[:, 1]) > 50.0
    assert np.median(found[:, 3]) < 4.0


def test_the_inputs_do_not_change_when_the_detector_is_turned_or_mirrored(rng):
    hits = tracks(rng, 200, EVENTS)
    table, names = inputs(hits), list(FEATURES)
    assert table.shape == (200, 24)
    angle = 0.7
    turned = hits.copy()
    turned[..., 0] = np.cos(angle) * hits[..., 0] - np.sin(angle) * hits[..., 1]
    turned[..., 1] = np.sin(angle) * hits[..., 0] + np.cos(angle) * hits[..., 1]
    free = [i for i, name in enumerate(names) if name != "|phi| [rad] 1"]
    for other in (turned, hits * [1.0, -1.0, 1.0], hits * [1.0, 1.0, -1.0]):
        assert inputs(other)[:, free] == pytest.approx(table[:, free], rel=1e-4, abs=2e-4)
    pt = CURVATURE * 2.0 / np.abs(curvatures(hits)[:, 3])
    assert 10.0 ** table[:, names.index("log10 pt [GeV]")] == pytest.approx(pt, rel=1e-5)


def test_the_commonest_particle_is_that_of_most_hits_and_noise_is_none():
    particle = np.array([[1, 1, 2, 1, 1], [2, NOISE, NOISE, NOISE, 2], [NOISE] * 5], np.int32)
    common, name = majority(particle)
    assert common.tolist() == [4, 2, 0]
    assert name.tolist()[:2] == [1, 2]
    assert name[2] == NOISE


def test_processes_change_nothing(tmp_path, monkeypatch):
    monkeypatch.setenv("PFCALIB_CACHE", str(tmp_path))
    found = read_segments(cached_segments(CONFIG, n_processes=2))
    parts = [simulate_segments(CONFIG, number) for number in range(2)]
    for array, *of_parts in zip(found, *parts, strict=True):
        np.testing.assert_array_equal(array, np.concatenate(of_parts))


@pytest.mark.parametrize("wrong", [{"pt_min": 0.0}, {"slack": -1.0}])
def test_settings_without_sense_are_refused(wrong):
    with pytest.raises(ConfigError, match="SegmentConfig"):
        SegmentConfig(**wrong)
