"""A network on the moments of a cluster alone, as in arXiv:2412.04370, which uses 15 of them."""

from __future__ import annotations

from dataclasses import dataclass

import keras
from keras import layers

from pfcalib.errors import ConfigError
from pfcalib.models.blocks import BodyConfig, Tensor, build_inputs, join
from pfcalib.models.heads import finish


@dataclass(frozen=True, kw_only=True)
class MlpConfig(BodyConfig):
    """Fully connected layers on moments in quantile bins; widths are ours."""

    widths: tuple[int, ...] = (256, 256, 128)
    with_moments: bool = True

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.with_moments:
            raise ConfigError(f"{type(self).__name__}: with_moments = False leaves no moments")


def hidden_layers(x: Tensor, config: MlpConfig) -> Tensor:
    """Dense layers with swish, each followed by dropout."""
    for i, width in enumerate(config.widths):
        x = layers.Dense(width, activation="swish", name=f"dense{i}")(x)
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
