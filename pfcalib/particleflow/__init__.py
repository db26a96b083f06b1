"""Particle flow: tracks and clusters to charged and neutral objects and jets (arXiv:1703.10485).

Doors: `event` (what an event is), `files` (events of an MLTree file), `methods` (named ways to
subtract), `flow` (one event to objects), `stored` (objects in files, decisions made again),
`learned` (subtraction by a network), `jets`, `jetscale`.
"""
