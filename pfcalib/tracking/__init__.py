"""Tracks and vertices: toys of a barrel, of planes across the beam and of a beam line, and what
finds tracks and vertices in them.
"""
