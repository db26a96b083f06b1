"""The flat network: all pixels side by side through fully connected layers (ATL-PHYS-PUB-2020-018,
section 4).
"""

from __future__ import annotations

from dataclasses import dataclass

import keras
from keras import layers

from pfcalib.features.images import N_PIXELS
from pfcalib.models.blocks import BodyConfig, build_inputs, compress, join
from pfcalib.models.heads import finish


@dataclass(frozen=True, kw_only=True)
class DnnConfig(BodyConfig):
    """Flat network of N pixels; without widths the published N -> N -> N/2 hidden units behind N
    inputs.
    """

    n_pixels: int = N_PIXELS  # 936, all six layers; 512 for EMB1 alone
    widths: tuple[int, ...] | None = None
    # they join the pixels, as in the published regression, not before the last hidden layer
    scalars_first: bool = False

    @property
    def hidden(self) -> tuple[int, ...]:
        """Units of the hidden layers."""
        n = self.n_pixels
        return (n, n, max(n // 2, 1)) if self.widths is None else tuple(self.widths)


def build_dnn(config: DnnConfig | None = None) -> keras.Model:
    """Untrained flat network.

    Returns
    -------
    keras.Model
        Input "pixels" (n, n_pixels) float32, energy over that of the cluster; output "p" (n, 2),
        softmax over [charged, neutral], or that of another head.
    """
    config = config or DnnConfig()
    inputs = build_inputs({"pixels": (config.n_pixels,)}, config)
    x = compress(inputs["pixels"], power=config.pixel_power, name="pixels")
    for i, width in enumerate(config.hidden):
        if i == (0 if config.scalars_first else len(config.hidden) - 1):
            x = join([x], inputs, config)
        x = layers.Dense(width, activation="relu", name=f"dense{i}")(x)
        x = layers.Dropout(config.dropout, name=f"dropout{i}")(x)
    return finish(inputs, x, head=config.head, n_components=config.n_components, name="dnn")
