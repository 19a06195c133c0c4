"""Opening models: any folder or hub repository in the layout of diffusers' StableDiffusionPipeline, or SDXL's.

The embedded miniature, Stable Diffusion 1.x, 2.x and XL, or a local folder. Weights are safetensors, or in a folder
that has none PyTorch's .bin files, of which nothing but tensors is unpacked; no code of a folder runs.
"""

import functools
import json
import pickle
import struct
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from huggingface_hub import constants, hf_hub_download
from safetensors import SafetensorError

from syncdiffusion.backbones.adapters import NO_ADAPTERS, Adapters
from syncdiffusion.backbones.adapting import adapt
from syncdiffusion.backbones.backbone import PRECISIONS, Backbone
from syncdiffusion.backbones.kind import ddim, unlike
from syncdiffusion.backbones.model_files import (
    NETWORKS,
    PARTS,
    SECOND_PARTS,
    check_parts,
    configurations,
    find_model,
    fingerprint,
    has_second_text_encoder,
    weight_files,
)
from syncdiffusion.backbones.offload import Offload
from syncdiffusion.backbones.text_xl import check_unet
from syncdiffusion.errors import UsageError, first_line
from syncdiffusion.files import EMBEDDED
from syncdiffusion.hub import commit_of
from syncdiffusion.memory import unless_out_of_memory
from syncdiffusion.perceptual.pretrained import reachable
from syncdiffusion.settings import AUTO

# What the unpickler makes of bytes that are no pickle, and transformers passes on.
NO_PICKLE = (LookupError, EOFError, struct.error)
NO_CONFIGURATION = (TypeError, AttributeError)  # as of a config.json that holds a list
DAMAGED = (OSError, ValueError, RuntimeError, pickle.UnpicklingError, SafetensorError, *NO_PICKLE, *NO_CONFIGURATION)


def pick_device(name: str) -> torch.device:
    """`auto` takes CUDA where there is one."""
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError, ImportError) as error:
        reason = first_line(error)
        raise UsageError(f"device={name}: not usable here ({reason}); use auto, cpu or cuda") from None
    return device


def choose_precision(precision: str, device: torch.device) -> str:
    """The precision that `auto` means on a device: float16 under autocast on a GPU, as in the released code; else
    float32.

    bfloat16 is not chosen: the direction of a perceptual gradient suffers from its few digits. "tf32" is float32 with
    CUDA's faster products of shorter numbers (`Backbone.running`); "float32" is float32 throughout.

    Raises:
        UsageError: an unknown precision, or one that the device does not have.
    """
    if precision == AUTO:
        return "float16" if device.type == "cuda" else "float32"
    if precision not in PRECISIONS:
        raise UsageError(f"precision={precision}: use one of {', '.join((AUTO, *PRECISIONS))}")
    if precision == "tf32" and device.type != "cuda":
        raise UsageError(f"precision=tf32: a {device.type} has no TF32; use float32, or a device with CUDA")
    return precision


def load_backbone(
    model_id: str = EMBEDDED,
    revision: str | None = None,
    device: str = "auto",
    precision: str = AUTO,
    compiled: bool = False,
    offload: bool = False,
    adapters: Adapters = NO_ADAPTERS,
) -> Backbone:
    """Load and freeze a model.

    Args:
        model_id: "embedded", a folder in diffusers' layout, a checkpoint in one .safetensors file beside a folder of
            its configurations (`model_files.configurations`), or a hub repository.
        revision: branch, tag or commit of a hub repository.
        precision: one of PRECISIONS, or "auto" (`choose_precision`); below float32 the networks run under autocast.
        compiled: see `compile_unet`.
        offload: networks move to the device as they are used; see `Offload`.
        adapters: what is loaded onto it.

    Raises:
        UsageError: no such folder or repository, a folder without a model, an unknown precision or device, nothing to
            compile with, or to move networks to; adapters of another model.
    """
    chosen = pick_device(device)
    precision = choose_precision(precision, chosen)
    if offload and chosen.type == "cpu":
        raise UsageError("offload=true: a cpu has no memory beside its own to move networks to; use false")
    if offload and compiled:
        raise UsageError("offload=true: with compiled=true the compiler would not see networks move; use one of them")
    source, loaded = find_model(model_id), adapters.record()  # which refuses a file that is not there
    if revision is not None and not isinstance(source, str):
        raise UsageError(f"revision={revision}: this model is a folder; only a hub repository has one")
    dtype = torch.float64 if precision == "float64" else torch.float32
    with torch.inference_mode(False):
        parts = _load_parts(source, revision if isinstance(source, str) else None, model_id)
        if adapters:
            adapt(parts, adapters)
        networks = {name: parts[name] for name in NETWORKS if name in parts}
        for network in networks.values():
            place = torch.device("cpu") if offload else chosen
            if unless_out_of_memory(functools.partial(freeze, network, place, dtype), ()) is None:
                way = "end what else uses it, or take a smaller model"
                if place.type == "cuda":
                    way = "give offload=true (--offload), which moves networks as they are used"
                raise UsageError(f"device={place}: the model does not fit into its free memory; {way}")
        moving = Offload(networks, chosen) if offload else None
    made = Backbone(
        model_id,
        commit_of(source, revision) if isinstance(source, str) else None,
        fingerprint(model_id, revision, adapters),
        device=chosen,
        precision=precision,
        adapters=loaded,
        offload=moving,
        # Stable Diffusion's runs in half precision; of SDXL's the configuration says whether it can.
        widen_decoder="text_encoder_2" in parts and bool(getattr(parts["vae"].config, "force_upcast", False)),
        **parts,
    )
    return compile_unet(made) if compiled else made


def freeze(network: torch.nn.Module, device: torch.device, dtype: torch.dtype) -> torch.nn.Module:
    """The same network on `device`, for inference and for gradients in its inputs alone.

    Channels last: convolutions read and write it without reordering, on CPUs as on GPUs.
    """
    with torch.inference_mode(False):  # what is made in it can have no part in a gradient
        weights = network.state_dict()
        if any(weight.is_inference() for weight in weights.values()):
            network.load_state_dict({name: weight.clone() for name, weight in weights.items()}, assign=True)
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
    """Tokenizer, networks and scheduler by their names in Backbone."""
    import diffusers
    import transformers

    where: dict[str, Any] = {"revision": revision} if revision else {}
    silent = isinstance(source, str) and not constants.HF_HUB_OFFLINE and not reachable(constants.ENDPOINT)
    if silent:  # asked once and quickly; the libraries would ask again and again, for each file, and tell of it
        where["local_files_only"] = True
    try:
        index = _index(source, where)
        check_parts(index, shown)
        if isinstance(source, Path) and source.is_file():
            return check_kind(_parts_of_file(source, index, shown), shown)
        network = functools.partial(_whole, source, shown, where)
        parts = {
            **_tokenizers(source, index, where),
            "text_encoder": network(transformers.CLIPTextModel, "text_encoder", dtype=torch.float32),
            "unet": network(diffusers.UNet2DConditionModel, "unet", torch_dtype=torch.float32),
            "vae": network(getattr(diffusers, index["vae"][1]), "vae", torch_dtype=torch.float32),
            "scheduler": _scheduler(source, where),
        }
        if has_second_text_encoder(index):
            second = network(transformers.CLIPTextModelWithProjection, "text_encoder_2", dtype=torch.float32)
            parts |= {"text_encoder_2": second, **_told_of_empty(index)}
        return check_kind(parts, shown)
    except DAMAGED as error:
        reason = _reason(error)
        if silent:
            reason = f"{constants.ENDPOINT} does not answer, and the hub's cache does not hold it"
        elif isinstance(error, pickle.UnpicklingError):
            reason = "a .bin file of it holds more than weights, which is not opened"
        elif isinstance(error, NO_PICKLE):
            reason = "a .bin file of it holds no weights"
        raise UsageError(
            f"backbone.model_id={shown}: could not be loaded ({reason}); check the name, the revision and the network"
            if isinstance(source, str)
            else f"backbone.model_id={shown}: could not be loaded ({reason}); give a whole folder in diffusers' layout"
        ) from None


def check_kind(parts: dict[str, Any], shown: str) -> dict[str, Any]:
    """The same parts. ValueError or UsageError where they are of another kind than Stable Diffusion's or its XL's."""
    check_unet(parts["unet"], [parts[name] for name in ("text_encoder", "text_encoder_2") if name in parts])
    if (words := unlike(parts["unet"], parts["vae"])) is not None:
        raise UsageError(f"backbone.model_id={shown}: {words}")
    return parts


def _tokenizers(source: str | Path, index: Any, where: dict[str, Any]) -> dict[str, Any]:
    """By their names in Backbone. Code in a folder is neither run nor asked about."""
    import transformers

    names = ("tokenizer", "tokenizer_2") if has_second_text_encoder(index) else ("tokenizer",)
    open_one = functools.partial(transformers.AutoTokenizer.from_pretrained, trust_remote_code=False, **where)
    return {name: open_one(source, subfolder=name) for name in names}


def _scheduler(source: str | Path, where: dict[str, Any]) -> Any:
    """`kind.ddim` of the configuration that the model has."""
    from diffusers import DDIMScheduler

    return ddim(DDIMScheduler.load_config(source, subfolder="scheduler", **where))


def _told_of_empty(index: Any) -> dict[str, bool]:
    return {"zeros_for_empty": bool(index.get("force_zeros_for_empty_prompt", True))}  # diffusers' default


def _index(source: str | Path, where: dict[str, Any]) -> Any:
    """What model_index.json says."""
    if isinstance(source, Path):
        return json.loads((configurations(source) / "model_index.json").read_text(encoding="utf-8"))
    return json.loads(Path(hf_hub_download(source, "model_index.json", **where)).read_text(encoding="utf-8"))


def _parts_of_file(file: Path, index: Any, shown: str) -> dict[str, Any]:
    """The same of a checkpoint in one file, in Stable Diffusion's own layout."""
    import diffusers

    folder, second = str(configurations(file)), has_second_text_encoder(index)
    kind: Any = diffusers.StableDiffusionXLPipeline if second else diffusers.StableDiffusionPipeline
    pipe = kind.from_single_file(
        str(file),
        config=folder,
        local_files_only=True,
        torch_dtype=torch.float32,
        scheduler=_scheduler(folder, {}),
        **_tokenizers(folder, index, {}),
    )
    names = [*PARTS, *SECOND_PARTS] if second else [*PARTS]
    for part in (name for name in NETWORKS if name in names):
        missing = sorted(name for name, weight in getattr(pipe, part).named_parameters() if weight.is_meta)
        if missing:
            raise UsageError(
                f"backbone.model_id={shown}: {len(missing)} weights of its {part} were not found ({missing[0]}, ...); "
                f"take a file that is whole, and the configurations of its own kind for {folder}"
            )
    return {name: getattr(pipe, name) for name in names} | (_told_of_empty(index) if second else {})


def _whole(source: str | Path, shown: str, where: dict[str, Any], network: Any, part: str, **options: Any) -> Any:
    """A network of a model, all of whose weights were in its files.

    The libraries draw at random what they do not find, and only warn. transformers before 5.6 finds nothing in a text
    encoder that a later one wrote, and pictures then do not follow their prompt.
    """
    options = {**where, **options, "subfolder": part, "output_loading_info": True}
    if isinstance(source, Path):
        loaded, told = network.from_pretrained(source, **options, **weight_files(source / part))
    else:
        try:
            loaded, told = network.from_pretrained(source, use_safetensors=True, **options)
        except OSError as error:  # a repository may hold half precision alone
            try:
                loaded, told = network.from_pretrained(source, use_safetensors=True, variant="fp16", **options)
            except OSError:
                raise error from None
    missing = sorted(told["missing_keys"])
    if missing:
        raise UsageError(
            f"backbone.model_id={shown}: {len(missing)} weights of its {part} were not found "
            f"({missing[0]}, ...); take files that are whole, and the library versions that requirements.txt names"
        )
    return loaded
