"""Bounded networks learn what their bound allows."""

import numpy as np
import pytest
from sklearn.isotonic import IsotonicRegression

from pfcalib.training.fit import TrainConfig
from pfcalib.training.robustfit import RobustConfig, Rows, fit_robust

pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")

GRID = np.linspace(-1.8, 1.8, 361)


@pytest.fixture(autouse=True)
def _own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("PFCALIB_CACHE", str(tmp_path))


def fit(y, epochs, **options):
    rng = np.random.default_rng(1)
    x = rng.uniform(-2.0, 2.0, (4000, 1)).astype(np.float32)
    loss = options.pop("loss", "mse")
    train = TrainConfig(
        epochs=epochs, patience=epochs, learning_rate=0.01, batch_size=250, schedule="cosine_steps",
        loss=loss,
    )  # fmt: skip
    target = y(x[:, 0], rng)
    parts = [Rows(x[part], target[part]) for part in (slice(3000), slice(3000, None))]
    config = RobustConfig(widths=(32, 32), train=train, **options)
    return fit_robust(
        *parts, config, inputs="x", names=["x"], scale=[1.0], export=False, say=lambda line: None
    )


def test_a_monotonic_fit_is_the_isotonic_regression():
    def truth(x):
        return x + 1.2 * np.sin(3.0 * x)

    network = fit(
        lambda x, rng: truth(x) + rng.normal(0.0, 0.1, len(x)), 40, limit=4.0, rising=(0,)
    )
    found = network.score(GRID[:, None])
    answer = IsotonicRegression().fit_transform(GRID, truth(GRID))
    away = np.sqrt(np.mean((found - answer) ** 2))
    assert away < 0.12
    assert away < 0.3 * np.sqrt(np.mean((truth(GRID) - answer) ** 2))
    assert np.diff(found).min() > -1e-5


def test_the_bound_is_reached_where_the_truth_is_steeper():
    network = fit(lambda x, rng: 5.0 * x, 15, limit=1.0)
    slope = network.exact.slope(GRID[:, None])[:, 0]
    assert slope == pytest.approx(1.0, abs=0.02)
    assert network.exact.bounds()[1][0] <= 1.0


def test_scores_of_a_classifier_are_log_odds():
    network = fit(
        lambda x, rng: (rng.random(len(x)) < 1.0 / (1.0 + np.exp(-2.0 * x))).astype(int), 15,
        limit=5.0, loss="crossentropy",
    )  # fmt: skip
    assert network.score(GRID[:, None]) == pytest.approx(2.0 * GRID, abs=0.6)
