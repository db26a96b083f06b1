"""Normalisation of feature tables: mean and width of the training clusters, fitted once, kept as
readable JSON.
"""

from __future__ import annotations

import dataclasses
import json
import os
import uuid
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import ArrayLike, NDArray

from pfcalib.errors import BadFileError, ValidationError


@dataclasses.dataclass(frozen=True)
class Normalisation:
    """(x - mean) / scale for each feature.

    Parameters
    ----------
    names : tuple of str
        Features, in the order of the columns.
    mean, scale : tuple of float
        One of each a feature; the scale is positive.
    """

    names: tuple[str, ...]
    mean: tuple[float, ...]
    scale: tuple[float, ...]

    def __post_init__(self) -> None:
        if not len(self.names) == len(self.mean) == len(self.scale):
            raise ValidationError(
                f"normalisation of {len(self.names)} features has {len(self.mean)} means and "
                f"{len(self.scale)} scales"
            )
        for name, mean, scale in zip(self.names, self.mean, self.scale, strict=True):
            if not (np.isfinite(mean) and np.isfinite(scale) and scale > 0.0):
                raise ValidationError(
                    f"normalisation of {name}: mean {mean} and scale {scale} must be finite, the "
                    "scale positive"
                )

    def __call__(self, table: ArrayLike) -> NDArray[np.float32]:
        """Normalised features, shape (n, n_features)."""
        x = np.asarray(table, dtype=np.float64)
        if x.ndim != 2 or x.shape[1] != len(self.names):
            raise ValidationError(
                f"a table of {len(self.names)} features must have shape (n, {len(self.names)}), "
                f"got {x.shape}"
            )
        return ((x - self.mean) / self.scale).astype(np.float32)

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write as JSON, under a temporary name first."""
        path = Path(path)
        temporary = path.with_name(f".{path.name}.{uuid.uuid4().hex[:8]}.tmp")
        temporary.write_text(
            json.dumps(dataclasses.asdict(self), indent=2) + "\n", encoding="utf-8"
        )
        temporary.replace(path)

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> Normalisation:
        """Read what `save` wrote.

        Raises
        ------
        BadFileError
            If the file is missing or holds anything else.
        """
        try:
            fields = json.loads(Path(path).read_text(encoding="utf-8"))
            return cls(
                **{name: tuple(fields.pop(name)) for name in ("names", "mean", "scale")}, **fields
            )
        except (OSError, ValueError, KeyError, TypeError, AttributeError, ValidationError) as error:
            raise BadFileError(f"{path}: not a normalisation: {error}") from error


def fit_normalisation(
    table: ArrayLike, names: Sequence[str], *, train: NDArray[np.bool_]
) -> Normalisation:
    """Mean and standard deviation of the training clusters; a feature that does not vary has scale
    1.

    Parameters
    ----------
    table : array_like, shape (n, n_features)
    names : sequence of str
    train : array of bool, shape (n,)
        True for the clusters of the training split (`split_of(event) == 0`); no other is looked at.

    Raises
    ------
    ValidationError
        If no cluster is left, or a value of the training split is not finite.
    """
    chosen = np.asarray(table, dtype=np.float64)[np.asarray(train, dtype=bool)]
    if not len(chosen):
        raise ValidationError("there is no training cluster to fit a normalisation to")
    bad = np.flatnonzero(~np.isfinite(chosen).all(axis=0))
    if len(bad):
        raise ValidationError(f"{names[bad[0]]} is not finite in the training split")
    width = chosen.std(axis=0)
    scale = np.where(width > 1e-9 * np.maximum(np.abs(chosen.mean(axis=0)), 1.0), width, 1.0)
    return Normalisation(tuple(names), tuple(chosen.mean(axis=0).tolist()), tuple(scale.tolist()))
