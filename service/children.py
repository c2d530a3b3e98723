"""Child processes that do not outlive their parent."""

import ctypes
import os
import signal
from collections.abc import Callable

_PR_SET_PDEATHSIG = 1
# Looked up here: between fork and exec a child must not load anything.
_prctl = ctypes.CDLL(None).prctl


def dying_with_parent() -> Callable[[], None]:
    """Make the ``preexec_fn`` for `subprocess.Popen` of a child that must not outlive this process.

    Linux sends the child SIGTERM when its parent is gone, however the parent ended. It means the parent's *thread*:
    start such a child from a thread that lives as long as the child should.
    """
    parent = os.getpid()

    def set_signal() -> None:
        _prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)
        if os.getppid() != parent:  # it was gone before it could be said
            os.kill(os.getpid(), signal.SIGTERM)

    return set_signal
