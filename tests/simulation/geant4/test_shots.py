"""Both engines shower the same rows, and rows become events without loss."""

import numpy as np
import pytest

from pfcalib.errors import ConfigError
from pfcalib.geometry import BARREL, WINDOW
from pfcalib.simulation import showers
from pfcalib.simulation.digitise import Hits
from pfcalib.simulation.geant4.shots import build_shots, join_rows, merge_rows
from pfcalib.simulation.particles import GUNS, Particles, simulate_gun


def mixed(n_events, rng, energy=(1.0, 50.0)):
    """One particle an event, of all kinds in turn."""
    guns = [simulate_gun(name, n_events, rng, energy=energy) for name in GUNS]
    kind = np.arange(n_events) % len(guns)
    return Particles(
        np.arange(n_events),
        *(
            np.choose(kind, [getattr(gun, field) for gun in guns])
            for field in Particles._fields[1:]
        ),
    )


@pytest.mark.parametrize("field", [0.0, 2.0])
def test_the_rows_are_those_of_the_fast_engine(field, rng, monkeypatch):
    particles, seen = mixed(200, rng), {}
    run_events = showers.run_events

    def watch(rng, setup, scratch, rows, starts, totals):
        seen.update(rows=rows.copy(), starts=starts.copy())
        return run_events(rng, setup, scratch, rows, starts, totals)

    monkeypatch.setattr(showers, "run_events", watch)
    hits = showers.simulate_showers(particles, BARREL, np.random.default_rng(5), field=field)
    shots = build_shots(particles, np.random.default_rng(5), field=field)
    np.testing.assert_array_equal(shots.rows, seen["rows"])
    np.testing.assert_array_equal(np.searchsorted(shots.event, np.arange(201)), seen["starts"])
    np.testing.assert_array_equal(shots.e_total, hits.e_total)


def test_what_curls_up_has_no_row_and_keeps_its_energy(rng):
    soft = Particles(
        np.arange(2), np.array([211, 22], np.int32), np.array([0.3, 0.3]), np.zeros(2), np.zeros(2)
    )
    shots = build_shots(soft, rng, field=2.0)
    assert shots.pdg_id.tolist() == [22]
    assert shots.event.tolist() == [1]
    assert shots.e_curled.tolist() == [0.3, 0.0]


def test_every_row_has_seeds_of_its_own(rng):
    shots = build_shots(mixed(500, rng), rng)
    assert len(np.unique(shots.seeds, axis=0)) == len(shots.rows)
    assert shots.seeds.min() >= 1
    assert shots.seeds.max() < 2**31


def test_particles_without_showers_are_refused(rng):
    lambda_ = Particles(
        np.arange(1), np.array([3122], np.int32), np.ones(1), np.zeros(1), np.zeros(1)
    )
    with pytest.raises(ConfigError, match=r"PDG id \[3122\]"):
        build_shots(lambda_, rng)


@pytest.fixture
def rows(rng):
    """Made-up hits of the rows of 30 events, a few cells a row, so that rows of an event share
    some.
    """
    shots = build_shots(mixed(30, rng), rng)
    cells = [np.unique(rng.integers(40, size=9)).astype(np.int32) for _ in shots.rows]
    offsets = np.concatenate([[0], np.cumsum([len(cell) for cell in cells])])
    values, per_row = rng.random((5, offsets[-1])), rng.random((4, len(shots.rows)))
    return shots, Hits(offsets, np.concatenate(cells), *values, *per_row)


def test_a_cell_hit_by_several_rows_of_an_event_becomes_one(rows):
    shots, hits = rows
    merged = merge_rows(shots, hits, WINDOW)
    of_hit = np.repeat(shots.event, np.diff(hits.offsets))
    for event in range(30):
        own = slice(merged.offsets[event], merged.offsets[event + 1])
        expected = np.bincount(hits.cell[of_hit == event], hits.em[of_hit == event], 40)
        np.testing.assert_array_equal(merged.cell[own], np.flatnonzero(expected))
        np.testing.assert_allclose(merged.em[own], expected[expected > 0.0], rtol=1e-14)
        assert merged.e_leak[event] == pytest.approx(
            hits.e_leak[shots.event == event].sum(), rel=1e-14
        )


def test_rows_cut_and_joined_are_the_same(rows):
    _, hits = rows
    middle = len(hits.e_dead) // 2
    parts = []
    for own in (slice(0, middle), slice(middle, len(hits.e_dead))):
        cells = slice(hits.offsets[own.start], hits.offsets[own.stop])
        offsets = hits.offsets[own.start : own.stop + 1] - hits.offsets[own.start]
        parts.append(
            Hits(
                offsets,
                *(column[cells] for column in hits[1:7]),
                *(column[own] for column in hits[7:]),
            )
        )
    for one, two in zip(join_rows(parts), hits, strict=True):
        np.testing.assert_array_equal(one, two)


def test_no_rows_are_events_without_hits(rng):
    soft = Particles(
        np.arange(3), np.full(3, 211, np.int32), np.full(3, 0.3), np.zeros(3), np.zeros(3)
    )
    hits = merge_rows(build_shots(soft, rng, field=2.0), join_rows([]), BARREL)
    assert hits.offsets.tolist() == [0, 0, 0, 0]
    assert hits.e_dead.tolist() == [0.3] * 3
