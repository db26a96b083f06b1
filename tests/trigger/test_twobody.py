"""Pairs of tracks: lines, vertices and chi2 whose answers are known, and where they come from."""

import importlib.util

import numpy as np
import pytest

from pfcalib.errors import ConfigError
from pfcalib.trigger import twobody
from pfcalib.trigger.twobody import (
    KINDS,
    NO_HADRON,
    WEAK,
    Errors,
    Tracks,
    TwoBodyConfig,
    cached_two_bodies,
    draw_errors,
    pair_tracks,
    read_two_bodies,
    simulate_two_bodies,
)

needs_pythia = pytest.mark.skipif(
    importlib.util.find_spec("pythia8mc") is None, reason="pythia8mc is not installed"
)


def decays(n, rng, *, flight=20.0, mass=3.0):
    """Two pions each of particles of a mass that fly along random forward directions."""
    eta, phi = rng.uniform(2.5, 4.5, n), rng.uniform(-np.pi, np.pi, n)
    pt = rng.uniform(5.0, 10.0, n)
    momentum = np.column_stack([pt * np.cos(phi), pt * np.sin(phi), pt * np.sinh(eta)])
    energy = np.sqrt(np.sum(momentum**2, axis=1) + mass**2)
    cosine, turn = rng.uniform(-1.0, 1.0, n), rng.uniform(-np.pi, np.pi, n)
    sine = np.sqrt(1.0 - cosine**2)
    star = np.column_stack([sine * np.cos(turn), sine * np.sin(turn), cosine])
    star *= np.sqrt(0.25 * mass**2 - twobody.M_PION**2)
    along = np.sum(star * momentum, axis=1) / mass
    shift = (along / (energy + mass) + 0.5)[:, None] * momentum
    way = momentum / np.linalg.norm(momentum, axis=1)[:, None]
    start = np.repeat(flight * way, 2, axis=0)
    both = np.stack([star + shift, -star + momentum - shift], axis=1).reshape(-1, 3)
    event = np.repeat(np.arange(n), 2)
    return Tracks(
        event, start, both, np.zeros(2 * n, np.int64), np.ones(2 * n, np.int64),
        np.full(2 * n, flight),
    )  # fmt: skip


def no_errors(n):
    return Errors(np.zeros((n, 2)), np.zeros(n, np.bool_), np.zeros(n), np.zeros((n, 3)))


def test_without_errors_mass_and_corrected_mass_are_that_of_the_decay(rng):
    tracks = decays(300, rng)
    pairs = pair_tracks(tracks, no_errors(600))
    assert len(pairs["event"]) > 200
    assert pairs["mass"] == pytest.approx(3.0, rel=1e-4)
    assert pairs["corrected_mass"] == pytest.approx(3.0, rel=1e-3)
    assert np.all(pairs["vertex_chi2"] < 1e-6)
    assert np.all(pairs["kind"] == 0)
    assert pairs["flight"] == pytest.approx(20.0)


def test_chi2_of_vertices_and_of_prompt_tracks_have_one_and_two_degrees_of_freedom(
    rng, monkeypatch
):
    monkeypatch.setattr(twobody, "TAIL", 0.0)
    tracks = decays(8000, rng)
    chi2 = pair_tracks(tracks, draw_errors(16_000, rng))["vertex_chi2"]
    assert chi2.mean() == pytest.approx(1.0, abs=0.06)  # cut at 25
    # all pairs of prompt tracks: the smaller of two exponentials of mean 2 has mean 1
    for name, value in (("IP_CHI2", -1.0), ("PAIR_PT", 0.0), ("CORRECTED_MASS", 0.0),
                        ("VERTEX_CHI2", 1e9), ("ETA", (-99.0, 99.0))):  # fmt: skip
        monkeypatch.setattr(twobody, name, value)
    prompt = decays(8000, rng, flight=0.0)
    least = pair_tracks(prompt, draw_errors(16_000, rng))["min_ip_chi2"]
    assert least.mean() == pytest.approx(1.0, abs=0.06)


def test_worse_tracks_have_larger_chi2_with_the_same_random_numbers(rng, monkeypatch):
    monkeypatch.setattr(twobody, "TAIL", 0.0)
    monkeypatch.setattr(twobody, "VERTEX_CHI2", 1e9)
    tracks, errors = decays(2000, rng), draw_errors(4000, rng)
    good, bad = (pair_tracks(tracks, errors, scale=scale) for scale in (1.0, 1.2))
    common = np.intersect1d(good["event"], bad["event"])
    assert len(common) > 1500
    ratio = [of["vertex_chi2"][np.isin(of["event"], common)] for of in (bad, good)]
    assert np.median(ratio[0] / ratio[1]) == pytest.approx(1.44, rel=1e-3)


def test_pairs_are_of_one_event_and_of_one_hadron_only_where_both_tracks_are(rng):
    tracks = decays(50, rng)
    mixed = tracks._replace(event=np.zeros(100, np.int64), hadron=np.repeat(np.arange(50), 2))
    pairs = pair_tracks(mixed, no_errors(100))
    assert len(pairs["event"]) > 50
    own = pairs["hadron"] != NO_HADRON
    assert own.sum() <= 50
    assert np.all(pairs["kind"][~own] == len(KINDS) - 1)
    apart = pair_tracks(tracks, no_errors(100))
    assert np.all(np.bincount(apart["event"]) <= 1)


@needs_pythia
def test_b_hadrons_live_as_long_as_they_should():
    for factor in (1.0, 10.0):
        made = simulate_two_bodies(TwoBodyConfig(process="b", n_events=60, lifetime=factor), 0)
        n, total = made.decay[0]
        assert n >= 100
        assert total / n == pytest.approx(factor * WEAK[511], rel=5.0 / np.sqrt(n))


@needs_pythia
def test_a_sample_does_not_depend_on_processes_and_interruptions(tmp_path, monkeypatch):
    config = TwoBodyConfig(process="b", n_events=40, chunk=20, scales=(1.0, 1.2))
    files = []
    for n in (1, 2):
        monkeypatch.setenv("PFCALIB_CACHE", str(tmp_path / str(n)))
        files.append(cached_two_bodies(config, n_processes=n))
    made, again = map(read_two_bodies, files)
    assert all(np.array_equal(a, b) for a, b in zip(made, again, strict=True))
    assert made.n_events.tolist() == [20, 20]
    assert np.all((made.event >= 0) & (made.event < 40))
    assert np.all(made.take(made.event >= 20).event >= 20)
    assert np.isfinite(made.table).all()


@pytest.mark.parametrize(
    "options", [{"process": "x"}, {"process": "b", "lifetime": 0.0}, {"process": "b", "scales": ()}]
)
def test_what_makes_no_sense_is_refused(options):
    with pytest.raises(ConfigError, match="TwoBodyConfig"):
        TwoBodyConfig(**options)
