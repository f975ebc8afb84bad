"""The errors that regauge raises on purpose.

Each message names the place, the reason and the way out, so that a caller may print it as it is. The class fixes the
exit code of the command line.
"""


class RegaugeError(Exception):
    """Any failure that regauge foresees. `exit_code` is what the command line returns for it."""

    exit_code = 2


class InputError(RegaugeError):
    """A file, an option or a model that cannot be read."""


class TraceError(InputError):
    """torch.export could not trace the model."""


class UnknownOperatorError(RegaugeError):
    """Operators of the graph have no rule; the message lists all of them."""

    exit_code = 3


class CheckError(RegaugeError):
    """A proof failed: the function changed, or the dimension is off."""

    exit_code = 1
