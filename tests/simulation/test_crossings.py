"""Events close their account of energy, come back from the file as they were made, and are the same
for any number of processes.
"""

import dataclasses
import json

import awkward as ak
import numpy as np
import pytest
import uproot

pytest.importorskip("pythia8mc")

from pfcalib.columns import JAGGED, LAYER_NAMES
from pfcalib.errors import ConfigError
from pfcalib.geometry import BARREL
from pfcalib.samples.check import check_sample
from pfcalib.samples.layouts.mltree import CLUSTER
from pfcalib.samples.objects import read_objects
from pfcalib.samples.read import read_sample
from pfcalib.samples.rootfile import content_id
from pfcalib.simulation.collisions import CollisionConfig, cross_section
from pfcalib.simulation.crossings import (
    NOT_REACHED,
    EventsConfig,
    build_branches,
    cached_events,
    produce_events,
    simulate_crossings,
)
from pfcalib.simulation.particles import Particles, measurable_energy
from pfcalib.simulation.pileup import UNLISTED, cached_pool, read_pool
from pfcalib.simulation.tracks import transverse_momentum

CONFIG = EventsConfig(
    n_events=5,
    collisions=CollisionConfig(pt_hat=(30.0, 60.0, 120.0)),
    mu=6.0,
    n_pool=12,
    chunk=2,
    seed=3,
)


@pytest.fixture(scope="module")
def cache(tmp_path_factory):
    return tmp_path_factory.mktemp("cache")


@pytest.fixture(scope="module")
def path(cache):
    return produce_events(cache / "events.root", CONFIG, cache_dir=cache)


@pytest.fixture(scope="module")
def crossings(path, cache):
    """The chunks in memory."""
    pool = read_pool(cached_pool(CONFIG.pool_config, cache_dir=cache))
    return [simulate_crossings(CONFIG, chunk, pool) for chunk in CONFIG.chunks]


@pytest.fixture(scope="module")
def branches(crossings):
    return [
        build_branches(CONFIG, chunk, made, cross_section(CONFIG.collisions, chunk.part))
        for chunk, made in zip(CONFIG.chunks, crossings, strict=True)
    ]


def test_slices_take_turns_and_share_the_events():
    assert [(c.part, c.first_event, c.n_events) for c in CONFIG.chunks] == [
        (0, 0, 2),
        (1, 2, 2),
        (0, 4, 1),
    ]
    many = dataclasses.replace(CONFIG, n_events=1001, chunk=64)
    assert sum(c.n_events for c in many.chunks) == 1001
    assert many.events_of_slices.tolist() == [501, 500]


class TestEnergy:
    def test_what_is_shot_is_deposited_lost_or_leaves(self, crossings):
        """Of the hard collision, particle by particle in the cells; showers are those of what the
        list holds.
        """
        for made in crossings:
            n, event = (
                len(made.weight),
                np.repeat(np.arange(len(made.weight)), np.diff(made.hit_offsets)),
            )
            first = np.searchsorted(made.particles.event, np.arange(n))
            row = np.where(made.hit_particle >= 0, first[event] + made.hit_particle, -1)
            of_hard = (row >= 0) & (np.append(made.vertex, -1)[row] == 0)
            deposit = made.hit_values[:, 1:].sum(axis=1)
            deposited = np.bincount(event[of_hard], deposit[of_hard], n)
            account = deposited + made.hits.e_dead + made.hits.e_leak
            np.testing.assert_allclose(account, made.hits.e_total, rtol=1e-6)
            hard = made.particles.event[made.vertex == 0]
            energy = measurable_energy(made.particles)[made.vertex == 0]
            listed = np.bincount(hard, energy, n)
            assert np.all(made.hits.e_total <= listed)  # soft ones do not shower
            assert np.all(made.hits.e_total > 0.75 * listed)

    def test_cells_hold_the_sum_of_their_particles(self, crossings):
        for made in crossings:
            event = np.repeat(np.arange(len(made.weight)), np.diff(made.hit_offsets))
            size = len(made.weight) * BARREL.n_cells
            for i, name in enumerate(("signal", "em", "non_em", "invisible", "escaped")):
                by_particle = np.bincount(
                    event * BARREL.n_cells + made.hit_cell, made.hit_values[:, i], size
                )
                of_cell = np.bincount(
                    made.hits.event * BARREL.n_cells + made.hits.cell,
                    getattr(made.hits, name),
                    size,
                )
                np.testing.assert_allclose(by_particle, of_cell, rtol=1e-9, atol=1e-12)


class TestTruth:
    def test_particles_of_pile_up_are_listed_where_they_have_a_track(self, crossings):
        for made in crossings:
            n = len(made.weight)
            first = np.searchsorted(made.particles.event, np.arange(n))
            real = made.tracks.particle != UNLISTED
            row = first[made.tracks.event[real]] + made.tracks.particle[real]
            assert len(np.unique(row)) == len(row)
            tracked = np.zeros(len(made.vertex), np.bool_)
            tracked[row] = True
            assert np.all(tracked | (made.vertex == 0))
            assert (made.vertex > 0).sum() > 5
            ordered = np.diff(made.vertex)[np.diff(made.particles.event) == 0]
            assert np.all(ordered >= 0)

    def test_tracks_are_near_their_particles(self, crossings):
        for made in crossings:
            first = np.searchsorted(made.particles.event, np.arange(len(made.weight)))
            real = made.tracks.particle != UNLISTED
            row = first[made.tracks.event[real]] + made.tracks.particle[real]
            ratio = made.tracks.pt[real] / transverse_momentum(made.particles)[row]
            assert np.all(np.abs(ratio - 1.0) < 0.15)
            assert np.all(np.abs(made.tracks.eta[real] - made.particles.eta[row]) < 0.1)
            hard = np.abs(made.tracks.z0[real]) < 1.0
            assert np.mean(made.vertex[row][hard] == 0) > 0.8

    def test_tracks_point_at_what_their_particle_left(self, crossings):
        """In EMB2 and on average: turns of pile-up, the field and rows of the truth agree."""
        distance = []
        for made in crossings:
            event = np.repeat(np.arange(len(made.weight)), np.diff(made.hit_offsets))
            emb2 = BARREL.layer[made.hit_cell] == 2
            for i in np.flatnonzero(np.isfinite(made.tracks.eta_at[:, 2])):
                of_track = made.hit_particle == made.tracks.particle[i]
                here = emb2 & of_track & (event == made.tracks.event[i])
                signal = made.hit_values[here, 0]
                if made.tracks.particle[i] != UNLISTED and signal.sum() > 0.1:
                    d_eta = BARREL.eta[made.hit_cell[here]] - made.tracks.eta_at[i, 2]
                    d_phi = np.angle(
                        np.exp(1j * (BARREL.phi[made.hit_cell[here]] - made.tracks.phi_at[i, 2]))
                    )
                    mean = np.average([d_eta, d_phi], axis=1, weights=signal)
                    distance.append((*mean, made.tracks.charge[i], made.tracks.vertex[i]))
        d_eta, d_phi, charge, vertex = np.array(distance).T
        for chosen in (vertex == 0, vertex > 0):
            assert chosen.sum() > 15
            assert np.median(np.hypot(d_eta, d_phi)[chosen]) < 0.08
            assert abs(np.median((charge * d_phi)[chosen])) < 0.03  # none is bent too far


class TestFile:
    def test_clusters_come_back_bit_by_bit(self, path, branches):
        sample = read_sample(path)
        report = check_sample(path)
        assert (report.layout, report.problems) == ("MLTree", ())
        for name, branch in CLUSTER.items():
            if name in sample.scalars:
                wanted = np.concatenate([ak.to_numpy(ak.flatten(b[branch])) for b in branches])
                np.testing.assert_array_equal(sample[name], wanted, err_msg=name)
        for name in JAGGED:
            wanted = np.concatenate([ak.to_numpy(ak.flatten(b[name], axis=None)) for b in branches])
            np.testing.assert_array_equal(sample.cells[name], wanted, err_msg=name)
        assert set(sample["eventNumber"].tolist()) == set(range(5))

    def test_tracks_and_particles_come_back_bit_by_bit(self, path, crossings):
        objects = read_objects(path)
        assert not objects.missing
        for made, chunk in zip(crossings, CONFIG.chunks, strict=True):
            events = slice(chunk.first_event, chunk.first_event + chunk.n_events)
            tracks, truth = objects.tracks[events], objects.truth[events]
            assert ak.num(truth).tolist() == np.bincount(made.particles.event).tolist()
            pairs = [
                (tracks[name], getattr(made.tracks, name))
                for name in ("pt", "p", "eta", "phi", "d0", "z0", "chi2")
            ]
            pairs += [(truth[name], getattr(made.particles, name)) for name in ("eta", "phi")]
            pairs += [(truth.e, made.particles.energy), (truth.pdg_id, made.particles.pdg_id)]
            pairs += [(tracks.truth_index, made.tracks.particle)]
            for i, layer in enumerate(LAYER_NAMES):
                pairs += [(tracks[f"eta_{layer}"], made.tracks.eta_at[:, i])]
            for found, wanted in pairs:
                flat = ak.to_numpy(ak.flatten(found))
                np.testing.assert_array_equal(flat, wanted.astype(flat.dtype))

    def test_the_truth_of_cells_is_beside(self, path, crossings):
        with uproot.open(path) as file:
            arrays = file["EventTree"].arrays(
                ["hitCell", "hitParticle", "hitSignal", "hitE", "truthPartVertex", "trackVertex"]
            )
            edges = file["EventTree"]["trackEta_TileBar2"].array()
        assert ak.min(edges) == np.float32(NOT_REACHED)
        first = crossings[0]
        for name, wanted in (
            ("hitCell", first.hit_cell),
            ("hitParticle", first.hit_particle),
            ("hitSignal", first.hit_values[:, 0]),
            ("hitE", first.hit_values[:, 1:].sum(axis=1)),
            ("truthPartVertex", first.vertex),
            ("trackVertex", first.tracks.vertex),
        ):
            flat = ak.to_numpy(ak.flatten(arrays[name][:2]))
            np.testing.assert_array_equal(flat, wanted.astype(flat.dtype), err_msg=name)

    def test_events_are_described(self, path, crossings):
        event = read_objects(path).event
        assert event.mc_channel_number.tolist() == [0, 0, 1, 1, 0]
        assert event.average_interactions.tolist() == [6.0] * 5
        drawn = np.concatenate([np.diff(made.overlay.offsets) for made in crossings])
        np.testing.assert_array_equal(event.actual_interactions, drawn)
        assert np.all(event.n_vertices <= 1 + drawn)
        normal = cross_section(CONFIG.collisions, 1)
        wanted = normal.value / normal.mean_weight / 2 * crossings[1].weight
        np.testing.assert_allclose(event.weight[2:4], wanted, rtol=1e-6)
        with uproot.open(path) as file:
            metadata = json.loads(file["metadata"])
        assert (metadata["generator"], metadata["seed"]) == ("pfcalib simulation", 3)
        assert metadata["config"]["collisions"]["pt_hat"] == [30.0, 60.0, 120.0]
        assert len(metadata["cross_sections_mb"]) == 2

    def test_two_processes_make_the_events_that_one_makes(self, path, cache):
        two = produce_events(
            cache / "two.root", dataclasses.replace(CONFIG, n_processes=2), cache_dir=cache
        )
        assert content_id(two) == content_id(path)

    def test_the_cells_come_first_in_a_file(self, path):
        """uproot cannot begin an RNTuple beyond 2 GB."""
        with uproot.open(path) as file:
            assert file.keys(cycle=False)[:2] == ["CellGeo", "EventTree"]

    def test_a_file_is_complete_or_not_there(self, cache, tmp_path):
        def stop(n_events):
            raise KeyboardInterrupt

        with pytest.raises(KeyboardInterrupt):
            produce_events(tmp_path / "events.root", CONFIG, cache_dir=cache, progress=stop)
        assert list(tmp_path.iterdir()) == []

    def test_events_are_made_once(self, tmp_path):
        few = dataclasses.replace(CONFIG, n_events=2, mu=0.0)
        told = []
        one, two = (cached_events(few, cache_dir=tmp_path, progress=told.append) for _ in "ab")
        assert one == two
        assert told == [1, 1]
        assert list(tmp_path.iterdir()) == [one]  # no pool without pile-up


def test_a_crossing_without_pile_up_is_the_hard_collision():
    plain = dataclasses.replace(
        CONFIG, mu=0.0, tracks=dataclasses.replace(CONFIG.tracks, fakes=0.0)
    )
    made = simulate_crossings(plain, plain.chunks[0])
    assert not made.vertex.any()
    assert np.all(made.hit_particle >= 0)
    assert np.all(made.tracks.vertex <= 0)
    assert isinstance(made.particles, Particles)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"n_events": 1}, "n_events must be at least 2, one a slice"),
        ({"mu": -1.0}, "mu and sigma_z must not be negative, not -1.0, 40.0"),
        ({"thresholds": (2.0, 4.0, 0.0)}, "seed >= growth >= boundary"),
        ({"n_pool": 0}, "a pool needs n_events"),
        ({"collisions": CollisionConfig(eta_max=0.8)}, "eta_max of tracks must not be above"),
    ],
)
def test_settings_out_of_range_are_refused(change, message):
    with pytest.raises(ConfigError, match=message):
        dataclasses.replace(CONFIG, **change)
