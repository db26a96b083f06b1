"""Samples: ROOT files with one entry a cluster, written, read, checked, split, selected and
balanced.
"""
