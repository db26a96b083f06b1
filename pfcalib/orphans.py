"""Worker processes end when the process that started them is gone, even if it was killed.

Those of `concurrent.futures` and `multiprocessing` would wait for work for ever: each holds both
ends of the queue from which it takes it.
"""

from __future__ import annotations

import os
import sys
import threading
import time


def end_with_parent() -> None:
    """In a process that `multiprocessing` has started, watch its parent and end with it."""
    multiprocessing = sys.modules.get("multiprocessing")  # loaded in every such process
    if multiprocessing is None:
        return
    starting = "--multiprocessing-fork" in sys.orig_argv  # it does not know its parent yet
    if not starting and multiprocessing.parent_process() is None:
        return

    def watch() -> None:
        while (parent := multiprocessing.parent_process()) is None:
            time.sleep(0.1)
        parent.join()
        os._exit(1)

    threading.Thread(target=watch, name="end_with_parent", daemon=True).start()
