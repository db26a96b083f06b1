"""Recipes of the study of domain shift: on which samples a network is trained, and from which
weights it starts.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from pfcalib.errors import ConfigError
from pfcalib.features.augment import AugmentConfig
from pfcalib.training.networks import NetworkConfig

SAMPLES = {
    "a": "A, idealised noise",
    "b": "B, pile-up noise, another cut",
    "c": "C, Geant4 pions",
    "d": "D, jets",
}
# of the recipes of `plan_recipes`
EPOCHS = {"b": 8, "c": 40, "d": 8, "tuned": 4, "tuned_c": 15, "mixed": 5, "augmented": 5}


@dataclass(frozen=True, kw_only=True)
class RecipeConfig:
    """How a network comes about.

    Parameters
    ----------
    network : NetworkConfig
    sample : str
        Name of the sample that it is trained on.
    extras : mapping of str to float
        Further samples, each with its share of a batch.
    start : str, optional
        Recipe whose weights are the first ones.
    inverted_on : tuple of str
        Samples besides these on which an inversion is measured, without a training.
    """

    network: NetworkConfig
    sample: str
    extras: Mapping[str, float] = field(default_factory=dict)
    start: str | None = None
    inverted_on: tuple[str, ...] = ()

    @property
    def homes(self) -> tuple[str, ...]:
        """Samples that have an inversion of their own; the first one's serves all others."""
        return tuple(dict.fromkeys((self.sample, *self.extras, *self.inverted_on)))


@dataclass(frozen=True, kw_only=True)
class DomainConfig:
    """What the recipes of `plan_recipes` differ in.

    Parameters
    ----------
    epochs : mapping of str to int
        By the keys of EPOCHS, which are the defaults.
    tuned_rate : float
        Learning rate of fine-tuning over that of a training from the start.
    few_batch : int
        Clusters a step on sample C, which is small.
    shares : mapping of str to float
        Of the samples other than A in a batch of the mixture.
    sizes : tuple of int
        Numbers of clusters of C for `plan_size_scan`.
    augment : AugmentConfig

    Raises
    ------
    ConfigError
        If an epoch's key or a sample is unknown, or a number is out of range.
    """

    epochs: Mapping[str, int] = field(default_factory=dict)
    tuned_rate: float = 0.2
    few_batch: int = 64
    shares: Mapping[str, float] = field(default_factory=lambda: {"b": 0.2, "c": 0.05, "d": 0.15})
    sizes: tuple[int, ...] = (250, 1000)
    augment: AugmentConfig = field(default_factory=AugmentConfig)

    def __post_init__(self) -> None:
        if unknown := set(self.epochs) - set(EPOCHS):
            raise ConfigError(
                f"DomainConfig: epochs of {sorted(unknown)}, expected some of {', '.join(EPOCHS)}"
            )
        if not set(self.shares) <= set(SAMPLES) - {"a"} or not (
            min(self.shares.values(), default=0.1) > 0.0 and sum(self.shares.values()) < 1.0
        ):
            raise ConfigError(
                f"DomainConfig: shares {dict(self.shares)}, expected some of b, c, d, above 0, "
                "with a sum below 1"
            )
        if not self.tuned_rate > 0.0 or min(self.few_batch, *self.sizes, *self.epochs.values()) < 1:
            raise ConfigError(
                f"DomainConfig: tuned_rate, few_batch, sizes and epochs must be above 0: {self}"
            )

    def trained(
        self, base: NetworkConfig, recipe: str, *, tuned: bool = False, few: bool = False
    ) -> NetworkConfig:
        """A network with the epochs of a recipe, and the rate of fine-tuning and the batch of a
        small sample where asked for.
        """
        n_epochs = self.epochs.get(recipe, EPOCHS[recipe])
        train = replace(base.train, epochs=n_epochs, patience=n_epochs)
        train = (
            replace(train, learning_rate=self.tuned_rate * train.learning_rate) if tuned else train
        )
        return replace(base, train=replace(train, batch_size=self.few_batch) if few else train)


def plan_recipes(base: NetworkConfig, config: DomainConfig) -> dict[str, RecipeConfig]:
    """All recipes of the study, each after the one that it starts from.

    ``<name>_a`` to ``<name>_d`` are trained on one sample from the start; ``tuned_b``, ``tuned_c``,
    ``tuned_d`` go on from ``<name>_a`` on another; ``mixed`` sees all samples at once;
    ``augmented`` sees A with random noise and cuts; ``remeasured`` is ``<name>_a`` with an
    inversion of each sample.

    Parameters
    ----------
    base : NetworkConfig
        The network on A, with its training.
    config : DomainConfig
    """
    on_a = f"{base.name}_a"
    recipes = {on_a: RecipeConfig(network=base, sample="a")}
    recipes |= {
        f"{base.name}_{s}": RecipeConfig(network=config.trained(base, s, few=s == "c"), sample=s)
        for s in ("b", "c", "d")
    }
    for sample in ("b", "c", "d"):
        stage = "tuned_c" if sample == "c" else "tuned"
        network = config.trained(base, stage, tuned=True, few=sample == "c")
        recipes[f"tuned_{sample}"] = RecipeConfig(network=network, sample=sample, start=on_a)
    recipes["mixed"] = RecipeConfig(
        network=config.trained(base, "mixed"), sample="a", extras=config.shares
    )
    recipes["augmented"] = RecipeConfig(
        network=replace(config.trained(base, "augmented"), augment=config.augment), sample="a"
    )
    recipes["remeasured"] = RecipeConfig(network=base, sample="a", inverted_on=tuple(SAMPLES)[1:])
    return recipes


def plan_size_scan(base: NetworkConfig, config: DomainConfig) -> dict[str, RecipeConfig]:
    """Recipes ``tuned_c_<n>`` and ``<name>_c_<n>``, fine-tuned and from the start, on n clusters of
    C for each of the sizes.
    """
    recipes = {}
    for n in config.sizes:
        tuned = replace(config.trained(base, "tuned_c", tuned=True, few=True), n_clusters=n)
        recipes[f"tuned_c_{n}"] = RecipeConfig(network=tuned, sample="c", start=f"{base.name}_a")
        recipes[f"{base.name}_c_{n}"] = RecipeConfig(
            network=replace(config.trained(base, "c", few=True), n_clusters=n), sample="c"
        )
    return recipes
