"""One panorama from one command: ``syncdiffusion "a photo of a lake at sunset" -o lake.png``.

Any method of `baselines.METHODS`, with any of its settings. Sizes and sampling are the model's own unless they are
given. The picture is a PNG that carries everything it was made with (`read_record`). How far it is stands on stderr;
the last line of stdout is the picture's path. Exit status 0; 2 for a mistake of the user's, told in one line; 130 after
Ctrl-C, 143 after SIGTERM.

This module and the diffusers pipeline are the ones here that know the baselines, and no other imports them. torch is
imported only once all that can be checked without a model has been.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import logging
import os
import sys
import time
from collections.abc import Sequence
from dataclasses import fields
from pathlib import Path
from types import UnionType
from typing import TYPE_CHECKING, Any, TextIO, get_args, get_type_hints

from syncdiffusion import __version__
from syncdiffusion.backbones.adapters import Adapters, with_scale
from syncdiffusion.backbones.model_files import EMBEDDED_FOLDER, configurations, find_model, square_of
from syncdiffusion.backbones.sampling import sampling_defaults
from syncdiffusion.command_line import Parser
from syncdiffusion.cost import Square
from syncdiffusion.errors import UsageError
from syncdiffusion.files import EMBEDDED, check_files, place_of
from syncdiffusion.method_settings import without_effect
from syncdiffusion.picture import check_out, png_with_record, record_of, save
from syncdiffusion.prompts import WORDS_FILE, checked_prompt, unknown_words_line
from syncdiffusion.settings import facts_of, written
from syncdiffusion.signals import WORDS, answered_by, exit_status, raise_interrupt, raise_lost, signal_of, unread

if TYPE_CHECKING:
    from syncdiffusion.backbones.backbone import Backbone
    from syncdiffusion.method import Method

OPTIONS = ("height", "width", "steps", "guidance_scale", "stride", "negative_prompt")  # settings with one of their own
LITERALS = {"null": None, "none": None, "true": True, "false": False}


def parser() -> argparse.ArgumentParser:
    from baselines import METHODS, PRESETS

    found = Parser(
        prog="syncdiffusion",
        description="Make one panorama from a text.",
        epilog="Options without a default here take the model's own, or the method's: one window high, six windows "
        "wide, a quarter of a window from one window to the next.",
        allow_abbrev=False,
    )
    say = found.add_argument
    say("prompt", nargs="?", help="what the panorama shows, in any script; quote it. The words that the "
        f"embedded miniature knows: {EMBEDDED_FOLDER / WORDS_FILE}")  # fmt: skip
    say("--prompt", dest="named_prompt", metavar="TEXT", help="the same, as an option")
    say("-o", "--out", type=place_of, default=Path("panorama.png"), metavar="FILE.png", help="default: panorama.png")
    say("--force", action="store_true", help="overwrite FILE.png where it exists")
    say("--method", default="syncdiffusion", choices=sorted([*METHODS, *PRESETS]), help="default: syncdiffusion")
    say("--seed", type=int, default=0, help="0 or more; with the prompt it fixes the initial noise (default: 0)")
    say("--width", metavar="PIXELS", help="of the panorama")
    say("--height", metavar="PIXELS", help="of the panorama")
    say("--steps", metavar="N", help="denoising steps")
    say("--guidance-scale", metavar="SCALE", help="of classifier-free guidance")
    say("--stride", metavar="CELLS", help="latent cells (of 8 pixels) from one window to the next")
    say("--negative-prompt", metavar="TEXT", help="what guidance leads away from")
    say("--set", action="append", default=[], metavar="SETTING=VALUE", help="any setting of the method; repeat it")
    say("--settings", action="store_true", help="list the settings of --method, as they are for --model, and end")
    say("--model", default=EMBEDDED, help="embedded (the miniature, the default), a folder in diffusers' layout, or a "
        "hub id such as owner/name")  # fmt: skip
    say("--revision", metavar="NAME", help="branch, tag or commit of a hub repository")
    say("--lora", action="append", default=[], metavar="FILE[:SCALE]", help="a LoRA to load onto the model, a file "
        "or a hub id, and its strength (1); repeat it")  # fmt: skip
    say("--textual-inversion", action="append", default=[], metavar="FILE", help="new tokens for the prompt, a file "
        "or a hub id; repeat it")  # fmt: skip
    say("--custom-diffusion", metavar="FOLDER", help="what diffusers' train_custom_diffusion.py wrote")
    say("--offload", action="store_true", help="move networks to the GPU as they are used, where they do not all fit")
    say("--precision", default="auto", metavar="NAME", help="auto (float16 on a GPU, else float32; the default), "
        "float32, tf32, float16, bfloat16 or float64")  # fmt: skip
    say("--device", default="auto", help="auto (CUDA where there is one), cpu, cuda, cuda:1, ... (default: auto)")
    say("--version", action="version", version=f"%(prog)s {__version__}")
    return found


def chosen_settings(method: Method, arguments: argparse.Namespace) -> dict[str, Any]:
    """The settings that the command line gives, of the types that the method wants.

    Raises:
        UsageError: a setting that the method does not have, one given twice, or a value of the wrong type.
    """
    given = {f"--{name.replace('_', '-')}": (name, getattr(arguments, name)) for name in OPTIONS}
    words = [(option, name, text) for option, (name, text) in given.items() if text is not None]
    for word in arguments.set:
        name, equals, text = word.partition("=")
        if not equals:
            raise UsageError(f"--set {word}: give SETTING=VALUE, such as --set steps=30")
        words.append((f"--set {name}", name, text))
    types, facts = get_type_hints(method.settings), facts_of(method.settings)
    known = [each.name for each in fields(method.settings)]
    chosen: dict[str, Any] = {}
    for option, name, text in words:
        if name not in known:
            raise UsageError(f"{option}: {method.name} has no such setting; it has {', '.join(known)}")
        if name in chosen:
            raise UsageError(f"{option}: {name} is given twice; give it once")
        if facts[name].many and text.startswith("["):
            chosen[name] = [value_of(option, each, types[name]) for each in listed(option, text)]
        else:
            chosen[name] = value_of(option, text, types[name])
    return chosen


def listed(option: str, text: str) -> list[str]:
    """The texts of a list.

    >>> listed("--set control_image", "[edges.png, depth.png]")
    ['edges.png', 'depth.png']
    """
    if not text.endswith("]"):
        raise UsageError(f"{option}={text}: a list ends in a bracket; give [ONE, TWO]")
    return [each.strip() for each in text[1:-1].split(",") if each.strip()]


def value_of(option: str, text: str, wanted: Any) -> Any:
    """A setting's value from its text.

    >>> value_of("--set weight", "5", float), value_of("--set first_n", "null", int | None)
    (5.0, None)

    Raises:
        UsageError: none of the types that the setting may have.
    """
    kinds = get_args(wanted) if isinstance(wanted, UnionType) else (wanted,)
    word = LITERALS.get(text.lower(), text)
    if (word is None or isinstance(word, bool)) and type(word) in kinds:
        return word
    for kind in (int, float):
        if kind in kinds:
            with contextlib.suppress(ValueError):
                return kind(text)
    if str in kinds:
        return text
    names = {int: "a whole number", float: "a number", bool: "true or false", type(None): "null"}
    raise UsageError(f"{option}={text}: must be {' or '.join(names[kind] for kind in kinds if kind in names)}")


def suited_settings(method: Method, square: Square, source: Path | str) -> dict[str, Any]:
    """The settings of a method that suit a model of these squares better than the method's defaults."""
    return {**method.sizes(square), **sampling_defaults(source, method.name, method.settings)}


class StepProgress:
    """How far the panorama is and how long it still takes: a bar on a terminal, elsewhere a line now and then."""

    def __init__(self, stream: TextIO, every: float = 2.0) -> None:
        """every: least seconds between two lines where `stream` is no terminal."""
        self.stream, self.every = stream, every
        self.started = self.last_line = time.monotonic()
        self.bar: Any = None

    def __call__(self, step: Any) -> None:
        """A step has ended; `step` has its `index` from 0, and `count`."""
        raise_lost()
        done, now = step.index + 1, time.monotonic()
        if self.stream.isatty():
            if self.bar is None:
                from tqdm import tqdm

                self.bar = tqdm(total=step.count, file=self.stream, unit="step")
                self.bar.start_t -= now - self.started
            self.bar.update()
        elif done == step.count or now - self.last_line >= self.every:
            self.last_line = now
            left = (now - self.started) / done * (step.count - done)
            print(f"step {done}/{step.count}; {left:.0f} s left", file=self.stream, flush=True)

    def close(self) -> None:
        if self.bar is not None:
            self.bar.close()


def run(arguments: argparse.Namespace) -> str:
    """What the command prints: the settings that a method has, or the path of the panorama that was made.

    Raises:
        UsageError: as `make`.
    """
    from baselines import method_named

    if arguments.settings:
        return told_settings(method_named(arguments.method), find_model(arguments.model))
    if arguments.prompt is not None and arguments.named_prompt is not None:
        raise UsageError(f"--prompt {arguments.named_prompt}: a prompt stands before it already; give one of the two")
    if arguments.prompt is None:
        arguments.prompt = arguments.named_prompt
    if arguments.prompt is None:
        raise UsageError('prompt: none given; say what the panorama shows, such as "a photo of a lake at sunset"')
    return str(make(arguments))


def told_settings(method: Method, source: Path | str) -> str:
    """A line for each setting of a method: its name, the value that it has if it is not given, what it means.

    source: the model; of a hub id nothing is known here, and the values are Stable Diffusion's.
    """
    facts = facts_of(method.settings)
    usual = {each.name: each.default for each in fields(method.settings)}
    if isinstance(source, Path):
        usual |= suited_settings(method, square_of(configurations(source)), source)
    words = {name: f"{name}={written(value)}" for name, value in usual.items()}
    width = max(map(len, words.values()))
    lines = [f"{words[name]:{width}}  {facts[name].means}" for name in words]
    return "\n".join([f"{method.title}: {method.source}", *lines])


def make(arguments: argparse.Namespace) -> Path:
    """Make the panorama that the command line asks for; returns its path.

    Raises:
        UsageError: a mistake in an option, a model that cannot be loaded, too little memory.
    """
    from baselines import method_named

    method = method_named(arguments.method)
    prompt = checked_prompt(arguments.prompt)
    if arguments.seed < 0:
        raise UsageError(f"--seed {arguments.seed}: use 0 or more")
    chosen = chosen_settings(method, arguments)
    if isinstance(chosen.get("negative_prompt"), str) and chosen["negative_prompt"].strip():
        checked_prompt(chosen["negative_prompt"], "negative_prompt")
    check_files(method.settings(**chosen))  # refuses bad values before the model is loaded
    source, adapters = find_model(arguments.model), chosen_adapters(arguments)
    adapters.record()  # their files are there
    check_out(arguments.out, arguments.force)
    # What an adapter taught it, the model's own list of words does not know.
    if not adapters and (unknown := unknown_words_line(source, [prompt])) is not None:
        print(f"prompt: {unknown}", file=sys.stderr, flush=True)

    backbone = open_backbone(arguments)
    square = Square(backbone.window, backbone.factor)
    settings = method.settings(**{**suited_settings(method, square, source), **chosen})
    method.corners(settings, square)  # refuses a canvas that windows cannot cover, before anything is made for it
    if (idle := without_effect(settings)) is not None:
        print(idle, file=sys.stderr, flush=True)
    size = f"{settings.height}x{settings.width} px, {settings.steps_taken} steps"
    where = f"{backbone.model_id} on {backbone.device} in {backbone.precision}"
    print(f"{method.title}: {size}, {where}", file=sys.stderr, flush=True)
    record = record_of(method, settings, backbone, prompt, arguments.seed)  # of the files as they are read now
    progress = StepProgress(sys.stderr)
    try:
        image = method.generate(backbone, [prompt], [arguments.seed], settings, progress)[0]
    finally:
        progress.close()
    return save(png_with_record(image, record), arguments.out, arguments.force)


def chosen_adapters(arguments: argparse.Namespace) -> Adapters:
    """What the command line loads onto the model; UsageError for a LoRA's strength that is no number."""
    loras = [with_scale(each) for each in arguments.lora]
    return Adapters(
        [name for name, _ in loras] or None,
        [scale for _, scale in loras] or 1.0,
        arguments.custom_diffusion,
        arguments.textual_inversion or None,
    )


def open_backbone(arguments: argparse.Namespace) -> Backbone:
    """Load the model that the command line names, with its libraries silent; UsageError where it cannot be."""
    import diffusers
    import transformers

    from syncdiffusion.backbones.loading import load_backbone
    from syncdiffusion.memory import keep_freed_memory

    for library in (diffusers, transformers):  # a hub download keeps its own progress bar
        library.utils.logging.set_verbosity_error()
        library.utils.logging.disable_progress_bar()
    keep_freed_memory()
    if arguments.device == "meta":  # which serves to count what networks do
        raise UsageError("device=meta: holds no numbers; use auto, cpu or cuda")
    return load_backbone(
        arguments.model,
        arguments.revision,
        arguments.device,
        arguments.precision,
        offload=arguments.offload,
        adapters=chosen_adapters(arguments),
    )


def main(words: Sequence[str] | None = None) -> int:
    """The command; returns its exit status. words: its arguments, the process's own for None."""
    # Threads that wait must sleep, not spin: beside another busy process spinning makes small models 80 times slower.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="surrogateescape")  # the name of a file need not be UTF-8
    downloads = logging.getLogger("syncdiffusion")  # weights that are fetched are told of
    handler = logging.StreamHandler()
    downloads.addHandler(handler)
    downloads.setLevel(logging.INFO)
    try:
        with answered_by(raise_interrupt):  # so that what is open is closed
            print(run(parser().parse_args(words)), flush=True)
        return 0
    except UsageError as error:
        return fail(as_options(str(error)), 2)
    except BrokenPipeError:
        return unread()
    except KeyboardInterrupt as stop:
        number = signal_of(stop)
        return fail(f"{WORDS[number]}: nothing was written", exit_status(number), prefix="")
    finally:
        downloads.removeHandler(handler)


def as_options(line: str) -> str:
    """A line about a setting of the model, with the option that it is of.

    >>> as_options("backbone.textual_inversion=a.pt: no such file")
    '--textual-inversion a.pt: no such file'
    """
    for name in ("model_id", "lora", "custom_diffusion", "textual_inversion"):
        option = "--model" if name == "model_id" else f"--{name.replace('_', '-')}"
        line = line.replace(f"backbone.{name}=", f"{option} ")
    return line.replace("offload=true: ", "--offload: ")


def fail(line: str, status: int, prefix: str = "error: ") -> int:
    print(f"{prefix}{line}", file=sys.stderr)
    return status
