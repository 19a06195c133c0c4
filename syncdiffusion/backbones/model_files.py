"""Which model a name means, told without loading it. Nothing here imports torch."""

import hashlib
import json
import re
from pathlib import Path
from typing import Any

from syncdiffusion.backbones.adapters import NO_ADAPTERS, Adapters
from syncdiffusion.cost import Square
from syncdiffusion.errors import UsageError
from syncdiffusion.files import ABOUT, EMBEDDED, WEIGHTS, content_of, of_hubs_form
from syncdiffusion.hub import commit_of

EMBEDDED_FOLDER = WEIGHTS / "mini"


# The classes that each part of a model may have, by the names of model_index.json.
PARTS = {
    "tokenizer": (),  # any
    "text_encoder": ("CLIPTextModel",),
    "unet": ("UNet2DConditionModel",),
    "vae": ("AutoencoderKL", "AutoencoderTiny"),
    "scheduler": (),  # any: sampling is DDIM with its schedule
}
SECOND_PARTS = {"tokenizer_2": (), "text_encoder_2": ("CLIPTextModelWithProjection",)}  # of Stable Diffusion XL
NETWORKS = ("text_encoder", "text_encoder_2", "unet", "vae")
WEIGHT_FILES = r"(?:diffusion_)?(?:pytorch_)?model(?:\.(?P<variant>\w+))?(?:-\d+-of-\d+)?"


def find_model(model_id: str = EMBEDDED) -> Path | str:
    """The folder or file that `model_id` means, or the id itself where it is a hub repository.

    Raises:
        UsageError: no such folder, a folder without a model, a file without its configurations.
    """
    try:
        is_file = Path(model_id).is_file()
    except OSError as error:  # a name that is too long, a folder that may not be entered
        raise UsageError(
            f"backbone.model_id={model_id}: cannot be read ({error.strerror}); give a folder or a hub id"
        ) from None
    if is_file:
        return _find_file(model_id)
    if model_id != EMBEDDED and not Path(model_id).is_dir():
        if not of_hubs_form(model_id):
            raise UsageError(
                f"backbone.model_id={model_id}: no such folder; give an existing one or a hub id such as owner/name"
            )
        return model_id
    folder = EMBEDDED_FOLDER if model_id == EMBEDDED else Path(model_id)
    if not (folder / "model_index.json").is_file():
        raise UsageError(f"backbone.model_id={model_id}: no model_index.json there; give a folder in diffusers' layout")
    return folder


def _find_file(model_id: str) -> Path:
    """A checkpoint in one file; UsageError where it is of another kind, or its configurations are not there."""
    file = Path(model_id)
    if file.suffix != ".safetensors":
        raise UsageError(
            f"backbone.model_id={model_id}: is no .safetensors file; convert it, safetensors.torch.save_file of "
            "torch.load(FILE, weights_only=True)['state_dict'], or give a folder in diffusers' layout"
        )
    if not (configurations(file) / "model_index.json").is_file():
        raise UsageError(
            f"backbone.model_id={model_id}: a file of weights alone; put model_index.json and the configurations, "
            f"tokenizer and scheduler of its kind of model, as its hub repository has them, into {configurations(file)}"
        )
    return file


def configurations(source: Path) -> Path:
    """The folder that holds a model's configurations: its own, or the one named like a file, without the suffix."""
    return source.with_suffix("") if source.is_file() else source


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


def fingerprint(model_id: str = EMBEDDED, revision: str | None = None, adapters: Adapters = NO_ADAPTERS) -> str:
    """Hash of a folder's or a file's content, "id@commit" for a hub repository; raises as `find_model` does.

    With adapters a hash of that and of their content; raises as `Adapters.record` does.
    """
    source = find_model(model_id)
    if isinstance(source, str):
        return adapters.on(f"{source}@{commit_of(source, revision)}")
    told = fingerprint_folder(configurations(source))
    if source.is_file():
        told = hashlib.sha256((told + content_of(source)).encode()).hexdigest()[:16]
    return adapters.on(told)


def fingerprint_folder(folder: Path) -> str:
    """Hash over the names and contents of a model folder's configurations and weights."""
    digest = hashlib.sha256()
    for path in sorted(folder.rglob("*")):
        if path.suffix in {".json", ".safetensors", ".txt", ".bin", ".pth"} and path.name not in ABOUT:
            digest.update(str(path.relative_to(folder)).encode() + b"\0")
            digest.update(bytes.fromhex(content_of(path)))
    return digest.hexdigest()[:16]


def has_second_text_encoder(index: Any) -> bool:
    """Whether a model_index.json is one of Stable Diffusion XL's kind."""
    found = index.get("text_encoder_2") if isinstance(index, dict) else None
    return isinstance(found, list | tuple) and found[-1] is not None


def check_parts(index: Any, shown: str) -> None:
    """Refuse a model that is of neither Stable Diffusion's nor SDXL's kind, by what its model_index.json says.

    Raises:
        UsageError: a part that is missing or of another class.
    """
    index = index if isinstance(index, dict) else {}
    for part, classes in (PARTS | (SECOND_PARTS if has_second_text_encoder(index) else {})).items():
        found = index.get(part)
        name = found[1] if isinstance(found, list | tuple) and len(found) == 2 else None
        if name is None or (classes and name not in classes):
            needed = f"a {' or '.join(classes)}" if classes else "one"
            what = "its model_index.json names no" if name is None else f"is a {name}, its"
            raise UsageError(
                f"backbone.model_id={shown}: {what} {part}; give a model of Stable Diffusion's kind, with {needed}"
            )


def weight_files(part: Path) -> dict[str, Any]:
    """The options by which diffusers and transformers find the weights in a part's folder.

    Safetensors in full precision before those of a variant (half precision: model.fp16.safetensors), and any of them
    before PyTorch's .bin files, which both libraries open with weights_only=True.
    """
    for suffix, safe in (("safetensors", True), ("bin", False)):
        matches = [re.fullmatch(rf"{WEIGHT_FILES}\.{suffix}", path.name) for path in sorted(part.glob(f"*.{suffix}"))]
        variants = {match["variant"] for match in matches if match is not None}
        if variants:
            variant = None if None in variants else min(variants, key=lambda each: (each != "fp16", each))
            return {"use_safetensors": safe} | ({} if variant is None else {"variant": variant})
    return {"use_safetensors": True}  # whose absence the libraries tell of
