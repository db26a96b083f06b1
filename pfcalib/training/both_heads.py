"""Networks with two heads, class and energy, on the same clusters: on images and on points, with
one loss and the moments of the cluster as further inputs, so that what differs is the network; and
the published classifier, which has neither.

Studies that make their configurations here share trainings, as with `training.settings`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pfcalib.features.clouds import Clouds
from pfcalib.features.scalars import MOMENT_COLUMNS
from pfcalib.features.targets import TargetConfig
from pfcalib.training.cloudfit import CloudConfig, CloudData
from pfcalib.training.fit import TrainConfig
from pfcalib.training.networks import NetworkConfig
from pfcalib.training.regressors import Clusters
from pfcalib.training.settings import classifier_config, regression_config

HEAD = "class_and_energy"
TARGET = TargetConfig(with_class=True, flat=False)
# 0.75 of the absolute error of log10 E and 0.25 of the cross-entropy, as in ATL-PHYS-PUB-2022-040:
# over 0.25, and with ln E; Huber's loss is the absolute one but for the last thousandth
LOSS = {"loss": HEAD, "energy_weight": 3 / np.log(10), "huber_delta": 1e-3}


def image_config(
    name: str,
    *,
    epochs: int,
    seed: int,
    options: Mapping[str, Any] | None = None,
    train: Mapping[str, Any] | None = None,
) -> NetworkConfig:
    """A network on images and its training, with tuned settings; see `regression_config`."""
    return regression_config(
        name,
        epochs=epochs,
        seed=seed,
        options={**(options or {}), "with_moments": True},
        train={**(train or {}), **LOSS},
        head=HEAD,
        target=TARGET,
    )


def cloud_config(
    name: str,
    *,
    epochs: int,
    seed: int,
    learning_rate: float,
    batch_size: int,
    n_points: int,
    options: Mapping[str, Any] | None = None,
    moments: bool = True,
) -> CloudConfig:
    """A network on points and its training, whose rate falls along a cosine."""
    train = TrainConfig(
        learning_rate=learning_rate,
        batch_size=batch_size,
        epochs=epochs,
        patience=epochs,
        schedule="cosine_steps",
        clip_norm=1.0,
        seed=seed,
        **LOSS,
    )
    options = {**(options or {}), "head": HEAD, "with_moments": moments}
    return CloudConfig(name=name, options=options, n_points=n_points, train=train)


def cloud_data(clouds: Clouds, clusters: Clusters) -> CloudData:
    """Clusters of a split as points, with their moments, class and energy.

    Parameters
    ----------
    clouds : Clouds
        All clusters of the file.
    clusters : Clusters
        Some of them.
    """
    y = TARGET.encode(clusters.e_true, clusters.e_em)
    answers = np.stack([~clusters.is_em, clusters.is_em, y], axis=-1).astype(np.float32)
    moments = np.stack([clusters.columns[name] for name in MOMENT_COLUMNS], axis=-1)
    whole = CloudData(clouds, np.zeros((clouds.n_clouds, 1), dtype=np.float32)).take(clusters.rows)
    return CloudData(whole.clouds, answers, {"moments": moments.astype(np.float32)})


def split_output(
    output: NDArray[Any], e_em: NDArray[np.float64]
) -> tuple[NDArray[Any], NDArray[np.float64]]:
    """Probability of a neutral pion, and energy in GeV, of the output of such a network for
    clusters of energy `e_em` at the EM scale.
    """
    return output[:, 1], TARGET.decode(output[:, 2], e_em)


def flat_classifier(
    options: Mapping[str, Any], *, epochs: int, seed: int, train: Mapping[str, Any] | None = None
) -> NetworkConfig:
    """The flat network on pixels alone, without energy and moments, which tells the class: as in
    ATL-PHYS-PUB-2020-018 if its widths are (936, 936, 468).
    """
    alone = {"with_scalars": False, "with_moments": False}
    return classifier_config(
        "dnn", epochs=epochs, seed=seed, options={**options, **alone}, train=train
    )
