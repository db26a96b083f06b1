"""What a study shows of where its networks look: importance of layers and rings, layers taken away,
and attributions, for each species.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from pfcalib.errors import ConfigError, ValidationError
from pfcalib.metrics.curve import Estimate, Metric
from pfcalib.metrics.response import HALF_WIDTH, MIN_COUNT, energy_name
from pfcalib.samples.read import PathLike
from pfcalib.training.networks import SCALARS
from pfcalib.training.regressors import Regressor
from studies.attribution import AttributionImages, attribution_images, integrated_gradients
from studies.importance import (
    DropoutRow,
    Importance,
    energy_measures,
    importance_metrics,
    layer_dropout,
    permutation_importance,
)
from studies.probe import Probe, read_probe, rows_near
from studies.regions import Region, layer_regions, ring_regions, scalar_regions

TILE = "TileBar"  # what the names of the layers of the tile calorimeter begin with


@dataclass(frozen=True, kw_only=True)
class InsightConfig:
    """What is looked at, and how closely.

    Parameters
    ----------
    energies : sequence of float, GeV
        Rising; centres of bins of true energy.
    attributed_at : float, GeV
        That of them at which attributions are made and rings are shown.
    half_width : float
        Of the bins, in log10.
    n_clusters : int
        Clusters of each species at most that are read, and that parts of images are taken from.
    n_repeats : int
        Shufflings.
    n_attributed, n_steps : int
        Clusters of each species at most that have attributions, and points on the line of each.
    """

    energies: tuple[float, ...] = (1.0, 10.0, 100.0)
    attributed_at: float = 10.0
    half_width: float = HALF_WIDTH
    n_clusters: int = 20_000
    n_repeats: int = 3
    n_attributed: int = 300
    n_steps: int = 64

    def __post_init__(self) -> None:
        object.__setattr__(self, "energies", tuple(self.energies))  # JSON and YAML know lists only
        if self.attributed_at not in self.energies or not np.all(
            np.diff([0.0, *self.energies]) > 0.0
        ):
            raise ConfigError(
                f"InsightConfig: energies = {self.energies}, expected to rise and to hold "
                f"attributed_at = {self.attributed_at}"
            )
        for name in ("half_width", "n_clusters", "n_repeats", "n_attributed", "n_steps"):
            if not getattr(self, name) > 0:
                raise ConfigError(
                    f"InsightConfig: {name} = {getattr(self, name)!r}, expected above 0"
                )


class Insight(NamedTuple):
    """What regressions of the species look at."""

    config: InsightConfig
    parts: tuple[Region, ...]  # layers and scalars
    rings: tuple[Region, ...]
    importance: dict[str, Importance]  # by species
    dropout: list[DropoutRow]
    images: dict[str, AttributionImages]  # by species
    incompleteness: dict[str, float]  # by species, of the attributions

    def by_energy(self, species: str) -> dict[str, dict[str, Estimate]]:
        """Relative rise of the resolution, by energy and by layer or scalar."""
        return {
            f"{energy:g} GeV": self._rise(species, energy, self.parts)
            for energy in self.config.energies
        }

    def by_ring(self) -> dict[str, dict[str, Estimate]]:
        """Relative rise of the resolution at the energy of the attributions, by species and by ring
        of a layer.
        """
        return {
            species: self._rise(species, self.config.attributed_at, self.rings)
            for species in self.importance
        }

    def _rise(
        self, species: str, energy: float, regions: tuple[Region, ...]
    ) -> dict[str, Estimate]:
        rise = self.importance[species].rise[f"iqr_{species}_{energy_name(energy)}"]
        return {region.name: rise[region.name] for region in regions}

    def first_layers(self, species: str, energy: float, n: int = 2) -> list[str]:
        """The layers whose shuffling costs most resolution, the first one first."""
        rise = self._rise(
            species, energy, tuple(part for part in self.parts if part.name not in SCALARS)
        )
        return sorted(rise, key=lambda name: rise[name].value, reverse=True)[:n]

    def tile(self, species: str, energy: float) -> Estimate:
        """The largest relative rise among the layers of the tile calorimeter."""
        return max(
            estimate
            for name, estimate in self._rise(species, energy, self.parts).items()
            if name.startswith(TILE)
        )

    def metrics(self, *, model: str, where: str) -> Iterator[Metric]:
        """``importance_<layer>_<iqr or log>_<species>_<E>gev`` of layers and scalars."""
        for found in self.importance.values():
            yield from importance_metrics(found, self.parts, model=model, where=where)


def look_into(
    regressors: Mapping[str, Regressor],
    path: PathLike,
    config: InsightConfig,
    *,
    rng: np.random.Generator,
    split: str = "test",
) -> Insight:
    """Shuffle, take away and attribute, for the regressor of each species on the clusters it is
    made for.

    Parameters
    ----------
    regressors : mapping of str to Regressor
        By ``pi0`` and ``pic``, with the same kind of inputs, as of
        `training.regressions.fit_apart`.
    path : path-like
        ROOT sample.
    config : InsightConfig
    rng : numpy.random.Generator
    split : str

    Raises
    ------
    ValidationError
        If a bin of energy has too few clusters.
    """
    kind = next(iter(regressors.values())).network.config.inputs
    layers, rings, scalars = layer_regions(kind), ring_regions(kind), scalar_regions(SCALARS)
    with_scalars = all(
        regressor.network.config.options.get("with_scalars") for regressor in regressors.values()
    )
    parts = [*layers, *(scalars if with_scalars else ())]
    importance, dropout, images, gaps = {}, [], {}, {}
    for species, regressor in regressors.items():
        probe = read_probe(regressor, path, rng=rng, split=split, n_clusters=config.n_clusters)
        _require_bins(probe, species, config)
        measures = energy_measures(probe, config.energies, half_width=config.half_width)
        measures = {name: measure for name, measure in measures.items() if f"_{species}_" in name}
        importance[species] = permutation_importance(
            regressor, probe, [*parts, *rings], measures, rng=rng, n_repeats=config.n_repeats
        )
        dropout += layer_dropout(
            regressor, probe, layers, config.energies, half_width=config.half_width, rng=rng
        )
        images[species], gaps[species] = _attribute(regressor, probe, kind, config)
    return Insight(config, tuple(parts), tuple(rings), importance, dropout, images, gaps)


def _require_bins(probe: Probe, species: str, config: InsightConfig) -> None:
    found = {
        (name, energy)
        for name, energy, _ in rows_near(probe, config.energies, half_width=config.half_width)
    }
    missing = [energy for energy in config.energies if (species, energy) not in found]
    if missing:
        raise ValidationError(
            f"{species}: fewer than {MIN_COUNT} of {len(probe.e_true)} clusters near "
            f"{missing[0]:g} GeV; expected more, or wider bins"
        )


def _attribute(
    regressor: Regressor, probe: Probe, kind: str, config: InsightConfig
) -> tuple[AttributionImages, float]:
    """Mean images and the incompleteness of attributions of clusters near one energy."""
    rows = rows_near(probe, [config.attributed_at], half_width=config.half_width)[0][2][
        : config.n_attributed
    ]
    inputs = {name: array[rows] for name, array in probe.inputs.items()}
    attribution = integrated_gradients(regressor.network.model, inputs, n_steps=config.n_steps)
    return attribution_images(attribution, kind), attribution.incompleteness
