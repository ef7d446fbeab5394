"""Whether a process that a test has left behind ends."""

import time


def ends(pid, seconds):
    """Wait until the process is gone, or dead and not yet collected; False: it runs on after so many seconds."""
    until = time.monotonic() + seconds
    while _is_running(pid):
        if time.monotonic() > until:
            return False
        time.sleep(0.02)
    return True


def _is_running(pid):
    try:
        with open(f"/proc/{pid}/stat") as file:
            return file.read().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False
