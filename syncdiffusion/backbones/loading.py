"""Opening models: any folder or hub repository in the layout of diffusers' StableDiffusionPipeline.

The embedded miniature, Stable Diffusion 1.x and 2.x, or a local folder. Safetensors only; no code of a folder runs.
"""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from syncdiffusion.backbones.backbone import PRECISIONS, Backbone
from syncdiffusion.backbones.model_files import EMBEDDED, find_model, fingerprint
from syncdiffusion.errors import UsageError
from syncdiffusion.settings import AUTO


def pick_device(name: str) -> torch.device:
    """`auto` takes CUDA where there is one."""
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError) as error:
        reason = str(error).splitlines()[0]
        raise UsageError(f"device={name}: not usable here ({reason}); use auto, cpu or cuda") from None
    return device


def choose_precision(precision: str, device: torch.device) -> str:
    """The precision that `auto` means on a device: float16 under autocast on a GPU, as in the released code; else
    float32.

    bfloat16 is not chosen: the direction of a perceptual gradient suffers from its few digits.

    Raises:
        UsageError: an unknown precision.
    """
    if precision == AUTO:
        return "float16" if device.type == "cuda" else "float32"
    if precision not in PRECISIONS:
        raise UsageError(f"precision={precision}: use one of {', '.join((AUTO, *PRECISIONS))}")
    return precision


def load_backbone(
    model_id: str = EMBEDDED,
    revision: str | None = None,
    device: str = "auto",
    precision: str = AUTO,
    compiled: bool = False,
) -> Backbone:
    """Load and freeze a model.

    Args:
        model_id: "embedded", a folder in diffusers' layout, or a hub repository.
        revision: branch, tag or commit of a hub repository.
        precision: one of PRECISIONS, or "auto" (`choose_precision`); below float32 the networks run under autocast.
        compiled: see `compile_unet`.

    Raises:
        UsageError: no such folder or repository, a folder without a model, an unknown precision or device, nothing to
            compile with.
    """
    chosen = pick_device(device)
    precision = choose_precision(precision, chosen)
    source = find_model(model_id)
    parts = _load_parts(source, revision if isinstance(source, str) else None, model_id)
    dtype = torch.float64 if precision == "float64" else torch.float32
    for name in ("text_encoder", "unet", "vae"):
        freeze(parts[name], chosen, dtype)
    made = Backbone(model_id, revision, fingerprint(model_id, revision), device=chosen, precision=precision, **parts)
    return compile_unet(made) if compiled else made


def freeze(network: torch.nn.Module, device: torch.device, dtype: torch.dtype) -> torch.nn.Module:
    """The same network on `device`, for inference and for gradients in its inputs alone.

    Channels last: convolutions read and write it without reordering, on CPUs as on GPUs.
    """
    network.to(device).eval().requires_grad_(False)
    if network.dtype != dtype:  # diffusers warns of every cast, also of one that changes nothing
        network.to(dtype)
    return network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]  # missing in the stubs


def compile_unet(backbone: Backbone) -> Backbone:
    """The same backbone, whose noise predictions without a gradient go through torch.compile.

    The first prediction of every new batch size waits for the compiler. Gradients stay out of it: those that PyTorch
    2.13 compiles for a CPU are wrong, that of AutoencoderKL's decoder is zero.

    Raises:
        UsageError: torch.compile does not work on this machine.
    """
    try:  # on something small, before minutes are spent on the network
        torch.compile(lambda x: x + 1)(torch.ones(1, device=backbone.device))
    except Exception as error:  # no compiler, a broken one, a library in the way: the user is told which
        raise UsageError(
            f"compiled=true: torch.compile does not work here ({_reason(error)}); use false, or mend that"
        ) from None
    # Sines of timesteps up to 1000 in float32: a compiled kernel's are off by 3e-6, which is no rounding any more.
    time = backbone.unet.time_proj
    time.forward = torch.compiler.disable(time.forward)
    return replace(backbone, compiled_unet=torch.compile(backbone.unet))


def _reason(error: Exception) -> str:
    """What went wrong in one line: the error's first, and its second if the first only announces it; else its type.

    >>> _reason(RuntimeError("backend='inductor' raised:\\nAssertionError: core.py\\n\\nmore"))
    "backend='inductor' raised: AssertionError: core.py"
    >>> _reason(AssertionError())
    'AssertionError'
    """
    first, *rest = [line.strip() for line in str(error).splitlines() if line.strip()] or [type(error).__name__]
    return f"{first} {rest[0]}" if first.endswith(":") and rest else first


def _load_parts(source: str | Path, revision: str | None, shown: str) -> dict[str, Any]:
    from diffusers import AutoencoderKL, AutoencoderTiny, DDIMScheduler, UNet2DConditionModel
    from transformers import AutoTokenizer, CLIPTextModel

    where: dict[str, Any] = {"revision": revision} if revision else {}
    # Safetensors only, here and on a hub: no pickles are ever unpacked.
    weights = {**where, "use_safetensors": True, "torch_dtype": torch.float32}
    try:
        vae_class = AutoencoderTiny if _is_tiny(source, where) else AutoencoderKL
        text = {**where, "use_safetensors": True, "dtype": torch.float32}
        return {
            "tokenizer": AutoTokenizer.from_pretrained(source, subfolder="tokenizer", **where),
            "text_encoder": _whole(CLIPTextModel, source, shown, subfolder="text_encoder", **text),
            "unet": _whole(UNet2DConditionModel, source, shown, subfolder="unet", **weights),
            "vae": _whole(vae_class, source, shown, subfolder="vae", **weights),
            "scheduler": DDIMScheduler.from_pretrained(source, subfolder="scheduler", **where),
        }
    except (OSError, ValueError) as error:
        reason = str(error).strip().splitlines()[0]
        raise UsageError(
            f"backbone.model_id={shown}: could not be loaded ({reason}); check the name, the revision and the network"
        ) from None


def _whole(network: Any, source: str | Path, shown: str, **options: Any) -> Any:
    """A network of a model, all of whose weights were in its files.

    The libraries draw at random what they do not find, and only warn. transformers before 5.6 finds nothing in a text
    encoder that a later one wrote, and pictures then do not follow their prompt.
    """
    loaded, told = network.from_pretrained(source, output_loading_info=True, **options)
    missing = sorted(told["missing_keys"])
    if missing:
        raise UsageError(
            f"backbone.model_id={shown}: {len(missing)} weights of its {options['subfolder']} were not found "
            f"({missing[0]}, ...); take files that are whole, and the library versions that requirements.txt names"
        )
    return loaded


def _is_tiny(source: str | Path, where: dict[str, Any]) -> bool:
    """Whether the folder's autoencoder is a tiny one (no variational bottleneck)."""
    from diffusers import DiffusionPipeline

    if isinstance(source, Path):
        return json.loads((source / "model_index.json").read_text())["vae"][1] == "AutoencoderTiny"
    return DiffusionPipeline.load_config(source, **where)["vae"][1] == "AutoencoderTiny"
