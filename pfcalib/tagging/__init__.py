"""Flavour of jets: jets with tracks, taggers made by hand and networks on tracks."""
