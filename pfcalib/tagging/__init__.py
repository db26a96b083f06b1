"""Flavour tagging: jets with tracks and the files of the field, impact parameters, vertices."""
