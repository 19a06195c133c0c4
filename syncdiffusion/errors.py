"""The one exception for mistakes that a user can make and mend."""


class UsageError(Exception):
    """A setting, a file or a folder that cannot be used.

    The message is one line that names the setting, its value and what would do; the command line
    prints it as it stands and exits with a non-zero status.
    """


class ArgumentError(UsageError, ValueError):
    """The same from the diffusers pipeline, whose callers expect a ValueError of a bad argument."""
