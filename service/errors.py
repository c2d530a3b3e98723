"""The two ways a command can fail. Both are shown as one line, never as a traceback."""


class StemstreamError(Exception):
    """Base of the errors that a person is shown. ``exit_code`` is the command's."""

    exit_code = 1


class FaultError(StemstreamError):
    """Something broke: a restart may help (exit code 1)."""

    exit_code = 1


class InputError(StemstreamError):
    """Wrong settings or input: a restart does not help (exit code 2)."""

    exit_code = 2
