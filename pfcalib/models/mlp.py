"""A network on the moments of a cluster alone, as in arXiv:2412.04370, which uses 15 of them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import keras
from keras import layers

from pfcalib.errors import ConfigError
from pfcalib.models.bayes import N_MEMBERS, BayesianDense, member_dense
from pfcalib.models.blocks import BodyConfig, Tensor, build_inputs, join
from pfcalib.models.heads import finish


@dataclass(frozen=True, kw_only=True)
class MlpConfig(BodyConfig):
    """Fully connected layers on moments in quantile bins; widths are ours.

    With `bayesian` the hidden layers have Gaussian weights and no dropout; with the head "members"
    so many networks stand side by side.
    """

    widths: tuple[int, ...] = (256, 256, 128)
    with_moments: bool = True
    bayesian: bool = False
    n_members: int = N_MEMBERS

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.with_moments:
            raise ConfigError(f"{type(self).__name__}: with_moments = False leaves no moments")
        if self.bayesian and self.head == "members":
            raise ConfigError(f"{type(self).__name__}: members have no Gaussian weights")


def hidden_layers(x: Tensor, config: MlpConfig) -> Tensor:
    """Dense layers with swish, each followed by dropout; those of all members at once."""
    members = config.head == "members"
    if members:
        x = layers.RepeatVector(config.n_members, name="for_each_member")(x)
    for i, width in enumerate(config.widths):
        named: dict[str, Any] = {"activation": "swish", "name": f"dense{i}"}
        if members:
            x = member_dense(width, config.n_members, **named)(x)
        else:
            x = (BayesianDense if config.bayesian else layers.Dense)(width, **named)(x)
        if not config.bayesian:
            x = layers.Dropout(config.dropout, name=f"dropout{i}")(x)
    return x


def build_mlp(config: MlpConfig | None = None) -> keras.Model:
    """Untrained network on moments.

    Returns
    -------
    keras.Model
        Input "moments" (n, n_moments) float32, columns `features.scalars.MOMENT_COLUMNS` in
        physical units; output "p" (n, 2), softmax over [charged, neutral], or that of another head.
    """
    config = config or MlpConfig()
    inputs = build_inputs({}, config)
    features = hidden_layers(join([], inputs, config), config)
    return finish(inputs, features, head=config.head, n_components=config.n_components, name="mlp")
