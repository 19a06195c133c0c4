"""One command for every system that the paper stands on, each with its picture on the embedded miniature.

    python -m experiments.systems                    # makes results/mini/systems: pictures, a sheet of them, a page
    python -m experiments.systems --only ring layout

Run it where the repository lies; the page holds the commands as a shell takes them.
"""

from __future__ import annotations

import argparse
import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from experiments.common.command_line import one_line_errors
from experiments.common.files import write_whole
from experiments.common.progress import say_step
from syncdiffusion.errors import UsageError

FOLDER = Path("results/mini/systems")
SEED = "1"


@dataclass(frozen=True)
class System:
    """A picture and the words of `syncdiffusion` that make it.

    title: what it is. source: where it was published. words: without the file that it writes.
    """

    title: str
    source: str
    words: tuple[str, ...]

    def command(self, picture: Path) -> list[str]:
        return [*self.words, "--seed", SEED, "-o", str(picture)]


def sets(**settings: object) -> tuple[str, ...]:
    return tuple(word for name, value in settings.items() for word in ("--set", f"{name}={value}"))


NIGHT, TWILIGHT = "a photo of a city skyline at night", "a photo of a mountain range at twilight"
FOREST, CARTOON = "a photo of a forest with a misty fog", "cartoon panorama of spring summer beautiful nature"
FAST = ("--method", "profile_matching")
BALLOON = "syncdiffusion/weights/mini_balloon/balloon.safetensors"
SEPIA = "syncdiffusion/weights/mini_sepia"
SKYLINE = "conf/experiment/control.png"
SKETCH, MASK = "conf/experiment/sdedit.png", "conf/experiment/mask.png"

SYSTEMS: dict[str, System] = {
    "multidiffusion": System("MultiDiffusion", "Bar-Tal et al., ICML 2023", (TWILIGHT, "--method", "multidiffusion")),
    "syncdiffusion": System("SyncDiffusion, LPIPS", "Lee et al., NeurIPS 2023", (TWILIGHT,)),
    "style": System(
        "SyncDiffusion, style loss", "Gatys et al., CVPR 2016", (TWILIGHT, *sets(loss="style", weight=2000))
    ),
    "layout": System(
        "a prompt for each region",
        "MultiDiffusion's regions, with profile matching's pull",
        (TWILIGHT, *FAST, *sets(layout="conf/layouts/city_in_the_mountains.yaml")),
    ),
    "colour": System(
        "pull toward a colour",
        "guided diffusion: Dhariwal and Nichol, NeurIPS 2021",
        (FOREST, *sets(loss="colour", toward="orange", weight=40)),
    ),
    "words": System(
        "pull toward a text, by the mini-CLIP",
        "guided diffusion: Dhariwal and Nichol, NeurIPS 2021",
        (FOREST, *sets(loss="mini_clip", toward="a photo of a forest at night", weight=15)),
    ),
    "picture": System(
        "pull toward the mood of a picture",
        "guided diffusion: Dhariwal and Nichol, NeurIPS 2021",
        (FOREST, *sets(toward_picture=SKETCH)),
    ),
    "control": System(
        "along a given skyline, by ControlNet",
        "Zhang et al., ICCV 2023",
        (
            *(TWILIGHT, *FAST, "--guidance-scale", "3"),
            *sets(control_image=SKYLINE, controlnet="embedded", control_scale=2.5),
        ),
    ),
    "sdedit": System(
        "SDEdit, from a colour sketch",
        "Meng et al., ICLR 2022",
        ("a photo of hills with trees at sunset", *FAST, *sets(start_image=SKETCH, start_strength=0.7)),
    ),
    "inpainting": System(
        "the middle of MultiDiffusion's picture made new",
        "blended latents: Avrahami et al., SIGGRAPH 2023",
        (TWILIGHT, *FAST, *sets(start_image=FOLDER / "multidiffusion.png", mask=MASK)),
    ),
    "resampling": System(
        "the same, going back up the noise levels",
        "RePaint: Lugmayr et al., CVPR 2022",
        (
            *(TWILIGHT, *FAST),
            *sets(start_image=FOLDER / "multidiffusion.png", mask=MASK, jump_length=5, jump_n_sample=3),
        ),
    ),
    "blended_latent": System(
        "blended latent diffusion", "Avrahami et al., SIGGRAPH 2023", (TWILIGHT, "--method", "blended_latent")
    ),
    "repaint": System("RePaint as extrapolation", "Lugmayr et al., CVPR 2022", (TWILIGHT, "--method", "repaint")),
    "diffcollage": System("DiffCollage", "Zhang et al., CVPR 2023", (TWILIGHT, "--method", "diffcollage")),
    "ring": System(
        "a ring of 360°, shown from its edge to its edge",
        "SyncDiffusion's loop closure",
        (NIGHT, *FAST, *sets(loop_closure="full")),
    ),
    "balloon": System(
        "a concept that the model did not know, by LoRA",
        "Hu et al., ICLR 2022",
        ("a photo of a meadow with a balloon", *FAST, "--lora", BALLOON),
    ),
    "sepia": System(
        "a look that the model did not know, by Custom Diffusion",
        "Kumari et al., CVPR 2023",
        (f"<sepia> {NIGHT}", *FAST, "--custom-diffusion", SEPIA),
    ),
    "ddpm": System("ancestral sampling", "DDPM: Ho et al., NeurIPS 2020", (CARTOON, *FAST, *sets(sampler="ddpm"))),
    "dpmpp": System(
        "DPM-Solver++ in 12 steps", "Lu et al., 2022", (CARTOON, *FAST, "--steps", "12", *sets(sampler="dpmpp"))
    ),
}


def page() -> str:
    """README.md of the folder: what each picture is, and its command."""
    lines = [
        "# Every system, one command",
        "",
        "Made by `python -m experiments.systems` on the embedded miniature; each picture carries its settings.",
        "",
        "![All of them](systems.png)",
        "",
        "| | source | command |",
        "|---|---|---|",
    ]
    for name, system in SYSTEMS.items():
        command = shlex.join(["syncdiffusion", *system.command(FOLDER / f"{name}.png")])
        lines.append(f"| [{system.title}]({name}.png) | {system.source} | `{command}` |")
    return "\n".join(lines) + "\n"


def write_sheet(folder: Path) -> None:
    """The pictures that are there, one below the other under their titles."""
    from PIL import Image, ImageDraw

    from experiments.report.fonts import Pen
    from experiments.report.gallery import CELL_WIDTH, GAP, INK, PAPER, TEXT, save

    found = [(system.title, folder / f"{name}.png") for name, system in SYSTEMS.items()]
    pictures = [(title, Image.open(path).convert("RGB")) for title, path in found if path.is_file()]
    heights = [TEXT + GAP + picture.height + GAP for _, picture in pictures]
    sheet = Image.new("RGB", (CELL_WIDTH + 2 * GAP, GAP + sum(heights)), PAPER)
    draw, pen, top = ImageDraw.Draw(sheet), Pen(TEXT), GAP
    for (title, picture), height in zip(pictures, heights, strict=True):
        pen.write(draw, (GAP, top), title, INK)
        sheet.paste(picture, (GAP, top + TEXT + GAP // 2))
        top += height
    save(sheet, folder / "systems.png")


@one_line_errors(exits=True)
def main(arguments: Sequence[str] | None = None) -> None:
    from syncdiffusion.cli import main as syncdiffusion

    parser = argparse.ArgumentParser(description="Make the picture of every system.")
    parser.add_argument("--only", nargs="+", metavar="NAME", help=f"some of {', '.join(SYSTEMS)}")
    options = parser.parse_args(arguments)
    chosen = options.only or list(SYSTEMS)
    if unknown := [name for name in chosen if name not in SYSTEMS]:
        raise UsageError(f"only={unknown[0]}: use some of {', '.join(SYSTEMS)}")
    FOLDER.mkdir(parents=True, exist_ok=True)
    for number, name in enumerate(chosen, 1):
        say_step("systems", f"{number}/{len(chosen)} {name}")
        if status := syncdiffusion([*SYSTEMS[name].command(FOLDER / f"{name}.png"), "--force"]):
            raise SystemExit(status)
    write_sheet(FOLDER)
    write_whole(FOLDER / "README.md", page())
    print(FOLDER / "README.md")


if __name__ == "__main__":
    main()
