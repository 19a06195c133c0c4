"""What is loaded onto a model: LoRAs, Custom Diffusion, textual inversion. Which files they are; nothing imports torch.

All of them change weights or add words before anything runs (`adapting`), so that every method, and attention across
windows too, works as with a model that was trained so. They are part of the model's fingerprint by their content.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from syncdiffusion.errors import UsageError
from syncdiffusion.files import by_content, contents, of_hubs_form, place_of
from syncdiffusion.settings import check_settings, each_of, facts_of, setting

SUFFIXES = (".safetensors", ".bin", ".pt")  # of files of weights
CUSTOM_DIFFUSION = "pytorch_custom_diffusion_weights"  # what diffusers' training script calls them
TOKENS = "learned_embeds"  # and new tokens, beside names such as <new1>, which not every file system can hold


def weights_or_hub(value: str) -> Sequence[Path] | None:
    """The file of weights; None of a hub id."""
    return None if is_hub_id(value) else [place_of(value)]


def is_hub_id(value: str) -> bool:
    """Whether a value is owner/name or owner/name@revision, and no file that is there or is meant."""
    name = value.partition("@")[0]
    return of_hubs_form(name) and not name.endswith(SUFFIXES) and not place_of(value).exists()


def custom_diffusion_files(value: str) -> list[Path]:
    """Of a folder that diffusers' training script wrote: the weights of attention, then a file for each new token.

    Raises:
        UsageError: there are none.
    """
    folder = place_of(value)
    weights = [folder / f"{CUSTOM_DIFFUSION}{suffix}" for suffix in (".safetensors", ".bin")]
    found = [path for path in weights if path.is_file()][:1]
    if not found:
        raise UsageError(
            f"backbone.custom_diffusion={value}: holds no {CUSTOM_DIFFUSION}.bin or .safetensors; give a folder that "
            "diffusers' train_custom_diffusion.py wrote (the original repository's delta.bin is another format)"
        )
    tokens = [path for path in folder.iterdir() if path.suffix in SUFFIXES and path.stem.startswith(("<", TOKENS))]
    return [*found, *sorted(tokens)]


@dataclass(frozen=True)
class Adapters:
    """What is loaded onto a model, in this order: Custom Diffusion, textual inversions, LoRAs.

    Raises:
        UsageError: no such file, or unequally many LoRAs and scales.
    """

    lora: str | Sequence[str] | None = setting(
        None, "a LoRA that is added to the weights, a file or a hub id (owner/name@revision); a list for several",
        null="none", file=True, names=weights_or_hub, many=True,
    )  # fmt: skip
    lora_scale: float | Sequence[float] = setting(1.0, "strength of each LoRA", many=True)
    custom_diffusion: str | None = setting(
        None, "a folder of diffusers' train_custom_diffusion.py: weights of attention, and new tokens",
        null="none", file=True, names=custom_diffusion_files,
    )  # fmt: skip
    textual_inversion: str | Sequence[str] | None = setting(
        None, "new tokens, a file or a hub id; a list for several", null="none", file=True, names=weights_or_hub,
        many=True,
    )  # fmt: skip

    def __post_init__(self) -> None:
        check_settings(self)
        given = each_of(self.lora_scale)
        if not self.loras and given != [1.0]:
            raise UsageError(f"backbone.lora_scale={self.lora_scale}: is of a LoRA; give backbone.lora as well")
        if self.loras and len(given) not in (1, len(self.loras)):
            raise UsageError(f"backbone.lora_scale={self.lora_scale}: give one, or one for each of {len(self.loras)}")

    @property
    def loras(self) -> list[str]:
        return [each for each in each_of(self.lora) if each is not None]

    @property
    def scales(self) -> list[float]:
        """A strength for each LoRA."""
        given = [float(each) for each in each_of(self.lora_scale)]
        return given * len(self.loras) if len(given) == 1 else given

    @property
    def inversions(self) -> list[str]:
        return [each for each in each_of(self.textual_inversion) if each is not None]

    def __bool__(self) -> bool:
        return bool(self.loras or self.custom_diffusion is not None or self.inversions)

    def record(self) -> dict[str, Any]:
        """As records hold them, files by name and content; {} where there are none.

        Raises:
            UsageError: a file that is not there.
        """
        if not self:
            return {}
        known = {"lora": self.loras, "lora_scale": self.scales, "textual_inversion": self.inversions}
        given = {name: value for name, value in (asdict(self) | known).items() if value}
        with _in_section():
            return by_content(given, facts_of(Adapters))

    def on(self, fingerprint: str) -> str:
        """The fingerprint of a model with these loaded onto it; its own where there are none."""
        record = self.record()
        if not record:
            return fingerprint
        told = json.dumps([fingerprint, {name: contents(value) for name, value in record.items()}], sort_keys=True)
        return hashlib.sha256(told.encode()).hexdigest()[:16]


NO_ADAPTERS = Adapters()


def adapters_of(config: Mapping[str, Any]) -> Adapters:
    """Of a `backbone` section of the configuration.

    Raises:
        UsageError: see Adapters; it names the section.
    """
    given = {name: config.get(name, facts) for name, facts in asdict(NO_ADAPTERS).items()}
    with _in_section():
        return Adapters(**given)


@contextmanager
def _in_section() -> Iterator[None]:
    """Have a mistake name the section; a setting of methods, which the same checks refuse, has none."""
    try:
        yield
    except UsageError as error:
        words = str(error)
        raise UsageError(words if words.startswith("backbone.") else f"backbone.{words}") from None


def with_scale(text: str) -> tuple[str, float]:
    """A LoRA and its strength from FILE or FILE:SCALE; what is no number behind a colon is part of the name.

    >>> with_scale("house.safetensors:0.8"), with_scale("owner/name")
    (('house.safetensors', 0.8), ('owner/name', 1.0))

    Raises:
        UsageError: a strength that is infinite or NaN.
    """
    name, colon, scale = text.rpartition(":")
    if not colon or place_of(text).exists():
        return text, 1.0
    try:
        number = float(scale)
    except ValueError:
        return text, 1.0
    if not math.isfinite(number):
        raise UsageError(f"backbone.lora={text}: its strength must be a number; give FILE:SCALE, such as FILE:0.8")
    return name, number
