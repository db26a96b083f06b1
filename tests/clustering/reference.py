"""Topological clustering in dictionaries and sets: slow, obvious, and written without a look at the
kernels.
"""

from __future__ import annotations

import math
from collections import defaultdict
from functools import cache


def _geometry(grid, cell):
    return (int(grid.sampling[cell]), float(grid.eta[cell]), float(grid.phi[cell]))


@cache
def _neighbours(grid):
    indptr, indices = grid.neighbours
    return [set(indices[indptr[cell] : indptr[cell + 1]].tolist()) for cell in range(grid.n_cells)]


def _falling(cells, value, grid):
    return sorted(cells, key=lambda cell: (-value[cell], _geometry(grid, cell)))


def find_parents(energy, sigma, grid, config):
    """Sets of cells before splitting: components of the cells above growth that hold a seed, and
    the boundary cells they reach first.
    """
    near = _neighbours(grid)
    significance = {cell: abs(energy[cell]) / sigma[cell] for cell in range(grid.n_cells)}
    growing = {cell for cell in significance if significance[cell] > config.growth}
    generation = {}
    component = {}
    for seed in _falling(
        [cell for cell in growing if significance[cell] > config.seed], significance, grid
    ):
        if seed in component:
            continue
        component[seed], open_cells = seed, [seed]
        while open_cells:
            for other in near[open_cells.pop()] & growing:
                if other not in component:
                    component[other] = seed
                    open_cells.append(other)
    step, front = 0, {cell for cell in growing if significance[cell] > config.seed}
    while front:
        generation.update(dict.fromkeys(front, step))
        step, front = (
            step + 1,
            {other for cell in front for other in near[cell] & growing if other not in generation},
        )
    parents = defaultdict(set)
    for cell, seed in component.items():
        parents[seed].add(cell)
    for cell in significance:
        reached_by = near[cell] & component.keys()
        if cell not in component and significance[cell] > config.boundary and reached_by:
            first = min(
                reached_by,
                key=lambda other: (generation[other], -significance[other], _geometry(grid, other)),
            )
            parents[component[first]].add(cell)
    return list(parents.values())


def find_maxima(parent, energy, grid, config):
    """Local maxima of a parent, falling in energy."""
    near = _neighbours(grid)
    names = [layer.name for layer in grid.layers]

    def is_maximum(cell):
        inside = near[cell] & parent
        lower = all(_falling([cell, other], energy, grid)[0] == cell for other in inside)
        return (
            energy[cell] > config.maximum_energy
            and len(inside) >= config.maximum_neighbours
            and lower
        )

    def overlap(a, b):
        d_phi = abs(math.remainder(grid.phi[a] - grid.phi[b], 2 * math.pi))
        in_phi = d_phi < 0.5 * (grid.d_phi[a] + grid.d_phi[b]) - 1e-7
        return (
            in_phi and abs(grid.eta[a] - grid.eta[b]) < 0.5 * (grid.d_eta[a] + grid.d_eta[b]) - 1e-7
        )

    found = [cell for cell in parent if is_maximum(cell)]
    primary = [cell for cell in found if names[grid.layer[cell]] in config.primary]
    secondary = [cell for cell in found if names[grid.layer[cell]] in config.secondary]
    return _falling(
        primary
        + [cell for cell in secondary if not any(overlap(cell, other) for other in primary)],
        energy,
        grid,
    )


def split_parent(parent, energy, grid, config):
    """Clusters {cell: weight} of one parent."""
    maxima = find_maxima(parent, energy, grid, config) if config.split else []
    if len(maxima) < 2:
        return [dict.fromkeys(parent, 1.0)]
    near = _neighbours(grid)
    owners = {cell: (i,) for i, cell in enumerate(maxima)}
    front, shared = maxima, []
    while front:
        reached = defaultdict(list)
        for cell in front:
            for other in (near[cell] & parent) - owners.keys():
                if owners[cell][0] not in reached[other]:
                    reached[other].append(owners[cell][0])
        owners.update({cell: tuple(by[: 2 if config.share else 1]) for cell, by in reached.items()})
        shared += _falling([cell for cell in reached if len(owners[cell]) == 2], energy, grid)
        front = _falling([cell for cell in reached if len(owners[cell]) == 1], energy, grid)
    while shared:
        reached = {}
        for cell in shared:
            for other in (near[cell] & parent) - owners.keys():
                reached.setdefault(other, owners[cell])
        owners.update(reached)
        shared = _falling(reached, energy, grid)
    return _weigh(owners, len(maxima), energy, grid)


def _weigh(owners, n_clusters, energy, grid):
    def position(cell):
        r, eta, phi = grid.r[cell], grid.eta[cell], grid.phi[cell]
        return (r * math.cos(phi), r * math.sin(phi), r * math.sinh(eta))

    alone = [[cell for cell, by in owners.items() if by == (i,)] for i in range(n_clusters)]
    size = [sum(energy[cell] for cell in cells) for cells in alone]
    size = [e if e > 0 else 0.001 for e in size]
    centre = []
    for cells in alone:
        total = sum(abs(energy[cell]) for cell in cells)
        centre.append(
            [
                sum(abs(energy[cell]) * position(cell)[axis] for cell in cells) / total
                for axis in range(3)
            ]
        )
    clusters = [dict.fromkeys(cells, 1.0) for cells in alone]
    for cell, by in owners.items():
        if len(by) == 2:
            one, two = by
            exponent = (
                math.dist(position(cell), centre[one]) - math.dist(position(cell), centre[two])
            ) / 50.0
            r = math.exp(max(-10.0, min(10.0, exponent)))
            clusters[one][cell] = size[one] / (size[one] + r * size[two])
            clusters[two][cell] = 1.0 - clusters[one][cell]
    return clusters


def reference_clusters(energy, sigma, grid, config):
    """Clusters {cell: weight} of one event, falling in energy."""
    clusters = [
        cluster
        for parent in find_parents(energy, sigma, grid, config)
        for cluster in split_parent(parent, energy, grid, config)
    ]
    return sorted(
        clusters,
        key=lambda cluster: -sum(weight * energy[cell] for cell, weight in cluster.items()),
    )
