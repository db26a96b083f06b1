"""Tracks are held against the published formula of resolutions, binomial errors of the efficiency,
a helix in small steps and a loop over vertices.
"""

import numpy as np
import pytest
from scipy import stats

from pfcalib.errors import ConfigError
from pfcalib.geometry import BARREL
from pfcalib.simulation.detector import COIL_RADIUS
from pfcalib.simulation.particles import Particles
from pfcalib.simulation.tracks import (
    FAKE,
    HARD_SCATTER,
    NO_VERTEX,
    PION_MASS,
    RESOLUTION,
    TrackConfig,
    Vertices,
    assign_vertices,
    efficiency,
    extrapolate,
    may_leave_track,
    resolution,
    simulate_tracks,
)

P_MIN = 1e-3
FIELD = 2.0
ALONE = TrackConfig(fakes=0.0)


def shoot(n, pt, *, eta=0.3, phi=0.5, pdg_id=211, mass=PION_MASS):
    """Particles of one transverse momentum, one an event, and their vertices."""
    energy = np.hypot(pt * np.cosh(eta), mass)
    columns = (np.full(n, value, dtype=np.float64) for value in (energy, eta, phi))
    particles = Particles(np.arange(n), np.full(n, pdg_id, np.int32), *columns)
    return particles, np.zeros(n, dtype=np.int64), Vertices(np.arange(n + 1), np.zeros(n))


class TestResolution:
    @pytest.mark.parametrize("pt", [1.0, 20.0, 200.0])
    def test_tracks_spread_as_published(self, pt, rng):
        eta = 0.3
        tracks = simulate_tracks(*shoot(20_000, pt, eta=eta), BARREL, rng, ALONE)
        spread = {
            "q_over_pt": tracks.charge / tracks.pt - 1.0 / pt,
            "phi": tracks.phi - 0.5,
            "cot_theta": np.sinh(tracks.eta) - np.sinh(eta),
            "d0": tracks.d0,
            "z0_sin_theta": tracks.z0 / np.cosh(tracks.eta),
        }
        for name, (asymptotic, p) in RESOLUTION.items():
            wanted = asymptotic * np.sqrt(1.0 + (p / pt) ** 2)
            assert np.std(spread[name]) == pytest.approx(wanted, rel=0.025), name
            assert abs(np.mean(spread[name])) < 4.0 * wanted / np.sqrt(len(tracks.pt)), name

    def test_a_soft_track_is_measured_to_one_and_a_half_per_cent(self):
        """0.34 / TeV x 44 GeV: multiple scattering alone."""
        assert resolution("q_over_pt", np.array([0.5]))[0] * 0.5 == pytest.approx(0.01496, abs=1e-4)

    def test_charge_is_mistaken_only_where_the_sagitta_is_gone(self, rng):
        shares = [
            np.mean(simulate_tracks(*shoot(4000, pt), BARREL, rng, ALONE).charge < 0.0)
            for pt in (50.0, 3000.0)
        ]
        assert shares[0] == 0.0
        assert shares[1] == pytest.approx(stats.norm.cdf(-1.0 / (0.34e-3 * 3000.0)), abs=0.03)


class TestEfficiency:
    @pytest.mark.parametrize(
        ("pdg_id", "mass", "pt", "eta", "low", "high"),
        [
            (211, PION_MASS, 0.6, 0.0, 0.78, 0.84),
            (-2212, 0.93827, 10.0, 0.5, 0.88, 0.93),
            (321, 0.49368, 10.0, -1.1, 0.83, 0.88),
            (13, 0.10566, 10.0, 0.0, 0.985, 0.995),
            (-11, 0.000511, 10.0, 0.0, 0.94, 0.98),
        ],
    )
    def test_the_share_found_is_binomial(self, pdg_id, mass, pt, eta, low, high, rng):
        shot = shoot(5000, pt, eta=eta, pdg_id=pdg_id, mass=mass)
        found = len(simulate_tracks(*shot, BARREL, rng, ALONE).pt)
        assert low < found / 5000 < high
        wanted = efficiency(shot[0].pdg_id[:1], np.array([pt]), np.array([eta]))[0]
        assert stats.binomtest(found, 5000, wanted).pvalue > P_MIN

    @pytest.mark.parametrize(
        "change", [{"pdg_id": 22, "mass": 0.0}, {"pt": 0.42}, {"eta": 1.3}], ids=str
    )
    def test_neutral_soft_and_forward_particles_leave_none(self, change, rng):
        shot = shoot(300, **{"pt": 5.0, **change})
        assert not may_leave_track(shot[0], ALONE).any()
        assert len(simulate_tracks(*shot, BARREL, rng, ALONE).pt) == 0

    def test_the_threshold_is_one_on_what_is_measured(self, rng):
        tracks = simulate_tracks(*shoot(4000, 0.5), BARREL, rng, ALONE)
        assert tracks.pt.min() >= 0.5
        assert 0.35 < len(tracks.pt) / 4000 / 0.8 < 0.65


class TestFakes:
    def test_their_share_grows_with_the_number_of_interactions(self, rng):
        config = TrackConfig(fakes=0.01)
        nobody, none = shoot(0, 1.0)[:2]
        for n_vertices, wanted in ((1, 0.01), (41, 16.81)):
            offsets = n_vertices * np.arange(2001)
            vertices = Vertices(offsets, np.zeros(offsets[-1]))
            tracks = simulate_tracks(nobody, none, vertices, BARREL, rng, config)
            assert np.all(tracks.particle == FAKE)
            error = np.sqrt(wanted / 2000)
            assert len(tracks.pt) / 2000 == pytest.approx(wanted, abs=4.0 * error)
        assert np.median(tracks.pt) < 0.7
        assert tracks.pt.min() >= 0.5

    def test_events_stay_sorted_and_tracks_fall_in_pt(self, rng):
        particles, vertex, _ = shoot(300, 2.0)
        offsets = np.arange(301) * 3
        vertices = Vertices(offsets, rng.normal(0.0, 40.0, 900))
        tracks = simulate_tracks(particles, vertex, vertices, BARREL, rng, TrackConfig(fakes=0.3))
        assert np.all(np.diff(tracks.event) >= 0)
        same = np.diff(tracks.event) == 0
        assert np.all(np.diff(tracks.pt)[same] <= 0.0)
        real = tracks.particle != FAKE
        np.testing.assert_array_equal(particles.event[tracks.particle[real]], tracks.event[real])


class TestExtrapolation:
    @pytest.mark.parametrize("pdg_id", [211, -211])
    def test_it_follows_the_helix_in_small_steps(self, pdg_id):
        particles, *_ = shoot(1, 2.0, eta=0.25, phi=3.0, pdg_id=pdg_id)
        eta_at, phi_at = extrapolate(particles, BARREL, field=FIELD)
        heading, x, y, z, step = 3.0, 0.0, 0.0, 0.0, 0.05
        for layer, eta, phi in zip(BARREL.layers, eta_at[0], phi_at[0], strict=True):
            while (radius := np.hypot(x, y)) < layer.r:
                turn = 0.299792458e-3 * FIELD / 2.0 * step * (radius < COIL_RADIUS)
                heading -= np.sign(pdg_id) * turn
                x, y = x + step * np.cos(heading), y + step * np.sin(heading)
                z += step * np.sinh(0.25)
            assert eta == pytest.approx(np.arcsinh(z / np.hypot(x, y)), abs=1e-3)
            assert abs(np.angle(np.exp(1j * (phi - np.arctan2(y, x))))) < 1e-3

    def test_neutral_particles_cross_all_layers_at_their_own_direction(self):
        particles, *_ = shoot(1, 2.0, eta=-0.5, phi=-3.1, pdg_id=22, mass=0.0)
        for at, wanted in zip(
            extrapolate(particles, BARREL, field=FIELD), (-0.5, -3.1), strict=True
        ):
            np.testing.assert_allclose(at, wanted, atol=1e-9)

    def test_what_curls_up_or_passes_beside_reaches_no_layer(self):
        for pt, eta in ((0.3, 0.0), (5.0, 0.9)):
            particles, *_ = shoot(1, pt, eta=eta)
            assert np.isnan(extrapolate(particles, BARREL, field=FIELD)).all()

    def test_a_track_may_leave_through_the_end_of_the_barrel(self):
        particles, *_ = shoot(1, 0.5, eta=0.79)  # bent, its path is longer and its eta rises
        eta_at, _ = extrapolate(particles, BARREL, field=FIELD)
        assert np.isnan(eta_at[0, -1])


class TestVertices:
    def test_the_nearest_one_is_that_of_a_loop(self, rng):
        n = np.array([1, 4, 1, 30])
        offsets = np.concatenate([[0], np.cumsum(n)])
        z = rng.normal(0.0, 45.0, offsets[-1])
        z[offsets[:-1]] = 0.0
        event = np.repeat(np.arange(4), 50)
        z0, eta = rng.normal(0.0, 45.0, 200), rng.uniform(-1.2, 1.2, 200)
        found = assign_vertices(event, z0, eta, Vertices(offsets, z), TrackConfig())
        for e, z_track, eta_track, vertex in zip(event, z0, eta, found, strict=True):
            others = z[offsets[e] + 1 : offsets[e + 1]]
            if abs(z_track) / np.cosh(eta_track) < 2.0:
                assert vertex == HARD_SCATTER
            elif len(others) == 0:
                assert vertex == NO_VERTEX
            else:
                assert vertex == 1 + np.argmin(np.abs(others - z_track))

    def test_particles_of_pile_up_carry_the_place_of_their_vertex(self, rng):
        particles, vertex, _ = shoot(500, 5.0)
        vertices = Vertices(2 * np.arange(501), np.tile([0.0, 37.0], 500))
        tracks = simulate_tracks(particles, vertex + 1, vertices, BARREL, rng, ALONE)
        assert np.mean(tracks.z0) == pytest.approx(37.0, abs=0.05)
        assert np.all(tracks.vertex == 1)


def test_settings_out_of_range_are_refused():
    with pytest.raises(ConfigError, match=r"pt_min of tracks must be at least 0\.4 GeV, not 0\.3"):
        TrackConfig(pt_min=0.3)
    with pytest.raises(ConfigError, match="z0_max > 0 mm"):
        TrackConfig(z0_max=0.0)
