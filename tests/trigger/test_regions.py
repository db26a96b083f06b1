"""Regions of a trigger: where particles arrive, what towers count, pools that are minimum bias."""

import h5py
import numpy as np
import pytest

from pfcalib.errors import BadFileError, ConfigError
from pfcalib.simulation.collisions import MAX_SEED, stable_particles
from pfcalib.simulation.genrecord import start_generator
from pfcalib.simulation.particles import Particles
from pfcalib.simulation.tracks import mass_and_charge, transverse_momentum
from pfcalib.trigger.regions import (
    HARD,
    MESON_MASS,
    PROCESSES,
    RADIUS,
    SCALAR,
    TEMPERATURE,
    CrossingConfig,
    Deposits,
    SourceConfig,
    arrive,
    boost,
    cached_deposits,
    decay_scalars,
    deposit,
    hard_share,
    mean_energy,
    overlay,
    read_crossings,
    read_deposits,
    simulate_deposits,
    simulate_regions,
    write_crossings,
)
from pfcalib.trigger.regions import _boltzmann as boltzmann

N_TOWERS = 2 * 56 * 72


def particles(pdg_id, energy, eta, phi=0.0):
    columns = np.broadcast_arrays(pdg_id, energy, eta, phi)
    shape = (np.arange(len(columns[0])), *columns)
    return Particles(*(np.asarray(column) for column in shape))


def toy_pool(rng, n_events=40, n_hits=30):
    tower = np.sort(rng.integers(N_TOWERS, size=(n_events, n_hits)), axis=1)
    offsets = n_hits * np.arange(n_events + 1)
    energy = rng.exponential(3.0, n_events * n_hits).astype(np.float32)
    return Deposits(
        offsets, tower.ravel().astype(np.int16), energy, np.ones(n_events), np.ones(1), np.ones(1)
    )


def test_regions_are_sums_of_whole_counts_of_turned_and_mirrored_towers(rng):
    pool = toy_pool(rng)
    first, event = np.array([0, 7, 7, 30]), rng.integers(40, size=30)
    turn, mirror = rng.integers(72, size=30), rng.integers(2, size=30)
    counts, total = overlay(*pool[:3], first, event, turn, mirror)
    for c in range(3):
        lit = np.zeros((2, 56, 72))
        for k in range(first[c], first[c + 1]):
            mine = slice(*pool.offsets[event[k] : event[k] + 2])
            one = np.bincount(pool.tower[mine], pool.energy[mine], N_TOWERS).reshape(2, 56, 72)
            one = np.roll(one, turn[k], axis=2)
            lit += one[:, ::-1] if mirror[k] else one
        whole = np.minimum(np.floor(lit / 0.5), 255).sum(axis=0)
        expected = whole.reshape(14, 4, 18, 4).sum(axis=(1, 3)).T
        np.testing.assert_array_equal(counts[c], expected)
        assert total[c] == pytest.approx(lit.sum(), rel=1e-5)
    assert counts[1].sum() == 0


def test_a_region_ends_at_ten_bits_and_a_tower_at_eight():
    tower, energy = np.arange(5, dtype=np.int16), np.full(5, 1e4, np.float32)
    one = np.zeros(1, np.int64)
    counts, _ = overlay(np.array([0, 5]), tower, energy, np.array([0, 1]), one, one, one)
    assert sorted(counts[0][counts[0] > 0]) == [255, 1020]
    both = np.concatenate([tower, tower + 56 * 72])
    counts, _ = overlay(
        np.array([0, 10]), both.astype(np.int16), np.tile(energy, 2), np.array([0, 1]),
        one, one, one,
    )  # fmt: skip
    assert counts.max() == 1023


def test_the_sum_of_a_crossing_has_mean_and_variance_of_a_compound_poisson_process(rng):
    """Campbell: mu times the mean of one collision, and of its square."""
    soft, hard = toy_pool(rng), toy_pool(rng, n_hits=60)
    hard = hard._replace(weight=rng.exponential(size=40), cross_section=np.array([0.1]))
    config = CrossingConfig(n_crossings=20_000, mu=20.0, chunk=20_000)
    found = simulate_regions(config, {"soft": soft, "hard": hard}, 0)
    powers = [
        0.9 * np.mean(soft.total**q) + 0.1 * np.average(hard.total**q, weights=hard.weight)
        for q in (1, 2)
    ]
    n = len(found.energy)
    mean, variance = 20.0 * powers[0], 20.0 * powers[1]
    assert abs(found.energy.mean() - mean) < 4.0 * np.sqrt(variance / n)
    assert found.energy.var() == pytest.approx(variance, rel=4.0 * np.sqrt(2.0 / n))
    assert abs(found.n_collisions.mean() - 20.0) < 4.0 * np.sqrt(20.0 / n)


def test_particles_turn_in_the_field_as_helices_do():
    # pT = 0.3 B R: a radius of 1 m, and one of half of the barrel's and a little less
    radius = np.array([1000.0, 0.5001 * RADIUS, 0.4999 * RADIUS])
    pt = 0.3e-3 * 3.8 * radius
    mass, _ = mass_and_charge(np.array([211]))
    eta = np.array([0.5, 0.001, 0.5])
    energy = np.hypot(pt * np.cosh(eta), mass)
    at, phi = arrive(particles(211, energy, eta))
    angle = 2.0 * np.arcsin(RADIUS / (2.0 * radius[0]))
    assert np.sinh(at[0]) * RADIUS == pytest.approx(radius[0] * angle * np.sinh(0.5))
    assert phi[0] == pytest.approx(-0.5 * angle)
    assert abs(at[1]) < 1.0 < at[2]  # the last does not reach the barrel
    _, other = arrive(particles(-211, energy, eta))
    np.testing.assert_allclose(np.exp(1j * other), np.exp(-1j * phi))
    fast, _ = arrive(particles(211, np.array([500.0]), np.array([1.0])))
    assert fast[0] == pytest.approx(1.0, abs=1e-4)
    straight = arrive(particles(22, np.array([0.1]), np.array([-2.0]), 1.0))
    np.testing.assert_allclose(np.ravel(straight), [-2.0, 1.0])


def test_mean_and_width_of_deposits_are_the_published_ones(rng):
    n = 50_000
    for pdg_id, e, mean, width in (
        (22, 25.0, 25.0, np.hypot(0.028 / 5.0, 0.003)),
        (130, 100.0, 100.0 * (1.0 - 0.4 / 1.4 * 100.0**-0.18), np.hypot(0.11, 0.09)),
    ):
        _, _, energy = deposit(particles(pdg_id, np.full(n, e), np.full(n, 1.0)), rng)
        energy = energy * np.cosh(1.0)
        assert energy.mean() == pytest.approx(mean, rel=5.0 * width / np.sqrt(n))
        assert energy.std() / energy.mean() == pytest.approx(width, rel=0.02)
    event, _, _ = deposit(particles(13, np.full(5, 50.0), np.full(5, 1.0)), rng)
    assert not len(event)


def test_mesons_have_the_mean_energy_of_their_temperature(rng):
    energy = np.sqrt(boltzmann(200_000, rng) ** 2 + MESON_MASS**2)
    expected = mean_energy(MESON_MASS, TEMPERATURE)
    assert energy.mean() == pytest.approx(expected, abs=4.0 * energy.std() / 200_000**0.5)


def test_a_boost_keeps_masses_and_takes_rest_to_the_frame(rng):
    frame = np.column_stack([rng.normal(size=(5, 3)), np.full(5, 10.0)])
    mass = np.sqrt(100.0 - (frame[:, :3] ** 2).sum(axis=1))
    rest = np.column_stack([np.zeros((5, 3)), mass])
    np.testing.assert_allclose(boost(rest, frame), frame, atol=1e-12)
    other = np.column_stack([rng.normal(size=(5, 3)), np.full(5, 4.0)])
    square = [p[:, 3] ** 2 - (p[:, :3] ** 2).sum(axis=1) for p in (other, boost(other, frame))]
    np.testing.assert_allclose(*square)


def test_files_of_others_are_read_and_refused_where_they_are_something_else(tmp_path, rng):
    values = rng.integers(1024, size=(3, 18, 14)).astype(np.uint16)
    crossings = read_crossings(_h5(tmp_path / "a.h5", values))
    np.testing.assert_array_equal(crossings.regions, values)
    write_crossings(tmp_path / "b.h5", crossings)
    np.testing.assert_array_equal(read_crossings(tmp_path / "b.h5").regions, values)
    for wrong in (values[:, :5], values.astype(np.int64) + 1000, values + 0.5):
        with pytest.raises(BadFileError, match="expected"):
            read_crossings(_h5(tmp_path / "c.h5", wrong))


def _h5(path, values):
    with h5py.File(path, "w") as file:
        file["CaloRegions"] = values
    return path


def test_settings_that_mean_nothing_are_refused():
    for wrong in ({"signal": "soft"}, {"mu": -1.0}, {"n_crossings": 0}):
        with pytest.raises(ConfigError, match="expected"):
            CrossingConfig(**wrong)
    with pytest.raises(ConfigError, match="expected one of"):
        SourceConfig(process="beer")


class TestPythia:
    """What needs the generator."""

    @pytest.fixture(autouse=True)
    def _installed(self):
        pytest.importorskip("pythia8mc")

    def test_the_share_of_hard_collisions_is_the_ratio_of_cross_sections_and_density_as_measured(
        self,
    ):
        generator = start_generator(
            (*PROCESSES["soft"], "Beams:eCM = 13000", "ParticleDecays:limitTau0 = on"),
            MAX_SEED // 7,
        )
        n = 1500
        events = generator.nextBatch(n)
        share = np.mean(np.asarray(events.info.pT2Hat) > HARD**2)
        hard = simulate_deposits(SourceConfig(process="hard", n_events=50, chunk=50), 0)
        soft = Deposits(*hard)._replace(cross_section=np.array([generator.infoPython().sigmaGen()]))
        expected = hard_share({"soft": soft, "hard": hard})
        assert abs(share - expected) < 4.0 * np.sqrt(expected / n) + 0.1 * expected
        # charged hadrons of inelastic collisions in |eta| < 0.5: 5.49 +- 0.17 (arXiv:1507.05915)
        found = stable_particles(events, 0.5)
        _, charge = mass_and_charge(found.pdg_id)
        hadron = (charge != 0.0) & ~np.isin(np.abs(found.pdg_id), (11, 13))
        each = np.bincount(found.event[hadron], minlength=n)
        error = np.hypot(0.17, each.std() / np.sqrt(n))
        assert abs(each.mean() - 5.49) < 3.0 * error

    def test_what_a_scalar_decays_to_has_its_momentum_and_energy(self, rng):
        generator = start_generator((*PROCESSES["suep"], "Beams:eCM = 13000"), 1)
        events = generator.nextBatch(5)
        found = decay_scalars(events, rng)
        pt = transverse_momentum(found)
        of = events.prt[(events.prt.id == SCALAR) & (events.prt.status > 0)][:, 0].p
        for name, values in (
            ("px", pt * np.cos(found.phi)), ("py", pt * np.sin(found.phi)),
            ("pz", pt * np.sinh(found.eta)), ("e", found.energy),
        ):  # fmt: skip
            expected = np.asarray(of[name])
            sums = np.bincount(found.event, values, 5)
            np.testing.assert_allclose(sums, expected, rtol=1e-3, atol=0.5)

    def test_two_processes_make_what_one_makes(self, tmp_path, monkeypatch):
        config = SourceConfig(process="suep", n_events=6, chunk=3)
        made = []
        for n in (1, 2):
            monkeypatch.setenv("PFCALIB_CACHE", str(tmp_path / str(n)))
            made.append(read_deposits(cached_deposits(config, n_processes=n)))
        for one, other in zip(*made, strict=True):
            np.testing.assert_array_equal(one, other)
        assert made[0].offsets[-1] == len(made[0].energy)
