"""Files of the repository that lie beside the packages in a checkout and inside this one where it is installed."""

from __future__ import annotations

from pathlib import Path

PACKAGE = Path(__file__).parents[1]
CHECKOUT = PACKAGE.parent
# A folder of the repository -> its name in the installed package; setup.py puts them there.
SHIPPED = {"conf": "conf", "results/published": "published"}


def shipped(folder: str) -> Path:
    """Where a folder of SHIPPED is, in a checkout or installed."""
    installed = PACKAGE / SHIPPED[folder]
    return installed if installed.is_dir() else CHECKOUT / folder
