"""Networks on tracks learn, resume, find vertices and are exported for any number of tracks."""

import numpy as np
import pytest
from tagging.test_tagnets import SMALL
from tagging.toy_jets import toy_jets

from pfcalib.deploy.export import export_onnx
from pfcalib.deploy.validator import check_stored_model
from pfcalib.tagging.tagdata import COLUMN, tag_data
from pfcalib.tagging.tagfit import (
    FEW,
    Tagger,
    TaggerTraining,
    TrackBatches,
    apply_tagger,
    check_lengths,
    find_vertices,
    fit_tagger,
    match_vertices,
    track_gradients,
    track_inputs,
    track_shares,
)
from pfcalib.tagging.tagnets import ORIGIN, OUTPUT, PAIRS, adapt_scales, build_tagger
from pfcalib.training.fit import TrainConfig

# Keras under numpy 2, when it reads weights back
pytestmark = pytest.mark.filterwarnings(
    "ignore:__array__ implementation doesn't accept a copy keyword:DeprecationWarning"
)
TRAIN = TrainConfig(
    learning_rate=0.01, batch_size=64, epochs=6, patience=6, loss="mse", schedule="cosine_steps"
)


@pytest.fixture(scope="module")
def parts():
    data = tag_data(toy_jets(2400))
    return data.take(np.arange(1600)), data.take(np.arange(1600, 2400))


@pytest.fixture(scope="module")
def tagger(parts, tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PFCALIB_CACHE", str(tmp_path_factory.mktemp("cache")))
        yield fit_tagger(
            *parts, TaggerTraining(network=SMALL["gn2"], train=TRAIN), inputs="toy",
            say=lambda line: None,
        )  # fmt: skip


def test_batches_hold_each_jet_once_and_answers_of_its_tracks(parts):
    data = parts[0]
    stream = TrackBatches(data, batch_size=100, shuffle=True, tasks=True)
    assert sorted(np.concatenate(stream.batches)) == list(range(1600))
    first = [rows.tolist() for rows in stream.batches]
    stream.on_epoch_end()
    assert first != [rows.tolist() for rows in stream.batches]
    inputs, answers, _ = stream[0]
    row, jet = 2, stream.batches[0][2]
    mine = slice(*data.offsets[jet : jet + 2])
    n = data.n_tracks[jet]
    np.testing.assert_array_equal(inputs["tracks"][row, :n, 1:], data.tracks[mine])
    assert answers[ORIGIN][row, :n].tolist() == data.origin[mine].tolist()
    vertex = data.vertex[mine]
    for a in range(n):
        for b in range(n):
            wanted = -1.0 if a == b else float(vertex[a] == vertex[b])
            assert answers[PAIRS][row, a, b] == wanted
    assert (answers[PAIRS][row, n:] == -1.0).all()
    assert (answers[ORIGIN][row, n:] == -1.0).all()


def test_a_network_learns_the_flavour_and_the_tracks(tagger, parts):
    data = parts[1]
    p = apply_tagger(tagger.model, data)
    right = p.argmax(axis=1) == data.label
    assert right.mean() > 0.55
    assert right[data.n_tracks > 8].mean() > 0.65
    origin = apply_tagger(tagger.model, data, output=ORIGIN).argmax(axis=1)
    assert (origin == data.origin).mean() > 0.8
    found = match_vertices(data, find_vertices(tagger.model, data))
    assert found.efficiency.mean() > 0.7
    assert found.purity.mean() > 0.7
    shares = np.bincount(data.jet_of, track_shares(tagger.model, data), len(data.label))
    np.testing.assert_allclose(shares[data.n_tracks > 0], 1.0, atol=1e-5)


def test_a_training_is_found_again(tagger, parts):
    again = fit_tagger(
        *parts, tagger.config, inputs="toy", say=lambda line: pytest.fail("trained")
    )  # fmt: skip
    assert again.path == tagger.path
    np.testing.assert_array_equal(
        apply_tagger(again.model, parts[1]), apply_tagger(tagger.model, parts[1])
    )


@pytest.mark.parametrize("kind", SMALL)
def test_files_compute_the_same_for_any_number_of_tracks(kind, parts, tmp_path):
    config, data = SMALL[kind], parts[1]
    model = build_tagger(config, seed=2)
    adapt_scales(model, data.tracks, data.jets)
    path = tmp_path / "tagger.onnx"
    export_onnx(model, path, inputs=track_inputs(data, np.arange(120), 40), kind="tracks")
    assert check_stored_model(path).passed
    away = check_lengths(Tagger(TaggerTraining(network=config), model, None, path), data)
    assert set(away) == set(FEW)
    assert max(away.values()) < 1e-5


def test_vertices_are_joined_tracks_and_matched_to_the_true_ones(parts):
    data = parts[0].take(parts[0].n_tracks >= 6).take([0])
    n = int(data.n_tracks[0])
    data = data._replace(vertex=np.array([1, 1, 1, 0, 0, 2, *[-1] * (n - 6)], dtype=np.int16))
    found = np.array([5, 5, 6, 6, 6, 7, *range(8, 8 + n - 6)])
    match = match_vertices(data, found)
    assert match.number.tolist() == [0, 1]
    assert match.jet.tolist() == [0, 0]
    np.testing.assert_allclose(match.efficiency, [1.0, 2.0 / 3.0])
    np.testing.assert_allclose(match.purity, [2.0 / 3.0, 1.0])


def test_gradients_are_those_of_small_steps(parts):
    data = parts[1].take(parts[1].n_tracks >= 4).take(np.arange(5))
    model = build_tagger(SMALL["dips"], seed=3)
    adapt_scales(model, parts[0].tracks, parts[0].jets)
    found = track_gradients(model, data, {"b": 1.0, "light": -1.0})
    track, column = int(data.offsets[2]), COLUMN["lifetimeSignedD0Significance"]

    def told(value):
        tracks = data.tracks.copy()
        tracks[track, column] = value
        p = apply_tagger(model, data._replace(tracks=tracks)).astype(np.float64)[2]
        return np.log(p[0] / p[2])

    x, step = float(data.tracks[track, column]), 0.05
    slope = (told(x + step) - told(x - step)) / (2.0 * step)
    scale = model.get_layer("scale")
    size, mean, width = (
        float(np.asarray(v)[1 + column]) for v in (scale.size, scale.mean, scale.width)
    )
    seen = (np.sign(x) * np.log1p(abs(x) / size) - mean) / width
    assert found[track, column] == pytest.approx(slope * (size + abs(x)) * width * seen, rel=0.05)
    assert OUTPUT in model.output_names
