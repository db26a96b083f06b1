"""A study finds what was put into the networks: one that ignores all layers but one looks at that
one.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from factories import make_sample
from studies.insight import Insight, InsightConfig, look_into

from pfcalib.errors import ConfigError, ValidationError
from pfcalib.features.images import IMAGE_LAYERS
from pfcalib.features.targets import TargetConfig
from pfcalib.models.families import build_model
from pfcalib.samples.write import write_sample
from pfcalib.training.fit import TrainConfig
from pfcalib.training.networks import Network, NetworkConfig
from pfcalib.training.regressors import SPECIES_OF, Regressor, for_species

pytestmark = pytest.mark.filterwarnings(
    "ignore:__array__ implementation doesn't accept a copy keyword:DeprecationWarning"
)  # TensorFlow 2.21 with numpy 2

NO_RESULT: Any = None
TINY = {"filters": 2, "branch_width": 4, "merged_width": 4, "head": "energy", "with_scalars": True}
WIDE = InsightConfig(energies=(10.0,), half_width=2.0, n_repeats=1, n_attributed=20, n_steps=4)


@pytest.fixture(scope="module")
def sample(tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("insight") / "a.root"
    write_sample(path, make_sample(np.random.default_rng(2), 800))
    return path


@pytest.fixture(scope="module")
def insight(sample) -> Insight:
    """Networks that were never trained, and whose branches but that of EMB2 were cut."""
    config = NetworkConfig(
        name="cnn", options=TINY, target=TargetConfig(), train=TrainConfig(loss="huber")
    )
    model = build_model("cnn", seed=1, **TINY)
    for layer in IMAGE_LAYERS:
        if layer != "EMB2":
            dense = model.get_layer(f"{layer}_dense")
            dense.set_weights([np.zeros_like(weights) for weights in dense.get_weights()])
    regressors = {
        key: Regressor(Network(for_species(config, name), model, NO_RESULT, sample.parent), None)
        for key, name in SPECIES_OF.items()
    }
    return look_into(regressors, sample, WIDE, rng=np.random.default_rng(1))


def test_only_the_layer_that_is_not_cut_matters(insight):
    for species in ("pi0", "pic"):
        (rise,) = insight.by_energy(species).values()
        for layer in IMAGE_LAYERS:
            assert (abs(rise[layer].value) > 1e-9) == (layer == "EMB2")
        assert insight.tile(species, 10.0) == pytest.approx((0.0, 0.0), abs=1e-9)
        assert len(insight.first_layers(species, 10.0)) == 2
        assert {
            name for name, total in insight.images[species].total.items() if total.value > 0.0
        } == {"EMB2"}
        rings = insight.by_ring()[species]
        assert all(
            abs(estimate.value) < 1e-9
            for name, estimate in rings.items()
            if not name.startswith("EMB2")
        )
    assert {(row.layers, row.species) for row in insight.dropout} >= {
        ("all", "pi0"),
        ("only EMB2", "pic"),
        ("without TileBar0", "pic"),
    }


def test_metrics_have_names_of_their_own(insight):
    names = [name for name, *_ in insight.metrics(model="cnn", where="test split")]
    assert len(names) == len(set(names)) == 2 * 2 * 8
    assert {"importance_emb2_iqr_pic_10gev", "importance_clustere_log_pi0_10gev"} <= set(names)


def test_settings_that_cannot_be_are_refused(sample, insight):
    for wrong in (
        {"energies": (1.0,)},
        {"energies": (10.0, 1.0)},
        {"n_steps": 0},
        {"half_width": 0.0},
    ):
        with pytest.raises(ConfigError, match="InsightConfig"):
            InsightConfig(**wrong)
    config = NetworkConfig(
        name="cnn", options=TINY, target=TargetConfig(), train=TrainConfig(loss="huber")
    )
    alone = {
        "pic": Regressor(
            Network(
                for_species(config, "charged"),
                build_model("cnn", seed=1, **TINY),
                NO_RESULT,
                sample.parent,
            ),
            None,
        )
    }
    with pytest.raises(ValidationError, match="pic: fewer than 30"):
        look_into(
            alone,
            sample,
            InsightConfig(energies=(10.0, 5e4), half_width=0.5),
            rng=np.random.default_rng(1),
        )
