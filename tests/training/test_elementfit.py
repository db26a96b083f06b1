"""One network for particle flow learns what shares of clusters are neutral, comes back from its
folder, and runs on events in ONNX Runtime as in Keras.
"""

import dataclasses
import json

import numpy as np
import pytest
from particleflow.flow_toys import overlap
from particleflow.hand_made import CELLS, event_of, tracks_of

from pfcalib.deploy.export import predict
from pfcalib.deploy.validator import open_session, run_in_batches
from pfcalib.errors import ConfigError, ValidationError
from pfcalib.features.windows import (
    CHARGED,
    ELEMENT_COLUMNS,
    ETA,
    LABELS,
    OUTPUTS,
    PHI,
    TARGETS,
    cut_windows,
    write_windows,
)
from pfcalib.models.elementnets import ElementsConfig
from pfcalib.models.families import load_model
from pfcalib.particleflow.elements import element_targets, event_elements
from pfcalib.particleflow.one_network import open_one_network, particle_inputs, particles_of
from pfcalib.training.elementfit import (
    RAREST,
    ElementTraining,
    WindowBatches,
    collect_elements,
    fit_elements,
    join_elements,
    label_weights,
)
from pfcalib.training.fit import TrainConfig

pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")
CONFIG = ElementTraining(
    network=ElementsConfig(n_elements=8, width=16, n_blocks=1, n_heads=2),
    n_core=4,
    train=TrainConfig(
        learning_rate=1e-2, batch_size=32, epochs=30, loss="mse", schedule="cosine_steps"
    ),
)


@pytest.fixture(scope="module")
def events():
    """A track and a photon in one cluster."""
    return [overlap(np.random.default_rng((7, number)), number)[0] for number in range(400)]


@pytest.fixture(scope="module")
def data(events):
    return [collect_elements(part, CELLS, CONFIG) for part in (events[:320], events[320:])]


@pytest.fixture(scope="module")
def fitted(data, tmp_path_factory):
    folder, said = tmp_path_factory.mktemp("models"), []
    found = fit_elements(*data, CONFIG, inputs="toys", folder=folder, say=said.append)
    again = fit_elements(*data, CONFIG, inputs="toys", folder=folder, say=said.append)
    assert again.path == found.path
    assert len(said) == CONFIG.train.epochs
    return found


def test_it_learns_the_neutral_part_of_a_cluster(fitted, events):
    """Better than the cluster less the mean charged part."""
    flow = open_one_network(fitted.path)
    said, true, em, p = [], [], [], []
    for event in events[320:]:
        particles = flow(event, CELLS)
        assert particles.label[0] == CHARGED
        said.append(particles.energy[1])
        true.append(event.truth.energy[1])
        em.append(event.clusters.energy[0])
        p.append(event.tracks.p[0])
    said, true, em, p = map(np.array, (said, true, em, p))
    line = np.polynomial.Polynomial.fit
    rest = em - 0.6 * p
    simple = line(rest, true, 1)(rest)
    assert np.std(said - true) < 0.9 * np.std(simple - true)


def test_events_in_onnx_runtime_are_windows_in_keras(fitted, data, events):
    model = load_model(fitted.folder / "model.keras")
    rows = np.arange(20)
    inputs = write_windows(data[1].columns, data[1].windows, rows)
    by_keras = np.asarray(model({"elements": inputs}))
    session = open_session(fitted.path)
    by_onnx = session.run(None, {"elements": inputs})[0]
    np.testing.assert_allclose(by_onnx, by_keras, atol=1e-5)
    particles = open_one_network(fitted.path)(events[320], CELLS)
    n = len(LABELS)
    np.testing.assert_allclose(particles.probability, by_onnx[0, :2, :n], atol=1e-5)


def test_the_truth_as_particles_gives_back_the_event(events):
    event = events[0]
    elements = event_elements(event, CELLS)
    targets = element_targets(event, elements)
    output = np.zeros((len(targets), len(OUTPUTS)))
    output[np.arange(len(targets)), targets[:, 0].astype(int)] = 1.0
    output[:, len(LABELS) :] = targets[:, 1:5]
    inputs = particle_inputs(particles_of(elements, output))
    assert inputs.is_charged.tolist() == [True, False]
    np.testing.assert_allclose(inputs.e, event.truth.energy, rtol=1e-5)


def test_it_starts_from_another_network(fitted, data, tmp_path):
    train = dataclasses.replace(CONFIG.train, epochs=1, learning_rate=1e-9)
    config = dataclasses.replace(CONFIG, train=train)
    start = fitted.folder / "model.keras"
    tuned = fit_elements(*data, config, inputs="toys", start=start, folder=tmp_path, say=str)
    fresh = fit_elements(*data, config, inputs="toys", folder=tmp_path, say=str)
    losses = [float(of.result.history["val_loss"].min()) for of in (fitted, tuned, fresh)]
    assert losses[1] == pytest.approx(losses[0], rel=1e-3)
    assert losses[2] > 1.2 * losses[0]


def test_batches_are_windows_and_their_mirrors(data):
    weight = label_weights(data[0])
    assert weight.min() == 1.0
    assert weight.max() <= RAREST
    options = {"batch_size": 50, "seed": 3}
    plain = WindowBatches(data[0], weight, shuffle=False, **options)
    mixed = WindowBatches(data[0], weight, shuffle=True, **options)
    assert [len(plain[i][1]) for i in range(len(plain))] == [*[50] * 6, 20]
    first = write_windows(data[0].columns, data[0].windows, np.arange(50))
    np.testing.assert_array_equal(plain[0][0]["elements"], first)
    (inputs, told), rows = mixed[0], mixed.order[:50]
    mirrored = inputs["elements"]
    whole = write_windows(data[0].columns, data[0].windows, rows)
    np.testing.assert_array_equal(np.abs(mirrored), np.abs(whole))
    energy, phi = (ELEMENT_COLUMNS.index(name) for name in ("energy", "phi"))
    signs = mixed.signs[rows, 1, None]
    assert set(signs.ravel().tolist()) == {-1.0, 1.0}
    np.testing.assert_array_equal(mirrored[..., energy], whole[..., energy])
    np.testing.assert_array_equal(mirrored[..., phi], signs * whole[..., phi])
    true = data[0].targets[data[0].windows.rows[rows]][..., TARGETS.index("d_phi")]
    np.testing.assert_array_equal(told[..., TARGETS.index("d_phi")], signs * true)
    assert ((told[..., TARGETS.index("weight")] > 0.0) == data[0].windows.is_core[rows]).all()


def test_joined_parts_are_all_events(data, events):
    joined = join_elements(data)
    whole = collect_elements(events, CELLS, CONFIG)
    for one, other in zip(
        (*joined.windows, joined.event), (*whole.windows, whole.event), strict=True
    ):
        np.testing.assert_array_equal(one, other)
    np.testing.assert_array_equal(joined.columns, whole.columns)
    assert joined.take(7).event.max() == 6


def test_an_event_without_elements_is_no_trouble(fitted):
    toy = overlap(np.random.default_rng(1), 1)[0]
    empty = event_of(tracks_of(), toy.clusters, toy.truth)
    flow = open_one_network(fitted.path)
    nothing = empty.clusters._replace(
        **{
            name: getattr(empty.clusters, name)[:0]
            for name in ("energy", "eta", "phi", "scale", "cell", "cell_energy", "weight")
        },
        offsets=np.zeros(1, dtype=np.int64),
    )
    assert len(flow(empty, CELLS).energy) == 1
    assert len(flow(empty._replace(clusters=nothing), CELLS).energy) == 0
    with pytest.raises(ConfigError, match="no track and no cluster"):
        collect_elements([empty._replace(clusters=nothing)], CELLS, CONFIG)


def test_other_files_are_refused(fitted, tmp_path):
    for path in fitted.folder.glob("elements.*"):
        (tmp_path / path.name).write_bytes(path.read_bytes())
    contract = json.loads((tmp_path / "elements.json").read_text())
    contract["normalisation"] = "of old"
    (tmp_path / "elements.json").write_text(json.dumps(contract))
    with pytest.raises(ValidationError, match="trained on the present columns"):
        open_one_network(tmp_path / "elements.onnx")


@pytest.mark.parametrize(
    ("options", "message"),
    [({"n_core": 9}, "n_core = 9"), ({"train": TrainConfig()}, "expected 'mse'")],
)
def test_wrong_options_are_refused(options, message):
    with pytest.raises(ConfigError, match=message):
        dataclasses.replace(CONFIG, **options)


@pytest.mark.parametrize("n_elements", [10, 200, 2000])
def test_an_event_of_any_size_is_the_same_in_both(fitted, n_elements):
    """Every element is spoken of once, by ONNX Runtime as by Keras."""
    rng = np.random.default_rng(n_elements)
    columns = rng.normal(size=(n_elements, len(ELEMENT_COLUMNS))).astype(np.float32)
    columns[:, 0] = rng.random(n_elements) < 0.5
    columns[:, 1] = 1.0 - columns[:, 0]
    columns[:, [ETA, PHI]] = rng.uniform((-1.5, -np.pi), (1.5, np.pi), (n_elements, 2))
    windows = cut_windows(*columns[:, [ETA, PHI]].T, n_core=CONFIG.n_core, n_halo=CONFIG.n_halo)
    assert np.bincount(windows.rows[windows.is_core]).tolist() == [1] * n_elements
    inputs = {"elements": write_windows(columns, windows)}
    by_keras = predict(load_model(fitted.folder / "model.keras"), inputs)
    by_onnx = run_in_batches(open_session(fitted.path), inputs, 8)
    np.testing.assert_allclose(by_onnx, by_keras, rtol=1e-4, atol=1e-5)
