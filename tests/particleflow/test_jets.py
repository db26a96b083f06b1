"""Jets are those of a slow, obvious anti-kt; areas, densities and matches are those of worked
examples.
"""

from __future__ import annotations

import subprocess
import sys

import awkward as ak
import numpy as np
import pytest
from scipy.special import i1, j1

from pfcalib.errors import ConfigError, ValidationError
from pfcalib.metrics.jetperformance import pile_up_jets
from pfcalib.particleflow.jets import (
    NO_JET,
    Jets,
    find_jets,
    found_jets,
    is_isolated,
    match_jets,
    nearest,
    pile_up_density,
    require_fastjet,
    subtract_pile_up,
)


def momenta(pt, eta, phi, mass=0.0):
    pt, eta, phi = np.broadcast_arrays(*(np.asarray(x, dtype=float) for x in (pt, eta, phi)))
    pz = pt * np.sinh(eta)
    return pt * np.cos(phi), pt * np.sin(phi), pz, np.sqrt(pt**2 + pz**2 + mass**2)


def jets_at(*events):
    """Jets of hand: one list of (pt, eta, phi) an event."""
    table = np.array([jet for event in events for jet in event], dtype=float).reshape(-1, 3)
    offsets = np.cumsum([0, *(len(event) for event in events)])
    n = len(table)
    return Jets(
        offsets, *table.T, np.zeros(n), np.full((n, 4), np.nan), ak.Array([[i] for i in range(n)])
    )


def content(jets):
    return [sorted(of) for of in jets.constituents.tolist()]


def soft_and_hard(rng, n):
    """An event of a few sprays of particles and a soft background."""
    pt = np.concatenate([rng.exponential(8.0, n // 2), rng.exponential(1.0, n - n // 2)]) + 0.1
    centre = rng.integers(0, 3, n // 2)
    eta = np.append(
        rng.uniform(-0.6, 0.6, 3)[centre] + rng.normal(0.0, 0.2, n // 2),
        rng.uniform(-1.2, 1.2, n - n // 2),
    )
    phi = np.append(
        rng.uniform(-4.0, 4.0, 3)[centre] + rng.normal(0.0, 0.2, n // 2),
        rng.uniform(-np.pi, np.pi, n - n // 2),
    )
    return momenta(pt, eta, phi, mass=0.14)


def slow_anti_kt(px, py, pz, e, radius):
    """Constituents of all jets: the pair or particle of least distance, again and again."""
    objects = [(np.array(p), [i]) for i, p in enumerate(zip(px, py, pz, e, strict=True))]
    jets = []
    while objects:
        p = np.array([momentum for momentum, _ in objects])
        kt2 = p[:, 0] ** 2 + p[:, 1] ** 2
        y, phi = (
            0.5 * np.log((p[:, 3] + p[:, 2]) / (p[:, 3] - p[:, 2])),
            np.arctan2(p[:, 1], p[:, 0]),
        )
        d_phi = np.angle(np.exp(1j * (phi[:, None] - phi)))
        apart = ((y[:, None] - y) ** 2 + d_phi**2) / radius**2
        distance = np.minimum(1.0 / kt2[:, None], 1.0 / kt2) * apart
        np.fill_diagonal(distance, 1.0 / kt2)  # from the beam
        a, b = np.unravel_index(np.argmin(distance), distance.shape)
        if a == b:
            jets.append(sorted(objects.pop(a)[1]))
        else:
            (p_b, of_b), (p_a, of_a) = objects.pop(max(a, b)), objects.pop(min(a, b))
            objects.append((p_a + p_b, of_a + of_b))
    return sorted(jets)


class TestFindJets:
    @pytest.mark.parametrize("radius", [0.4, 1.0])
    @pytest.mark.parametrize(("share", "n_jets"), [(0.95, 1), (1.05, 2)])
    def test_two_particles_merge_within_the_radius_only(self, radius, share, n_jets):
        jets = find_jets(*momenta([20.0, 10.0], [0.0, share * radius], 0.0), radius=radius)
        assert len(jets.pt) == n_jets

    def test_the_azimuth_closes(self):
        jets = find_jets(*momenta([20.0, 20.0], 0.0, [np.pi - 0.1, -np.pi + 0.1]))
        assert content(jets) == [[0, 1]]
        assert abs(jets.phi[0]) == pytest.approx(np.pi)
        assert jets.pt[0] == pytest.approx(40.0 * np.cos(0.1))
        assert jets.mass[0] == pytest.approx(40.0 * np.sin(0.1))

    def test_a_soft_particle_goes_to_the_harder_jet_not_to_the_nearer_one(self):
        jets = find_jets(*momenta([100.0, 50.0, 1.0], [0.0, 0.6, 0.35], 0.0))
        assert content(jets) == [[0, 2], [1]]

    def test_hard_particles_collect_first_so_soft_ones_build_no_bridge(self):
        """The two soft ones are each other's nearest, but only one is within the radius of the
        hard one.
        """
        jets = find_jets(*momenta([100.0, 2.0, 2.0], [0.0, 0.3, 0.5], 0.0), pt_min=1.0)
        assert content(jets) == [[0, 1], [2]]

    @pytest.mark.parametrize("radius", [0.4, 1.0])
    def test_a_slow_clustering_agrees_on_a_batch_of_random_events(self, rng, radius):
        sizes = [*rng.integers(1, 20, 105), 40, 0, 5]  # more than FastJet is given at once
        events = [soft_and_hard(rng, n) for n in sizes]
        offsets = np.append(0, np.cumsum(sizes))
        batch = [np.concatenate(column) for column in zip(*events, strict=True)]
        for area_eta in (None, 0.8):  # ghosts change nothing
            jets = find_jets(*batch, offsets, radius=radius, pt_min=0.0, area_eta=area_eta)
            members = [sorted(of) for of in jets.constituents.tolist()]
            for i, event in enumerate(events):
                first, last = jets.offsets[i], jets.offsets[i + 1]
                found = [[row - offsets[i] for row in of] for of in members[first:last] if of]
                assert sorted(found) == slow_anti_kt(*event, radius)
                assert np.all(np.diff(jets.pt[first:last]) <= 0.0)

    def test_the_momentum_of_a_jet_is_the_sum_of_its_constituents(self, rng):
        event = soft_and_hard(rng, 60)
        jets = find_jets(*event, area_eta=0.8)
        for i, rows in enumerate(jets.constituents.tolist()):
            px, py, pz, e = (column[rows].sum() for column in event)
            assert jets.pt[i] == pytest.approx(np.hypot(px, py))
            assert jets.eta[i] == pytest.approx(np.arcsinh(pz / np.hypot(px, py)))
            assert jets.phi[i] == pytest.approx(np.arctan2(py, px))
            assert jets.mass[i] ** 2 == pytest.approx(e**2 - px**2 - py**2 - pz**2, abs=1e-6)

    def test_turned_and_boosted_events_have_the_same_jets(self, rng):
        px, py, pz, e = soft_and_hard(rng, 60)
        c, s = np.cos(2.0), np.sin(2.0)
        turned = find_jets(c * px - s * py, s * px + c * py, pz, e)
        c, s = np.cosh(0.7), np.sinh(0.7)
        boosted = find_jets(px, py, c * pz + s * e, c * e + s * pz)
        jets = find_jets(px, py, pz, e)
        assert content(turned) == content(boosted) == content(jets)
        np.testing.assert_allclose(turned.pt, jets.pt)
        np.testing.assert_allclose(
            np.angle(np.exp(1j * (turned.phi - jets.phi - 2.0))), 0.0, atol=1e-9
        )
        np.testing.assert_allclose(boosted.pt, jets.pt)
        np.testing.assert_allclose(boosted.mass, jets.mass, atol=1e-6)

    def test_inputs_without_energy_or_pseudorapidity_are_left_out_and_rows_stay(self):
        px = [0.0, 20.0, -5.0, 0.0, 10.0]
        e = [0.0, 20.0, -5.0, 7.0, 10.0]
        jets = find_jets(px, np.zeros(5), [0.0, 0.0, 0.0, 7.0, 0.0], e)
        assert content(jets) == [[1, 4]]
        assert jets.pt.tolist() == [30.0]

    def test_events_may_be_empty_and_there_may_be_none(self):
        for offsets in ([0], [0, 0], [0, 0, 0]):
            for area_eta in (None, 0.8):
                jets = find_jets([], [], [], [], offsets, area_eta=area_eta)
                assert jets.offsets.tolist() == offsets
                assert len(jets.pt) == len(jets.constituents) == len(jets.event) == 0
                assert jets.area.shape == (0, 4)
            assert pile_up_density([], [], [], [], offsets, eta_max=0.8).tolist() == [0.0] * (
                len(offsets) - 1
            )
        jets = find_jets(*momenta([3.0, 20.0], 0.0, 0.0), [0, 1, 1, 2])
        assert jets.offsets.tolist() == [0, 0, 0, 1]
        assert jets.event.tolist() == [2]
        assert content(jets) == [[1]]

    def test_what_is_not_finite_is_named(self):
        px, py, pz, e = momenta(np.full(5, 20.0), 0.0, 0.0)
        py[3] = np.nan
        with pytest.raises(
            ValidationError, match="event 1, input 1: py = nan GeV, expected finite"
        ):
            find_jets(px, py, pz, e, [0, 2, 5])

    @pytest.mark.parametrize("offsets", [[], [0, 1], [1, 2], [0, 3], [0, 2, 1, 2], [[0, 2]]])
    def test_offsets_that_do_not_cover_the_inputs_are_refused(self, offsets):
        with pytest.raises(ValidationError, match="expected to rise from 0 to 2"):
            find_jets(*momenta([1.0, 1.0], 0.0, 0.0), offsets)

    def test_inputs_of_different_lengths_are_refused(self):
        with pytest.raises(ValidationError, match="expected one"):
            find_jets([1.0], [1.0], [1.0], [1.0, 2.0])

    @pytest.mark.parametrize("wrong", [{"radius": 0.0}, {"pt_min": -1.0}, {"area_eta": 0.0}])
    def test_parameters_out_of_range_are_refused(self, wrong):
        with pytest.raises(ConfigError, match="jets: radius"):
            find_jets([1.0], [1.0], [1.0], [2.0], **wrong)

    def test_a_missing_fastjet_is_named_with_its_cure(self, monkeypatch):
        monkeypatch.setitem(sys.modules, "fastjet", None)
        with pytest.raises(ConfigError, match=r"pip install 'pfcalib\[jets\]'"):
            require_fastjet()

    def test_nothing_is_printed(self):
        code = (
            "from pfcalib.particleflow.jets import find_jets\n"
            "print('before')\n"
            "print(find_jets([9.0], [0.0], [0.0], [9.0]).pt)"
        )
        done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True)
        assert done.stdout.decode().split() == ["before", "[9.]"]


class TestArea:
    @pytest.mark.parametrize("radius", [0.4, 1.0])
    def test_the_area_of_a_lonely_hard_jet_is_that_of_a_disc(self, rng, radius):
        """Its four-vector is the integral of (cos phi, sin phi, sinh eta, cosh eta)."""
        phi = rng.uniform(-np.pi, np.pi, 50)
        jets = find_jets(
            *momenta(np.full(50, 50.0), 0.1, phi), np.arange(51), radius=radius, area_eta=1.5
        )
        transverse = np.hypot(jets.area[:, 0], jets.area[:, 1])
        disc = 2.0 * np.pi * radius * j1(radius)  # pi R^2 (1 - R^2 / 8 + ...)
        assert transverse.mean() == pytest.approx(disc, rel=0.01)
        assert transverse.std() < 0.05 * disc
        np.testing.assert_allclose(np.arctan2(jets.area[:, 1], jets.area[:, 0]), phi, atol=0.05)
        forward = 2.0 * np.pi * radius * i1(radius) * np.sinh(0.1)
        assert jets.area[:, 2].mean() == pytest.approx(forward, rel=0.05)

    def test_a_jet_at_the_edge_has_half_of_it(self, rng):
        phi = rng.uniform(-np.pi, np.pi, 50)
        jets = find_jets(*momenta(np.full(50, 50.0), 0.8, phi), np.arange(51), area_eta=0.8)
        transverse = np.hypot(jets.area[:, 0], jets.area[:, 1])
        assert transverse.mean() == pytest.approx(np.pi * 0.4 * j1(0.4), rel=0.02)

    def test_without_ghosts_there_is_no_area(self):
        assert np.isnan(find_jets(*momenta([50.0], 0.0, 0.0)).area).all()


def background(rng, density, n):
    """Soft particles of one event with a mean density in GeV within 0.8."""
    pt = np.full(n, density * 1.6 * 2.0 * np.pi / n)
    return momenta(pt, rng.uniform(-0.8, 0.8, n), rng.uniform(-np.pi, np.pi, n))


class TestPileUp:
    def test_the_density_is_the_one_put_in_and_hard_jets_do_not_raise_it(self, rng):
        densities = np.array([2.0, 10.0, 40.0])
        events = [background(rng, density, 4000) for density in densities]
        hard = momenta([200.0, 100.0], [0.1, 0.3], [0.0, 3.0])
        both = [np.append(column, more) for column, more in zip(events[1], hard, strict=True)]
        batch = [np.concatenate(columns) for columns in zip(*events, both, strict=True)]
        found = pile_up_density(*batch, [0, 4000, 8000, 12_000, 16_002], eta_max=0.8)
        np.testing.assert_allclose(found[:3], densities, rtol=0.03)
        assert found[3] == pytest.approx(found[1], rel=0.03)

    def test_what_lies_beyond_the_edge_does_not_count(self, rng):
        inside, outside = background(rng, 10.0, 2000), momenta(np.full(500, 5.0), 1.1, 1.0)
        both = [np.append(column, more) for column, more in zip(inside, outside, strict=True)]
        assert pile_up_density(*both, eta_max=0.8) == pile_up_density(*inside, eta_max=0.8)

    def test_a_nearly_empty_event_has_none(self):
        assert pile_up_density(*momenta([50.0, 40.0], 0.0, [0.0, 3.0]), eta_max=0.8) == 0.0

    @pytest.mark.parametrize("eta", [0.2, 0.65])
    def test_a_hard_jet_on_a_background_is_brought_back_also_at_the_edge(self, rng, eta):
        n_events, n = 20, 1500
        hard = momenta([50.0], eta, 1.0)
        events = [
            [np.append(*pair) for pair in zip(background(rng, 20.0, n), hard, strict=True)]
            for _ in range(n_events)
        ]
        batch = [np.concatenate(columns) for columns in zip(*events, strict=True)]
        offsets = np.arange(n_events + 1) * (n + 1)
        jets = find_jets(*batch, offsets, area_eta=0.8)
        clean = subtract_pile_up(jets, pile_up_density(*batch, offsets, eta_max=0.8))
        leading = jets.offsets[:-1]
        assert jets.pt[leading].mean() > 56.0
        assert clean.pt[leading].mean() == pytest.approx(50.0, rel=0.02)
        assert clean.mass[leading].mean() < 0.7 * jets.mass[leading].mean()
        assert clean.eta[leading].mean() == pytest.approx(eta, abs=0.005)
        assert clean.constituents is jets.constituents

    def test_area_times_density_is_taken_off_and_nothing_falls_below_zero(self):
        jets = jets_at([(30.0, 0.0, 0.0), (4.0, 0.3, 2.0)], [(30.0, 0.0, 0.0)])
        area = 0.5 * np.stack(momenta([1.0, 1.0, 1.0], jets.eta, jets.phi), axis=1)
        clean = subtract_pile_up(jets._replace(area=area), [10.0, 0.0])
        np.testing.assert_allclose(clean.pt, [25.0, 0.0, 30.0])
        np.testing.assert_allclose(clean.eta, jets.eta)
        np.testing.assert_allclose(clean.phi, jets.phi)
        np.testing.assert_allclose(clean.mass, 0.0, atol=1e-5)

    @pytest.mark.parametrize("density", [[1.0, 2.0], [np.nan], [-1.0]])
    def test_there_is_one_density_an_event(self, density):
        jets = jets_at([(30.0, 0.0, 0.0)])._replace(area=np.ones((1, 4)))
        with pytest.raises(ValidationError, match="expected one an event"):
            subtract_pile_up(jets, density)

    def test_jets_without_areas_are_not_subtracted_from(self):
        with pytest.raises(ValidationError, match="jets without areas"):
            subtract_pile_up(jets_at([(30.0, 0.0, 0.0)]), [1.0])


class TestMatching:
    TRUTH = jets_at([(50.0, 0.0, 3.1)])

    @pytest.mark.parametrize(
        ("reco", "row"),
        [
            ([(40.0, 0.1, 3.1)], 0),
            ([(40.0, 0.0, -3.1)], 0),  # across the end of the azimuth
            ([(40.0, 0.31, 3.1)], None),
            ([(6.0, 0.2, 3.1), (5.0, 0.0, 3.0)], 1),  # the nearest, whatever its pT
            ([(40.0, 0.1, 3.1), (8.0, 0.6, 3.1)], None),  # disturbed
            ([(40.0, 0.1, 3.1), (6.0, 0.6, 3.1)], 0),
            ([(40.0, 0.1, 3.1), (8.0, 0.75, 3.1)], 0),
            ([], None),
        ],
    )
    def test_the_nearest_isolated_jet_is_taken(self, reco, row):
        pairs = match_jets(jets_at(reco), self.TRUTH, eta_max=0.4)
        assert pairs.reco.tolist() == ([] if row is None else [row])
        assert pairs.truth.tolist() == ([] if row is None else [0])

    @pytest.mark.parametrize(
        ("truth", "rows"),
        [
            ([(50.0, 0.0, 0.0), (8.0, 0.9, 0.0)], []),
            ([(50.0, 0.0, 0.0), (6.0, 0.9, 0.0)], [0]),
            ([(50.0, 0.0, 0.0), (8.0, 1.1, 0.0)], [0]),
            ([(50.0, 0.41, 0.0)], []),  # of which a part is beyond the calorimeter
            ([(6.0, 0.05, 0.0), (6.5, 0.25, 0.0)], [0]),  # one jet is nobody's second choice
        ],
    )
    def test_truth_jets_are_isolated_and_contained(self, truth, rows):
        pairs = match_jets(jets_at([(40.0, 0.1, 0.0)]), jets_at(truth), eta_max=0.4)
        assert pairs.truth.tolist() == rows

    def test_only_jets_of_the_same_event_meet(self):
        truth = jets_at([(50.0, 0.0, 0.0)], [], [(50.0, 0.2, 1.0)], [(30.0, 0.0, 0.0)])
        reco = jets_at(
            [(9.0, 0.3, 2.0)], [(40.0, 0.0, 0.0)], [(45.0, 0.2, 1.0)], [(20.0, 0.0, 0.0)]
        )
        pairs = match_jets(reco, truth, eta_max=0.4)
        assert (pairs.reco.tolist(), pairs.truth.tolist()) == ([2, 3], [1, 2])
        with pytest.raises(ValidationError, match="of 1 and of 4 events"):
            nearest(self.TRUTH, reco, distance=0.3)

    def test_a_plain_loop_agrees(self, rng):
        a, b = (
            jets_at(
                *(
                    np.column_stack(
                        [rng.exponential(10.0, n), rng.uniform(-1, 1, n), rng.uniform(-3.1, 3.1, n)]
                    )
                    for n in rng.integers(0, 12, 40)
                )
            )
            for _ in range(2)
        )

        def apart(i, one, j, other):
            return np.hypot(
                one.eta[i] - other.eta[j], np.angle(np.exp(1j * (one.phi[i] - other.phi[j])))
            )

        found, alone = nearest(a, b, distance=0.8, pt_min=5.0), is_isolated(a, distance=0.6)
        for i in range(len(a.pt)):
            others = [
                (apart(i, a, j, b), j)
                for j in np.flatnonzero((b.event == a.event[i]) & (b.pt > 5.0))
            ]
            best = min([pair for pair in others if pair[0] < 0.8], default=(0.0, NO_JET))
            assert found[i] == best[1]
            near = [
                j
                for j in np.flatnonzero((a.event == a.event[i]) & (a.pt > 7.0))
                if j != i and apart(i, a, j, a) < 0.6
            ]
            assert alone[i] == (not near)

    def test_a_jet_without_momentum_matches_nothing(self):
        assert nearest(self.TRUTH, jets_at([(0.0, 0.0, 3.1)]), distance=0.3).tolist() == [NO_JET]

    def test_jets_of_the_hard_scattering_and_of_pile_up_are_told_apart(self, rng):
        truth = jets_at(
            [(25.0, 0.1, 0.0), (25.0, 0.2, 2.5)],  # both found
            [(25.0, 0.1, 0.0), (5.0, 0.3, 2.0)],  # lost; the soft one explains a jet all the same
            [(25.0, 0.5, 0.0)],  # outside
            [(90.0, 0.0, 0.0)],  # out of range
        )
        reco = jets_at(
            [(22.0, 0.2, 0.1), (11.0, 0.2, 2.5), (8.0, 0.3, -2.0)],
            [(12.0, 0.3, 2.1), (9.0, 0.2, 1.0), (7.0, 0.7, -1.0)],
            [(20.0, 0.4, 0.0)],
            [(80.0, 0.0, 0.1)],
        )
        found = found_jets(reco, truth, pt_range=(20.0, 30.0), eta_max=0.4)
        assert found.pt.tolist() == [22.0, 11.0, 0.0]
        assert found.event.tolist() == [0, 0, 1]
        assert found.pile_up_pt.tolist() == [8.0, 9.0]
        assert found.pile_up_event.tolist() == [0, 1]
        at = pile_up_jets({"reco": found}, 4, [0.5, 0.9], rng=rng)["reco"]
        np.testing.assert_array_equal(at.value, [0.0, np.nan])
