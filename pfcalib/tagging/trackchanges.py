"""Jets as they would be with other tracks: fewer, otherwise ordered, worse measured, with the signs
of their impact parameters turned.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from pfcalib.errors import ConfigError
from pfcalib.tagging.tagdata import COLUMN, TagData

# impact parameters and their significances, which bear the sign of the lifetime
IMPACT = {
    "d0": "lifetimeSignedD0Significance",
    "z0SinTheta": "lifetimeSignedZ0SinThetaSignificance",
}
ORDERS = ("significance", "momentum", "chance")


def limit_tracks(data: TagData, n_tracks: int) -> TagData:
    """The first tracks of each jet only."""
    place = np.arange(len(data.tracks)) - np.repeat(data.offsets[:-1], data.n_tracks)
    return data.keep_tracks(place < n_tracks)


def order_tracks(data: TagData, order: str, *, rng: np.random.Generator) -> TagData:
    """Tracks by falling size of the significance in d0, by falling momentum, or by chance.

    Raises
    ------
    ConfigError
        If the order is none of ORDERS.
    """
    if order not in ORDERS:
        raise ConfigError(f"order {order!r}: expected one of {', '.join(ORDERS)}")
    keys: dict[str, NDArray[np.floating]] = {
        "significance": -np.abs(data.tracks[:, COLUMN["lifetimeSignedD0Significance"]]),
        "momentum": np.abs(data.tracks[:, COLUMN["qOverP"]]),
        "chance": rng.random(len(data.tracks)),
    }
    return data.order_tracks(keys[order])


def flip_signs(data: TagData) -> TagData:
    """Impact parameters with the other sign of the lifetime: what is left of a tagger is what it
    makes of resolution and of all else.
    """
    tracks = data.tracks.copy()
    tracks[:, [COLUMN[name] for name in IMPACT.values()]] *= -1.0
    return data._replace(tracks=tracks)


def smear_impact(data: TagData, factor: float, *, rng: np.random.Generator) -> TagData:
    """Impact parameters measured worse by a factor, with the errors told as before; tracks are then
    ordered anew.

    Raises
    ------
    ConfigError
        If the factor is below 1.
    """
    if factor < 1.0:
        raise ConfigError(f"factor = {factor}: expected 1 or above")
    tracks = data.tracks.copy()
    for name, significance in IMPACT.items():
        value, pull = (tracks[:, COLUMN[column]] for column in (name, significance))
        away = np.maximum(np.abs(value), 1e-9)
        sigma = away / np.maximum(np.abs(pull), 1e-6)
        side = np.where(value * pull < 0.0, -1.0, 1.0)  # of the lifetime to the geometric sign
        worse = value + np.sqrt(factor**2 - 1.0) * sigma * rng.standard_normal(len(value))
        tracks[:, COLUMN[name]], tracks[:, COLUMN[significance]] = worse, side * worse / sigma
    return order_tracks(data._replace(tracks=tracks), "significance", rng=rng)


def lose_tracks(data: TagData, share: float, *, rng: np.random.Generator) -> TagData:
    """Without a share of the tracks, whichever."""
    return data.keep_tracks(rng.random(len(data.tracks)) >= share)


def without_each(data: TagData) -> TagData:
    """For each track of all jets in turn its jet without it, (n_tracks,) jets."""
    copies = data.take(data.jet_of)
    place = np.arange(len(data.tracks)) - np.repeat(data.offsets[:-1], data.n_tracks)
    kept = np.ones(len(copies.tracks), dtype=bool)
    kept[copies.offsets[:-1] + place] = False
    return copies.keep_tracks(kept)
