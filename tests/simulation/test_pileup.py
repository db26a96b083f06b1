"""Pile-up: turns permute cells exactly, what is overlaid adds up as in a loop, and numbers are
those of Poisson.
"""

import numpy as np
import pytest

from pfcalib.errors import ConfigError
from pfcalib.geometry import BARREL
from pfcalib.simulation.collisions import Collisions
from pfcalib.simulation.particles import Particles
from pfcalib.simulation.pileup import (
    N_TURNS,
    NO_POOL,
    UNLISTED,
    Overlay,
    Pool,
    PoolConfig,
    add_pileup,
    cached_pool,
    draw_pileup,
    overlaid_particles,
    place_vertices,
    read_pool,
    shower_particles,
    turn_table,
)
from pfcalib.simulation.tracks import may_leave_track

TURNED = turn_table(BARREL)


@pytest.fixture
def pool(rng):
    """Twenty events of a toy: up to three particles, cells at random, some of them unlisted."""
    n_particles, n_hits = rng.integers(4, size=20), rng.integers(60, size=20)
    first, offsets = (np.concatenate([[0], np.cumsum(n)]) for n in (n_particles, n_hits))
    event = np.repeat(np.arange(20), n_particles)
    flat = (rng.uniform(1.0, 5.0, len(event)), rng.uniform(-1.0, 1.0, len(event)))
    phi = rng.uniform(-np.pi, np.pi, len(event))
    particles = Particles(event, np.full(len(event), 211, np.int32), *flat, phi)
    owner = np.concatenate(
        [rng.integers(-1, n, m) for n, m in zip(n_particles, n_hits, strict=True)]
    )
    cell = rng.integers(BARREL.n_cells, size=len(owner))
    values = rng.random((len(owner), 5)).astype(np.float32)
    return Pool(particles, first, offsets, cell.astype(np.int32), owner.astype(np.int32), values)


class TestTurn:
    def test_it_permutes_the_cells_of_every_layer_exactly(self):
        for turn in (0, 1, 17, 63):
            moved = TURNED[turn]
            np.testing.assert_array_equal(np.sort(moved), np.arange(BARREL.n_cells))
            np.testing.assert_array_equal(BARREL.layer[moved], BARREL.layer)
            np.testing.assert_array_equal(BARREL.eta[moved], BARREL.eta)
            d_phi = BARREL.phi[moved] - BARREL.phi - 2.0 * np.pi * turn / N_TURNS
            np.testing.assert_allclose(np.abs(np.exp(1j * d_phi) - 1.0), 0.0, atol=1e-12)

    def test_a_turned_event_is_the_event_of_turned_particles(self):
        phi = np.array([-3.0, 0.4, 2.9])
        particles = Particles(
            np.zeros(3, dtype=np.int64),
            np.array([211, 22, -2212], np.int32),
            np.array([8.0, 5.0, 12.0]),
            np.array([0.3, -0.5, 0.7]),
            phi,
        )
        plain, turned = (
            shower_particles(
                Collisions(particles._replace(phi=phi + angle), np.ones(3, np.bool_), np.ones(1)),
                np.random.default_rng(4),
            )[1]
            for angle in (0.0, 2.0 * np.pi * 9 / N_TURNS)
        )
        assert len(plain.cell) > 300
        for i in range(3):
            one, two = (slice(*hits.offsets[i : i + 2]) for hits in (plain, turned))
            order = np.argsort(TURNED[9][plain.cell[one]])
            np.testing.assert_array_equal(TURNED[9][plain.cell[one]][order], turned.cell[two])
            np.testing.assert_allclose(plain.signal[one][order], turned.signal[two], rtol=1e-9)


class TestOverlay:
    def test_the_number_of_collisions_is_that_of_poisson(self, rng):
        number = np.diff(draw_pileup(10, 7.0, 20_000, rng, sigma_z=40.0).offsets)
        assert np.mean(number) == pytest.approx(7.0, abs=4.0 * np.sqrt(7.0 / 20_000))
        assert np.var(number) == pytest.approx(7.0, rel=0.04)

    def test_every_event_turn_and_place_is_drawn(self, rng):
        drawn = draw_pileup(10, 30.0, 1000, rng, sigma_z=40.0)
        for values, n in ((drawn.event, 10), (drawn.turn, N_TURNS)):
            counts = np.bincount(values, minlength=n)
            assert np.all(np.abs(counts - counts.mean()) < 5.0 * np.sqrt(counts.mean()))
        assert np.std(drawn.z) == pytest.approx(40.0, rel=0.03)

    def test_the_hard_vertex_lies_in_the_beam_spot_too(self, rng):
        drawn = draw_pileup(10, 2.0, 4000, rng, sigma_z=40.0)
        vertices = place_vertices(drawn, rng, sigma_z=40.0)
        np.testing.assert_array_equal(np.diff(vertices.offsets), np.diff(drawn.offsets) + 1)
        is_hard = np.zeros(len(vertices.z), np.bool_)
        is_hard[vertices.offsets[:-1]] = True
        assert np.all(vertices.z[is_hard] == 0.0)
        assert np.std(vertices.z[~is_hard]) == pytest.approx(40.0 * np.sqrt(2.0), rel=0.03)

    def test_particles_turn_with_their_event(self, pool, rng):
        overlay = draw_pileup(20, 5.0, 6, rng, sigma_z=40.0)
        particles, vertex = overlaid_particles(pool, overlay)
        wanted = [
            (crossing, k + 1, row)
            for crossing in range(6)
            for k, event in enumerate(overlay.event[slice(*overlay.offsets[crossing:][:2])])
            for row in np.flatnonzero(pool.particles.event == event)
        ]
        crossing, number, row = np.array(wanted).T
        np.testing.assert_array_equal(particles.event, crossing)
        np.testing.assert_array_equal(vertex, number)
        np.testing.assert_array_equal(particles.energy, pool.particles.energy[row])
        turn = overlay.turn[overlay.offsets[crossing] + number - 1]
        angle = particles.phi - pool.particles.phi[row] - 2.0 * np.pi * turn / N_TURNS
        np.testing.assert_allclose(np.cos(angle), 1.0, atol=1e-12)
        assert np.all(np.abs(particles.phi) <= np.pi)

    def test_without_a_pool_nothing_is_drawn(self, rng):
        overlay = draw_pileup(NO_POOL.n_events, 0.0, 3, rng, sigma_z=40.0)
        assert overlay.offsets.tolist() == [0, 0, 0, 0]
        assert len(overlaid_particles(NO_POOL, overlay)[1]) == 0


def overlay_hits(pool, overlay, rows, hard):
    """Hits of the one crossing of an overlay."""
    n_listed = np.diff(pool.first)[overlay.event]
    first_row = np.cumsum(n_listed) - n_listed
    of_pool = (pool.offsets, pool.cell, pool.owner, pool.values)
    return add_pileup(*hard, overlay.event, overlay.turn, first_row, rows, *of_pool, TURNED)


class TestSum:
    def test_it_is_that_of_a_loop_over_hits(self, pool, rng):
        overlay = draw_pileup(20, 60.0, 1, rng, sigma_z=40.0)
        n = len(overlaid_particles(pool, overlay)[1])
        rows = np.where(rng.random(n) < 0.5, np.arange(n) + 2, UNLISTED).astype(np.int32)
        hard = (
            np.array([5, 700, 700], np.int32),
            np.array([0, 0, 1], np.int32),
            rng.random((3, 5)),
        )
        wanted: dict = {}
        for cell, row, values in zip(*hard, strict=True):
            wanted[int(cell), int(row)] = [values]
        before = 0
        for event, turn in zip(overlay.event, overlay.turn, strict=True):
            for i in range(pool.offsets[event], pool.offsets[event + 1]):
                owner = pool.owner[i]
                row = int(rows[before + owner]) if owner >= 0 else UNLISTED
                key = int(TURNED[turn, pool.cell[i]]), row
                wanted.setdefault(key, []).append(pool.values[i].astype(np.float64))
            before += pool.first[event + 1] - pool.first[event]
        cell, row, values = overlay_hits(pool, overlay, rows, hard)
        assert np.all(np.diff(cell) >= 0)
        found: dict = {}
        for c, r, v in zip(cell.tolist(), row.tolist(), values, strict=True):
            found.setdefault((c, r), []).append(v)
        assert found.keys() == wanted.keys()
        assert np.sum(row == UNLISTED) == sum(key[1] == UNLISTED for key in wanted)
        for key, parts in wanted.items():
            np.testing.assert_allclose(sum(found[key]), sum(parts), rtol=1e-12)

    def test_energy_grows_in_proportion_to_mu(self, pool, rng):
        nothing = np.zeros(0, np.int32), np.zeros(0, np.int32), np.zeros((0, 5))
        mean = pool.values[:, 0].sum(dtype=np.float64) / 20
        for mu in (10.0, 40.0, 160.0):
            totals = []
            for _ in range(40):
                overlay = draw_pileup(20, mu, 1, rng, sigma_z=40.0)
                rows = np.full(len(overlaid_particles(pool, overlay)[1]), UNLISTED, np.int32)
                totals.append(overlay_hits(pool, overlay, rows, nothing)[2][:, 0].sum())
            error = np.std(totals) / np.sqrt(40)
            assert np.mean(totals) == pytest.approx(mu * mean, abs=4.0 * error)

    def test_two_draws_of_one_event_stay_two(self, pool):
        event = int(np.argmax(np.diff(pool.offsets)))
        overlay = Overlay(np.array([0, 2]), np.full(2, event), np.array([3, 3]), np.zeros(2))
        n = len(overlaid_particles(pool, overlay)[1])
        nothing = np.zeros(0, np.int32), np.zeros(0, np.int32), np.zeros((0, 5))
        _, row, values = overlay_hits(pool, overlay, np.arange(n, dtype=np.int32), nothing)
        assert set(row.tolist()) - {UNLISTED} == set(range(n))
        hits = slice(*pool.offsets[event : event + 2])
        assert values.sum() == pytest.approx(2.0 * pool.values[hits].sum(dtype=np.float64))


def test_a_pool_is_kept_and_holds_minimum_bias(tmp_path):
    pytest.importorskip("pythia8mc")
    config, told = PoolConfig(n_events=8, chunk=4), []
    path = cached_pool(config, cache_dir=tmp_path, progress=told.append)
    assert told == [4, 4]
    assert cached_pool(config, cache_dir=tmp_path, progress=told.append) == path
    assert told == [4, 4]
    pool = read_pool(path)
    assert pool.n_events == 8
    assert may_leave_track(pool.particles, config.tracks).all()
    np.testing.assert_array_equal(pool.first, np.searchsorted(pool.particles.event, np.arange(9)))
    event = np.repeat(np.arange(8), np.diff(pool.offsets))
    assert np.all(pool.owner < np.diff(pool.first)[event])
    listed = pool.owner != UNLISTED
    assert 0.1 < listed.mean() < 0.7
    owners = np.unique((pool.first[event] + pool.owner)[listed])
    assert len(owners) > 0.6 * len(pool.particles.event)  # the others miss the barrel
    assert np.all(pool.values[:, 1:].sum(axis=1) >= 0.0)
    half = pool.offsets[4]
    assert not np.array_equal(pool.values[:20], pool.values[half : half + 20])


def test_settings_out_of_range_are_refused():
    with pytest.raises(ConfigError, match="n_events and chunk of at least 1, not 0, 500"):
        PoolConfig(n_events=0)
