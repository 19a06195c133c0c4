"""Options of commands: a mistake in one is one line."""

from __future__ import annotations

import argparse
from typing import NoReturn

from syncdiffusion.errors import UsageError


class Parser(argparse.ArgumentParser):
    """Says what is wrong in one line, as a UsageError."""

    def error(self, message: str) -> NoReturn:
        raise UsageError(f"{message}; --help shows all options")
