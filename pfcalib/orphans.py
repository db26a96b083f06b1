"""Worker processes end when the process that started them is gone, even if it was killed.

Those of `concurrent.futures` and `multiprocessing` would wait for work for ever: each holds both
ends of the queue from which it takes it.
"""

from __future__ import annotations

import os
import sys
import threading


def end_with_parent() -> None:
    """In a process that `multiprocessing` has started, watch its parent and end with it."""
    multiprocessing = sys.modules.get("multiprocessing")  # loaded in every such process
    parent = multiprocessing.parent_process() if multiprocessing else None
    if parent is None:
        return

    def watch() -> None:
        parent.join()
        os._exit(1)

    threading.Thread(target=watch, name="end_with_parent", daemon=True).start()
