"""Tuned settings of the networks, read from files that a study of hyper-parameters wrote, and the
configurations made of them.

Studies that make their configurations here share trainings: the same settings find the same network
in the cache.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

import pydantic

from pfcalib.errors import BadFileError, ConfigError
from pfcalib.features.targets import TargetConfig
from pfcalib.models.families import BUILDERS, PUBLISHED
from pfcalib.samples.read import PathLike
from pfcalib.training.fit import TrainConfig
from pfcalib.training.networks import SELECTION, NetworkConfig, for_species

FOLDER = Path(__file__).parents[1] / "data" / "tuned"
FAMILIES = tuple(BUILDERS)
# of each head
LOSSES = {
    "energy": "huber",
    "quantiles": "pinball",
    "mixture": "mixture",
    "members": "members",
    "class_and_energy": "class_and_energy",
}
# of the networks that are not published, in place of the tuned ones of a classifier: dropout is
# noise, which a predicted width would hold
OWN_OPTIONS = {"dropout": 0.0}
OWN_TRAIN = {"learning_rate": 2e-3, "batch_size": 512}
# in ln(E / clusterE): squares for what is within ten per cent, absolute values beyond
HUBER_DELTA = 0.1


class Provenance(pydantic.BaseModel):
    """Where settings come from."""

    model_config = pydantic.ConfigDict(extra="forbid", frozen=True)

    study: str  # name of the Optuna study; "chosen by hand" without one
    objective: str
    value: float | None  # of the objective at these settings
    default_value: float | None  # of the objective at the published or default settings
    n_trials: int  # completed and pruned ones
    sample: str  # name of the file
    n_clusters: int  # training clusters of a trial
    epochs: int  # of a trial
    versions: dict[str, str]
    date: str  # ISO 8601, of the day


class TunedFile(pydantic.BaseModel):
    """Content of a file of tuned settings."""

    model_config = pydantic.ConfigDict(extra="forbid", frozen=True)

    schema_version: Literal[1]
    family: Literal["dnn", "cnn", "densenet", "mlp", "points"]
    options: dict[str, Any]  # of the model's configuration, with_scalars among them, without a head
    train: dict[str, Any]  # of TrainConfig: learning_rate, batch_size, and what else is not usual
    provenance: Provenance

    @pydantic.model_validator(mode="after")
    def require_fit(self) -> TunedFile:
        """Build the configurations, which know their limits."""
        lists = {name: tuple(v) for name, v in self.options.items() if isinstance(v, list)}
        try:
            if "head" in self.options:
                raise ConfigError("options: the head is chosen by the user of the settings")
            BUILDERS[self.family][0](**{**self.options, **lists})
            TrainConfig(**self.train)
        except (TypeError, ConfigError) as error:
            raise ValueError(error) from error
        return self


def read_tuned(family: str, *, path: PathLike | None = None) -> TunedFile:
    """Settings of a family from the package, or from a file.

    Parameters
    ----------
    family : str
        Of FAMILIES.
    path : path-like, optional
        In place of the packaged file.

    Raises
    ------
    ConfigError
        If the family is unknown.
    BadFileError
        If the file is missing or broken, is of another family, or names options that the network or
        the training does not have.
    """
    require_family(family)
    file = Path(path) if path is not None else FOLDER / f"{family}.json"
    try:
        stored = TunedFile.model_validate_json(file.read_text(encoding="utf-8"))
    except pydantic.ValidationError as error:
        first = error.errors()[0]
        raise BadFileError(
            f"{file}: {'.'.join(map(str, first['loc'])) or 'the whole'}: {first['msg']}"
        ) from error
    except (OSError, UnicodeDecodeError) as error:
        raise BadFileError(f"{file}: cannot be read: {error}") from error
    if stored.family != family:
        raise BadFileError(f"{file}: holds settings of {stored.family}, expected {family}")
    return stored


def require_family(family: str) -> None:
    """Raise ConfigError unless the family of networks is known."""
    if family not in FAMILIES:
        raise ConfigError(f"unknown family {family!r}: expected one of {', '.join(FAMILIES)}")


def regression_config(
    name: str,
    *,
    species: str = "all",
    epochs: int,
    seed: int,
    options: Mapping[str, Any] | None = None,
    train: Mapping[str, Any] | None = None,
    head: str = "energy",
    target: TargetConfig | None = None,
    **more: Any,
) -> NetworkConfig:
    """Configuration of a regression with tuned settings and the loss that fits its head.

    Parameters
    ----------
    name : str
        Family of networks.
    species : str
        ``all``, ``neutral`` or ``charged``.
    epochs : int
        All of them are run: the learning rate falls along a cosine.
    seed : int
    options, train : mapping, optional
        Of the network and of its training, over the tuned ones.
    head : str
        ``energy``, ``quantiles``, ``mixture``, ``members`` or ``class_and_energy``.
    target : TargetConfig, optional
        By default ln(E / clusterE) of the deposit.
    **more
        Further fields of `NetworkConfig`, such as augment or n_clusters.

    Raises
    ------
    ConfigError
        If family, head, species or an option is unknown.
    """
    if head not in LOSSES:
        raise ConfigError(
            f"head {head!r} is not that of a regression: expected one of {', '.join(LOSSES)}"
        )
    own = name not in PUBLISHED
    loss = {"loss": LOSSES[head], "huber_delta": HUBER_DELTA}
    config = classifier_config(
        name,
        epochs=epochs,
        seed=seed,
        options={**(OWN_OPTIONS if own else {}), **(options or {}), "head": head},
        train={**(OWN_TRAIN if own else {}), **loss, **(train or {})},
        target=target or TargetConfig(with_class=head == "class_and_energy"),
        **more,
    )
    return for_species(config, species)


def classifier_config(
    name: str,
    *,
    epochs: int,
    seed: int,
    options: Mapping[str, Any] | None = None,
    train: Mapping[str, Any] | None = None,
    **more: Any,
) -> NetworkConfig:
    """Configuration of a classifier of the clusters of the regressions, with the settings that were
    tuned for these; parameters as of `regression_config`.
    """
    tuned = read_tuned(name)
    schedule = {"epochs": epochs, "patience": epochs, "schedule": "cosine", "seed": seed}
    return NetworkConfig(
        name=name,
        options={**tuned.options, **(options or {})},
        train=TrainConfig(**{**schedule, **tuned.train, **(train or {})}),
        **{"select": SELECTION, **more},
    )
