"""``python -m pfcalib`` is the command ``pfcalib``."""

from pfcalib.cli import main

main()
