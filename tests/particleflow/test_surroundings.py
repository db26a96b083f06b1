"""What a network sees around a track stays when the event is turned, mirrored or shuffled, and true
shares are those of a plain count.
"""

import numpy as np
import pytest
from particleflow.flow_toys import CHARGED, NEUTRAL, moved, order_within, overlap, shuffled
from particleflow.hand_made import (
    CELLS,
    clusters_of,
    event_of,
    random_event,
    sets_of,
    share_deposit,
    tracks_of,
)

from pfcalib.errors import ValidationError
from pfcalib.geometry import BARREL
from pfcalib.particleflow.match import FlowConfig, match
from pfcalib.particleflow.surroundings import (
    BUILDERS,
    INPUT_SHAPES,
    MEANINGS,
    N_SLOTS,
    POINT_FEATURES,
    TRACK_FEATURES,
    build_images,
    build_points,
    true_shares,
)

EMB1, EMB2, TILE0 = 1, 2, 4
both_forms = pytest.mark.parametrize("form", BUILDERS)


def event_with_sets(rng, n_tracks=4):
    event = random_event(rng, n_clusters=12, n_tracks=n_tracks)
    return event, match(event, CELLS, share_deposit(0.6, 0.2), FlowConfig()).sets


def energy_of(logs):
    """Back from the logarithms of inputs."""
    return np.sign(logs) * 0.05 * np.expm1(np.abs(logs.astype(np.float64)))


def test_points_of_an_event_made_by_hand():
    """The track runs along the centre of a cell at phi near pi; another is 0.1 away in eta."""
    eta, phi = 0.0125, np.pi - np.pi / 256
    clusters = clusters_of(
        [(EMB2, eta, phi, 2.0), (EMB2, eta, phi + np.pi / 64, 1.0), (TILE0, 0.05, phi, -3.0)]
    )
    tracks = tracks_of(
        {"pt": 10.0, "eta": eta, "phi": phi}, {"pt": 4.0, "eta": eta + 0.1, "phi": phi}
    )
    event = event_of(tracks, clusters)
    (inputs, slot) = build_points(event, CELLS, sets_of([0], [[0, 1, 2]], [5.0], [2.0]))
    assert slot.tolist() == [1, 2, 0]
    points = dict(zip(POINT_FEATURES, inputs["cells"][0].T, strict=True))
    assert points["layer"][:4].tolist() == [TILE0 + 1, EMB2 + 1, EMB2 + 1, 0]
    np.testing.assert_allclose(energy_of(points["energy"][:4]), [-3.0, 2.0, 1.0, 0.0], rtol=1e-5)
    np.testing.assert_allclose(points["d_eta"][1:3], 0.0, atol=1e-6)
    np.testing.assert_allclose(points["d_phi"][1:3], [0.0, 10 * np.pi / 64], atol=1e-5)
    np.testing.assert_allclose(points["distance"][1:3], [0.0, 10 * np.pi / 64], atol=1e-5)
    far = np.hypot(1.0, 10 * np.pi / 64)  # of the second track from the last cell, in tenths
    np.testing.assert_allclose(points["nearest_distance"][1:3], [1.0, far], rtol=1e-5)
    p = tracks.p[1]
    np.testing.assert_allclose(energy_of(points["nearest_momentum"][1:3]), p, rtol=1e-5)
    np.testing.assert_allclose(
        energy_of(points["others"][1:3]), p * np.exp(-2.0 * np.array([1.0, far**2])), rtol=1e-4
    )
    # the tile is 0.0375 away in eta, and its centre half a tower in phi
    np.testing.assert_allclose(energy_of(points["around"][1:3]), [2.0, 1.0], rtol=1e-5)
    track = dict(zip(TRACK_FEATURES, inputs["track"][0], strict=True))
    assert energy_of(track["momentum"]) == pytest.approx(tracks.p[0], rel=1e-5)
    assert energy_of(track["mean"]) == pytest.approx(5.0, rel=1e-5)
    assert energy_of(track["energy"]) == pytest.approx(0.0, abs=1e-6)
    assert track["excess"] == pytest.approx(-2.5 / 5.0, rel=1e-5)
    assert track["near"] == pytest.approx(3.0 / 6.0, rel=1e-5)
    assert track["claimed"] == 0.0


def test_energy_around_a_cell_is_that_of_all_layers_near_it():
    at = 0.0125, np.pi / 256
    event = event_of(
        tracks_of({"pt": 10.0, "eta": 0.0, "phi": 0.0}),
        clusters_of([(EMB2, *at, 2.0), (EMB1, *at, 1.0), (EMB2, 0.0625, at[1], 4.0)]),
    )
    (inputs, slot) = build_points(event, CELLS, sets_of([0], [[0, 1, 2]], [5.0], [2.0]))
    points = dict(zip(POINT_FEATURES, inputs["cells"][0].T, strict=True))
    np.testing.assert_allclose(energy_of(points["around"][slot]), [3.0, 3.0, 4.0], rtol=1e-5)


def test_images_hold_the_energy_of_the_cells_inside(rng):
    for _ in range(5):
        event, sets = event_with_sets(rng)
        (inputs, slot) = build_images(event, CELLS, sets)
        owner = np.repeat(np.arange(len(sets.track)), np.diff(sets.offsets))
        layer = CELLS.layer[event.clusters.cell[sets.entry]]
        energy = np.where(slot >= 0, event.clusters.cell_energy[sets.entry], 0.0)
        expected = np.bincount(owner * 7 + layer, energy, 7 * len(sets.track)).reshape(-1, 7)
        found = energy_of(inputs["images"][..., :7]).sum(axis=(1, 2))
        np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-5)
        assert np.all(layer[slot >= 0] == slot[slot >= 0] % 7)


def test_a_pixel_is_a_cell_of_emb2_and_the_track_is_in_the_middle():
    eta, phi = 0.1, 0.0  # edges of cells
    spots = [(0.01, 0.01), (0.19, 0.01), (0.21, 0.01), (-0.01, -0.19), (0.01, 0.21)]
    event = event_of(
        tracks_of(
            {"pt": 10.0, "eta": eta, "phi": phi}, {"pt": 3.0, "eta": eta + 0.01, "phi": phi - 0.04}
        ),
        clusters_of([(EMB2, eta + d_eta, phi + d_phi, 1.0) for d_eta, d_phi in spots]),
    )
    (inputs, slot) = build_images(event, CELLS, sets_of([0], [range(len(spots))], [5.0], [2.0]))
    row, column, layer = np.unravel_index(slot[[0, 1, 3]], (16, 16, 7))
    assert slot[[2, 4]].tolist() == [-1, -1]
    assert (row.tolist(), column.tolist(), layer.tolist()) == ([8, 15, 7], [8, 8, 0], [EMB2] * 3)
    others = energy_of(inputs["images"][0, ..., 7])
    assert np.argwhere(others > 0.0).tolist() == [[8, 6]]
    assert others[8, 6] == pytest.approx(event.tracks.p[1], rel=1e-5)


@both_forms
@pytest.mark.parametrize("move", [{"towers": 5}, {"towers": 32}, {"towers": 63}, {"mirror": True}])
def test_a_turned_or_mirrored_event_looks_the_same(form, move, rng):
    event, sets = event_with_sets(rng)
    before, after = (BUILDERS[form](of, CELLS, sets) for of in (event, moved(event, **move)))
    for name, array in before.inputs.items():
        np.testing.assert_allclose(after.inputs[name], array, atol=2e-5)
    assert np.array_equal(after.slot, before.slot)


@both_forms
def test_the_order_of_cells_does_not_matter(form, rng):
    event, sets = event_with_sets(rng)
    order = order_within(rng, sets)
    before, after = (BUILDERS[form](event, CELLS, of) for of in (sets, shuffled(sets, order)))
    for name, array in before.inputs.items():
        np.testing.assert_allclose(after.inputs[name], array, rtol=1e-5, atol=1e-5)
    assert np.array_equal(after.slot, before.slot[order])


@both_forms
def test_without_tracks_or_cells_there_is_nothing_to_see(form, rng):
    event = random_event(rng)
    (inputs, slot) = BUILDERS[form](event, CELLS, sets_of([], [], [], []))
    assert {name: x.shape for name, x in inputs.items()} == {
        name: (0, *shape) for name, shape in INPUT_SHAPES[form].items()
    }
    assert len(slot) == 0
    (inputs, slot) = BUILDERS[form](event, CELLS, sets_of([0], [[]], [1.0], [0.0]))
    assert all(np.isfinite(x).all() for x in inputs.values())
    assert len(slot) == 0


def test_the_softest_cells_beyond_the_last_point_are_left_out(rng):
    event, sets = overlap(rng, 1, pdg_ids=(CHARGED, NEUTRAL, CHARGED))
    n = np.diff(sets.offsets)[0]
    assert n > N_SLOTS["points"]
    slots = build_points(event, CELLS, sets).slot.reshape(2, n)
    size = np.abs(event.clusters.cell_energy)
    for slot in slots:
        assert sorted(slot[slot >= 0]) == list(range(N_SLOTS["points"]))
        assert size[slot < 0].max() <= size[slot >= 0].min()
        assert np.all(np.diff(size[np.argsort(np.where(slot < 0, n, slot))][:128]) <= 0.0)


@both_forms
def test_cells_of_other_calorimeters_have_no_slot(form, rng):
    event, sets = event_with_sets(rng)
    layer = CELLS.layer.copy()
    layer[event.clusters.cell[::3]] = -1
    slot = BUILDERS[form](event, CELLS._replace(layer=layer), sets).slot
    of_none = layer[event.clusters.cell[sets.entry]] < 0
    assert np.all(slot[of_none] == -1)
    assert np.any(slot[~of_none] >= 0)


@both_forms
def test_a_track_that_stops_goes_on_from_the_last_layer_that_it_reached(form, rng):
    event, sets = event_with_sets(rng)
    tracks = event.tracks._replace(**{
        name: np.where(np.arange(7) < TILE0, getattr(event.tracks, name), np.nan)
        for name in ("eta_at", "phi_at")
    })  # fmt: skip
    for name, array in BUILDERS[form](event, CELLS, sets).inputs.items():
        found = BUILDERS[form](event._replace(tracks=tracks), CELLS, sets).inputs[name]
        np.testing.assert_array_equal(found, array)


@both_forms
@pytest.mark.parametrize("of", ["cell", "mean", "track"])
def test_a_number_that_is_not_finite_is_refused_with_its_event(form, of, rng):
    event, sets = event_with_sets(rng)
    event = event._replace(number=77)
    if of == "cell":
        event.clusters.cell_energy[sets.entry[-1]] = np.nan
    elif of == "mean":
        sets.mean[0] = np.inf
    else:
        event.tracks.p[0] = np.nan
    with pytest.raises(ValidationError, match=r"event 77: .* is (nan|inf)"):
        BUILDERS[form](event, CELLS, sets)


def test_true_shares_are_those_of_a_plain_count(rng):
    for _ in range(5):
        event, sets = event_with_sets(rng)
        event.tracks.particle[0] = -1  # a fake
        truth, found = event.truth, true_shares(event, sets)
        for s, track in enumerate(sets.track):
            for i in range(*sets.offsets[s : s + 2]):
                here = truth.hit_cell == event.clusters.cell[sets.entry[i]]
                mine = here & (truth.hit_particle == event.tracks.particle[track])
                mine &= event.tracks.particle[track] >= 0
                total = truth.hit_signal[here].sum()
                share = truth.hit_signal[mine].sum() / total if total > 0.0 else 0.0
                assert found[i] == pytest.approx(share, abs=1e-12)


def test_shares_of_cells_that_belong_to_no_particle_are_zero(rng):
    event, sets = overlap(rng, 1, pdg_ids=(CHARGED, NEUTRAL))
    kept = event.truth.hit_cell != event.clusters.cell[3]
    columns = {name: getattr(event.truth, name)[kept] for name in event.truth._fields[6:]}
    assert true_shares(event._replace(truth=event.truth._replace(**columns)), sets)[3] == 0.0
    with pytest.raises(ValidationError, match="event 1: no calibration truth"):
        true_shares(event._replace(truth=None), sets)


def test_the_meaning_of_the_inputs_names_every_feature():
    assert all(name in MEANINGS["points"] for name in POINT_FEATURES)
    assert all(name in meaning for name in TRACK_FEATURES for meaning in MEANINGS.values())
    assert len(np.unique(BARREL.layer)) == INPUT_SHAPES["images"]["images"][2] - 1
