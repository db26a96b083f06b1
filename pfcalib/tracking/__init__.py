"""Tracks and vertices: toys of a barrel and of a beam line, and what finds tracks and vertices in
them.
"""
