"""Child processes that do not outlive their parent."""

import ctypes
import signal

_PR_SET_PDEATHSIG = 1
# Looked up here: between fork and exec a child must not load anything.
_prctl = ctypes.CDLL(None).prctl


def die_with_parent() -> None:
    """Ask Linux to send this process SIGTERM when its parent is gone, however the parent ended.

    For ``preexec_fn`` of `subprocess.Popen`. Linux means the parent's *thread*: start such a child from a thread that
    lives as long as the child should.
    """
    _prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)
