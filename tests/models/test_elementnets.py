"""Networks on elements do not see order or empty places, and their loss has its minimum at the
truth.
"""

import numpy as np
import pytest

from pfcalib.errors import ConfigError
from pfcalib.features.windows import CHARGED, ELEMENT_COLUMNS, ETA, LABELS, OUTPUTS, PHI, TARGETS
from pfcalib.models.elementnets import BODIES, ElementsConfig, build_elements, elements_loss

pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")
SMALL = {"n_elements": 12, "width": 8, "n_blocks": 2, "n_heads": 2}


def make_elements(rng, n, filled):
    """Windows with tracks and clusters in the first places."""
    columns = rng.exponential(1.0, (n, SMALL["n_elements"], len(ELEMENT_COLUMNS)))
    columns[..., ETA], columns[..., PHI] = rng.uniform(-0.5, 0.5, (2, *columns.shape[:2]))
    is_track = rng.random(columns.shape[:2]) < 0.5
    columns[..., 0], columns[..., 1] = is_track, ~is_track
    columns[:, filled:] = 0.0
    return columns.astype(np.float32)


@pytest.mark.parametrize("kind", BODIES)
def test_neither_order_nor_empty_places_count(kind, rng):
    model = build_elements(ElementsConfig(kind=kind, **SMALL), seed=1)
    elements = make_elements(rng, 3, 7)
    first = np.asarray(model({"elements": elements}))
    assert first.shape == (3, 12, len(OUTPUTS))
    order = rng.permutation(12)
    mixed = np.asarray(model({"elements": elements[:, order]}))
    filled = order < 7
    np.testing.assert_allclose(mixed[:, filled], first[:, order[filled]], atol=2e-5)
    without = elements.copy()
    without[:, 6] = 0.0
    changed = np.abs(np.asarray(model({"elements": without})) - first)[:, :6].max()
    assert changed > 1e-4  # but the last that is there does


@pytest.mark.parametrize("kind", BODIES)
def test_outputs_are_probabilities_energies_and_shares(kind, rng):
    model = build_elements(ElementsConfig(kind=kind, **SMALL), seed=1)
    found = np.asarray(model({"elements": make_elements(rng, 50, 12)}))
    n = len(LABELS)
    np.testing.assert_allclose(found[..., :n].sum(axis=-1), 1.0, rtol=1e-5)
    assert (found[..., n] > 0.0).all()
    assert ((found[..., n + 3] >= 0.0) & (found[..., n + 3] <= 1.0)).all()


def test_the_loss_is_least_at_the_truth_and_leaves_out_what_has_no_weight(rng):
    true = np.zeros((1, 4, len(TARGETS)), dtype=np.float32)
    for name, value in (
        ("label", CHARGED), ("energy", 0.8), ("d_eta", 0.01), ("scale", 5.0), ("weight", 1.0)
    ):  # fmt: skip
        true[..., TARGETS.index(name)] = value
    said = np.zeros((1, 4, len(OUTPUTS)), dtype=np.float32)
    said[..., CHARGED] = 1.0
    for name in ("energy", "d_eta"):
        said[..., OUTPUTS.index(name)] = true[..., TARGETS.index(name)]
    best = float(elements_loss(true, said))
    assert best == pytest.approx(0.0, abs=1e-5)
    for name, change in (("energy", 0.1), ("d_eta", 0.01), ("d_phi", 0.01), ("pile_up", 0.3)):
        off = said.copy()
        off[..., OUTPUTS.index(name)] += change
        assert float(elements_loss(true, off)) > best + 1e-3
        alone = true.copy()
        alone[:, 1:, TARGETS.index("weight")] = 0.0
        off[:, 0] = said[:, 0]
        assert float(elements_loss(alone, off)) == pytest.approx(best, abs=1e-5)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"kind": "moe"}, "expected one of transformer, graph"),
        ({"width": 9}, "no multiple of n_heads"),
        ({"n_blocks": 0}, "n_blocks = 0"),
    ],
)
def test_wrong_options_are_refused(options, message):
    with pytest.raises(ConfigError, match=message):
        ElementsConfig(**{**SMALL, **options})
