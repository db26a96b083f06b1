"""Machinery of single studies, each imported by its own notebook only; what a second one needs
belongs to a room of pfcalib.
"""

import pfcalib  # noqa: F401  # first, as it keeps TensorFlow's log silent
