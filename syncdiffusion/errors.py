"""The one exception for mistakes that a user can make and mend."""


class UsageError(Exception):
    """A setting, a file or a folder that cannot be used.

    The message is one line that names the setting, its value and what would do; the command line
    prints it as it stands and exits with a non-zero status.
    """


def first_line(error: Exception) -> str:
    """The first line of what an error of a library says; its type where it says nothing.

    >>> first_line(ValueError("a\\nb")), first_line(KeyError())
    ('a', 'KeyError')
    """
    return (str(error).strip().splitlines() or [type(error).__name__])[0]


class ArgumentError(UsageError, ValueError):
    """The same from the diffusers pipeline, whose callers expect a ValueError of a bad argument."""
