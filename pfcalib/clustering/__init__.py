"""Topological clusters and their moments, after arXiv:1603.02934."""
