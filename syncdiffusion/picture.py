"""A panorama as a PNG that carries everything it was made with, written whole and never lost."""

from __future__ import annotations

import io
import json
import os
import tempfile
from collections.abc import Mapping
from dataclasses import asdict
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any

from syncdiffusion import __version__
from syncdiffusion.errors import UsageError
from syncdiffusion.files import by_content
from syncdiffusion.settings import facts_of

if TYPE_CHECKING:
    from torch import Tensor

    from syncdiffusion.backbones.backbone import Backbone
    from syncdiffusion.method import Method

RECORD = "syncdiffusion"  # the PNG's text that holds the record
LIBRARIES = ("torch", "diffusers", "transformers", "numpy", "pillow")  # their versions are recorded


def record_of(method: Method, settings: Any, backbone: Backbone, prompt: str, seed: int) -> dict[str, Any]:
    """Everything that the panorama follows from, as plain JSON values."""
    return {
        "software": f"syncdiffusion {__version__}",
        "method": method.name,
        "prompt": prompt,
        "seed": seed,
        "settings": by_content(asdict(settings), facts_of(type(settings))),
        "model": {
            "id": backbone.model_id,
            "revision": backbone.revision,
            "fingerprint": backbone.fingerprint,
            **({"adapters": backbone.adapters} if backbone.adapters else {}),
        },
        "precision": backbone.precision,
        "execution": backbone.execution,
        "device": str(backbone.device),
        "versions": {name: metadata.version(name) for name in LIBRARIES},
    }


def read_record(path: Path) -> dict[str, Any]:
    """What a panorama of the command `syncdiffusion` was made with.

    Raises:
        UsageError: no such picture, or one of another origin.
    """
    from PIL import Image, UnidentifiedImageError

    try:
        with Image.open(path) as picture:
            text = picture.info[RECORD]
        return json.loads(text)
    except (OSError, UnidentifiedImageError, KeyError, TypeError, ValueError):
        raise UsageError(f"{path}: not a panorama that this command made; give one") from None


def png_with_record(image: Tensor, record: Mapping[str, Any]) -> bytes:
    """PNG of an image [3, h, w] in [0, 1], rounded to 8 bits, that carries its record."""
    from PIL import Image
    from PIL.PngImagePlugin import PngInfo

    pixels = (image * 255).round().byte().permute(1, 2, 0).contiguous().numpy()
    texts = PngInfo()
    texts.add_itxt(RECORD, json.dumps(record, ensure_ascii=False))
    texts.add_text("Software", record["software"])
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, format="PNG", pnginfo=texts)
    return buffer.getvalue()


def check_out(out: Path, force: bool) -> None:
    """Refuse, before the work, a file that is there already or cannot be written; makes its folder.

    Raises:
        UsageError: names the file and what would do.
    """
    if out.suffix.lower() != ".png":
        raise UsageError(f"--out {out}: the picture is a PNG; give a name that ends in .png")
    try:
        if out.is_dir():
            raise UsageError(f"--out {out}: is a folder; give a file in it")
        if out.exists() and not force:
            raise UsageError(f"--out {out}: exists already; give another name, or --force to overwrite it")
        out.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=out.parent):
            pass
    except OSError as error:
        reason = "Not a directory" if isinstance(error, FileExistsError) else error.strerror
        raise UsageError(f"--out {out}: cannot be written ({reason}); give another place") from None


def save(content: bytes, out: Path, force: bool) -> Path:
    """Write the picture whole, and lose it in no case; returns where it is.

    A name that was taken meanwhile gets a number. Where `out` cannot be written after all, the picture goes into the
    system's temporary folder.

    Raises:
        UsageError: it could not be written to `out`; says where it is instead.
    """
    free = out
    number = 2
    while free.exists() and not force:
        free, number = out.with_stem(f"{out.stem}-{number}"), number + 1
    try:
        with tempfile.NamedTemporaryFile(dir=out.parent, suffix=".png", delete=False) as file:
            try:
                file.write(content)
                file.flush()
                os.chmod(file.name, 0o666 & ~_umask())
                os.replace(file.name, free)
            except BaseException:
                os.unlink(file.name)
                raise
    except OSError as error:
        with tempfile.NamedTemporaryFile(prefix=f"{out.stem}-", suffix=".png", delete=False) as file:
            file.write(content)
        raise UsageError(f"--out {out}: cannot be written ({error.strerror}); the panorama is {file.name}") from None
    return free


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask
