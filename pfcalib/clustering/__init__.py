"""Topological clusters and their moments, after arXiv:1603.02934."""

from pfcalib.clustering.moments import cluster_moments
from pfcalib.clustering.topo import Clusters, TopoConfig, find_clusters

__all__ = ["Clusters", "TopoConfig", "cluster_moments", "find_clusters"]
