"""Files that settings name (`Facts.file`): keys and records hold what is in them, not where they lie.

torch is imported where a tensor is asked for.
"""

from __future__ import annotations

import functools
import hashlib
import os
import pickle
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from syncdiffusion.errors import UsageError
from syncdiffusion.settings import Facts, each_of, facts_of

if TYPE_CHECKING:
    import torch
    from PIL.Image import Image
    from torch import Tensor


WEIGHTS = Path(__file__).parent / "weights"
EMBEDDED = "embedded"  # stands for what ships with the package: the miniature, or its ControlNet
EMBEDDED_CONTROLNET = WEIGHTS / "mini_control"
ABOUT = {"gate.json", "sampling.json", "words.txt", "README.md"}  # files that tell of a model and are no part of it


def content_of(path: Path) -> str:
    """SHA-256 of a file in hexadecimal, which a process reads once until it changes; OSError where it cannot be."""
    stat = path.stat()
    return _content_of(path.absolute(), stat.st_size, stat.st_mtime_ns, stat.st_ino)


@functools.cache
def _content_of(path: Path, *version: int) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def read_pickled(path: Path, device: torch.device | str = "cpu") -> Any:
    """What a file that PyTorch wrote holds, tensors and plain containers of them alone unpacked.

    Raises:
        OSError: it cannot be read.
        ValueError: it is no such file, or holds more than weights.
    """
    import torch

    try:
        return torch.load(path, map_location=device, weights_only=True)
    except OSError:
        raise
    except pickle.UnpicklingError:
        raise ValueError("holds more than weights, or none; it is not opened") from None
    except Exception:  # the unpickler takes any bytes for its instructions, and fails in as many ways
        raise ValueError("holds no weights") from None


def place_of(value: str | Path) -> Path:
    """Where the file of a setting lies; `~` is the user's home. Of a user who is not known the name stays as it is."""
    return Path(os.path.expanduser(value))  # Path.expanduser fails there


def controlnet_place(value: str) -> Path:
    """The folder of a ControlNet; one that is not there may be a hub id."""
    return EMBEDDED_CONTROLNET if value == EMBEDDED else place_of(value)


def of_hubs_form(name: str) -> bool:
    """Whether a name is of the form owner/name, as hub repositories have it, and of no other path's."""
    return name.count("/") == 1 and not name.startswith((".", "/", "~"))


def by_content(settings: Mapping[str, Any], facts: Mapping[str, Facts]) -> dict[str, Any]:
    """Settings with `{"name", "sha256"}` in place of every path, as records hold them.

    Raises:
        UsageError: a file that cannot be read.
    """
    return {
        name: _told(name, value, facts[name]) if facts[name].file and value is not None else value
        for name, value in settings.items()
    }


def contents(told: Any) -> Any:
    """What `by_content` tells of a setting, as a key holds it: digests alone."""
    if isinstance(told, list):
        return list(map(contents, told))
    return told["sha256"] if isinstance(told, dict) else told


def _told(name: str, value: Any, facts: Facts) -> Any:
    """Name and digest of a file; of a list, as many of them."""
    if isinstance(value, list | tuple):
        return [_told(name, each, facts) for each in value]
    path = place_of(value)
    shown = path.name.encode(errors="surrogateescape").decode(errors="replace")  # a record is UTF-8, names need not be
    try:
        if facts.names is None:
            return {"name": shown, "sha256": content_of(path)}
        files = facts.names(value)
        if files is None:
            from syncdiffusion.hub import pinned  # which looks at weight files

            return pinned(value)
        # Of several files that together say something: what is in each, in their order.
        digests = "\n".join(map(content_of, files))
        return {"name": shown, "sha256": hashlib.sha256(digests.encode()).hexdigest()}
    except OSError as error:
        raise _unreadable(name, value if facts.names is None else error.filename, error) from None


def check_files(settings: Any) -> None:
    """Refuse, before the work, a file that is not there, and one that is no picture where one is wanted.

    Raises:
        UsageError: names the setting, its value and what would do.
    """
    for name, facts in facts_of(type(settings)).items():
        value = getattr(settings, name)
        if facts.file and value is not None:
            for each in each_of(value):
                if facts.picture:
                    open_picture(name, each)
                else:
                    _told(name, each, facts)


def open_picture(name: str, value: str, opaque: bool = False) -> Image:
    """The picture in the file `value` of the setting `name`: RGB, upright; what is transparent keeps its colour.

    opaque: refuse what is transparent.

    Raises:
        UsageError: there is no such file, or it is no picture, or not a whole one.
    """
    from PIL import Image, ImageOps

    path = place_of(value)
    try:
        data = path.open("rb")
    except OSError as error:
        raise _unreadable(name, value, error) from None
    with data:
        try:
            with Image.open(data) as picture:
                if opaque and picture.has_transparency_data:
                    raise UsageError(
                        f"{name}={value}: is transparent ({picture.mode}); save it in black and white alone"
                    )
                return _of_8_bits(name, value, ImageOps.exif_transpose(picture)).convert("RGB")
        except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
            reason = " ".join(str(error).split()).replace(repr(data), "it")
            raise UsageError(f"{name}={value}: is no picture ({reason}); give a PNG or a JPEG") from None


def _of_8_bits(name: str, value: str, picture: Image) -> Image:
    """The picture itself, or of 16 bits in greyscale its upper 8, where Pillow would cut all that is above 255."""
    if picture.mode.startswith("I;16"):
        import numpy as np
        from PIL import Image

        return Image.fromarray((np.asarray(picture.convert("I")) / 257).round().astype(np.uint8))
    if picture.mode in ("I", "F"):
        raise UsageError(f"{name}={value}: has {picture.mode} numbers of 32 bits for pixels; save it in 8 or 16 bits")
    return picture


def pixels_of(picture: Image, device: torch.device | str, dtype: torch.dtype) -> Tensor:
    """The pixels of an RGB picture, [3, height, width] in [0, 1]."""
    import numpy as np
    import torch

    return torch.from_numpy(np.array(picture)).permute(2, 0, 1).to(device, dtype) / 255


def _unreadable(name: str, value: str, error: OSError) -> UsageError:
    if isinstance(error, FileNotFoundError):
        return UsageError(f"{name}={value}: no such file; give one that is there")
    return UsageError(f"{name}={value}: cannot be read ({error.strerror}); give a file")
