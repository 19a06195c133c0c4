"""Which model a name means, told without loading it. Nothing here imports torch."""

import hashlib
import json
from pathlib import Path

from syncdiffusion.cost import Square
from syncdiffusion.errors import UsageError
from syncdiffusion.files import content_of

EMBEDDED = "embedded"  # the model id of the miniature that ships with the package
ABOUT = {"gate.json", "sampling.json", "words.txt"}  # files that tell of a model and are no part of it
EMBEDDED_FOLDER = Path(__file__).parents[1] / "weights" / "mini"


def find_model(model_id: str = EMBEDDED) -> Path | str:
    """The folder that `model_id` means, or the id itself where it is a hub repository.

    Raises:
        UsageError: no such folder, or a folder without a model.
    """
    if model_id != EMBEDDED and not Path(model_id).is_dir():
        if model_id.startswith((".", "/", "~")) or model_id.count("/") != 1:
            raise UsageError(
                f"backbone.model_id={model_id}: no such folder; give an existing one or a hub id such as owner/name"
            )
        return model_id
    folder = EMBEDDED_FOLDER if model_id == EMBEDDED else Path(model_id)
    if not (folder / "model_index.json").is_file():
        raise UsageError(f"backbone.model_id={model_id}: no model_index.json there; give a folder in diffusers' layout")
    return folder


def square_of(folder: Path) -> Square:
    """The square image that a folder's model was trained on, from its configurations alone.

    Raises:
        UsageError: they are missing or damaged.
    """
    try:
        unet = json.loads((folder / "unet" / "config.json").read_text(encoding="utf-8"))
        vae = json.loads((folder / "vae" / "config.json").read_text(encoding="utf-8"))
        stages = vae.get("block_out_channels") or vae["encoder_block_out_channels"]
        return Square(int(unet["sample_size"]), 2 ** (len(stages) - 1))
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise UsageError(
            f"backbone.model_id={folder}: no readable configuration ({error}); give a folder in diffusers' layout"
        ) from None


def fingerprint(model_id: str = EMBEDDED, revision: str | None = None) -> str:
    """Hash of a folder's files, "id@revision" for a hub repository; raises as `find_model` does."""
    source = find_model(model_id)
    return fingerprint_folder(source) if isinstance(source, Path) else f"{source}@{revision or 'main'}"


def fingerprint_folder(folder: Path) -> str:
    """Hash over the names and contents of a model folder's configurations and weights."""
    digest = hashlib.sha256()
    for path in sorted(folder.rglob("*")):
        if path.suffix in {".json", ".safetensors", ".txt", ".bin", ".pth"} and path.name not in ABOUT:
            digest.update(str(path.relative_to(folder)).encode() + b"\0")
            digest.update(bytes.fromhex(content_of(path)))
    return digest.hexdigest()[:16]
