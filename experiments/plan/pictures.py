"""Pictures that exist already, of whatever made them, and what is known of each. Nothing here imports torch.

A folder holds METHOD/PROMPT/SEED.png, where PROMPT is the prompt itself, or its short name as this repository makes
it; METHOD `reference` holds the pictures that sets are compared with. A CSV file has the columns file, method, prompt,
seed, and noise where it is known. PNG, JPEG, WebP, BMP and TIFF are read.
"""

from __future__ import annotations

import csv
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from experiments.panoramas.store import deciding, slug
from experiments.plan.prompt_file import read_prompts
from syncdiffusion.errors import UsageError
from syncdiffusion.files import place_of

SUFFIXES = (".png", ".jpg", ".jpeg", ".webp", ".bmp", ".tif", ".tiff")
REFERENCE = "reference"  # in place of a method: what sets are compared with
COLUMNS, NOISE = ("file", "method", "prompt", "seed"), "noise"
DIGEST = re.compile(r"-[0-9a-f]{8}$")  # behind a short name that does not tell the prompt
MAPPINGS = ("prompts.csv", "prompts.jsonl")


@dataclass(frozen=True)
class GivenPicture:
    """One picture. noise: what names the noise that it was made from, "" where that is not known."""

    path: Path
    method: str
    prompt: str
    seed: int
    noise: str = ""


@dataclass(frozen=True)
class GivenSet:
    """All pictures of a folder or a CSV file, and what a user should know of how they were read, a line each."""

    pictures: tuple[GivenPicture, ...]
    references: tuple[GivenPicture, ...]
    remarks: tuple[str, ...]


def read_given(source: Path, texts: Mapping[str, str]) -> GivenSet:
    """What `source` holds, methods in the order of their names, in a CSV file as they first come.

    texts: short name -> prompt, of the prompts that the run was given.

    Raises:
        UsageError: no such thing, no picture, two for one method, prompt and seed.
    """
    if source.is_dir():
        found, remarks = from_folder(source, texts)
    elif source.is_file():
        found, remarks = from_csv(source), []
    else:
        raise UsageError(f"pictures={source}: no such folder or CSV file")
    taken: dict[tuple[str, str, int], Path] = {}
    for each in found:
        key = (each.method, each.prompt, each.seed)
        if key in taken:
            twice = taken[key] == each.path
            both = f"{each.path} is there twice, as" if twice else f"{taken[key]} and {each.path} are both"
            raise UsageError(f"pictures={source}: {both} {each.method}, seed {each.seed}, '{each.prompt}'; leave one")
        taken[key] = each.path
    check_one_making(source, found)
    pictures = tuple(each for each in found if each.method != REFERENCE)
    if not pictures:
        raise UsageError(f"pictures={source}: no picture there; METHOD/PROMPT/SEED.png is wanted")
    return GivenSet(pictures, tuple(each for each in found if each.method == REFERENCE), tuple(remarks))


def from_folder(source: Path, texts: Mapping[str, str]) -> tuple[list[GivenPicture], list[str]]:
    """Of a run folder, which holds its pictures in `panoramas`, its own reference squares are the reference."""
    is_run = (source / "panoramas").is_dir() and (source / "config.yaml").is_file()
    root = source / "panoramas" if is_run else source
    known = dict(texts) | mapped(root)
    found: list[GivenPicture] = []
    strays: list[Path] = []
    for folder in folders(root):
        method = REFERENCE if is_run and folder.name == "stable_diffusion" else folder.name
        strays += images(folder)
        for prompt in folders(folder):
            found += of_prompt(prompt, method, known)
    remarks = []
    if strays:
        remarks.append(f"{strays[0]} and {len(strays) - 1} more lie in no prompt's folder and are left out")
    remarks += name_remarks(found)
    return found, remarks


def reference_folder(source: Path, texts: Mapping[str, str]) -> tuple[GivenPicture, ...]:
    """The reference pictures of a folder PROMPT/*.png, or of a run folder.

    Raises:
        UsageError: none there.
    """
    source = place_of(source)
    if (source / "panoramas" / "stable_diffusion").is_dir():
        source = source / "panoramas" / "stable_diffusion"
    elif (source / REFERENCE).is_dir():
        source = source / REFERENCE
    known = dict(texts) | mapped(source) | mapped(source.parent)
    found = tuple(each for prompt in folders(source) for each in of_prompt(prompt, REFERENCE, known))
    if not found:
        raise UsageError(f"reference.pictures={source}: no picture there; PROMPT/*.png is wanted")
    return found


def of_prompt(folder: Path, method: str, texts: Mapping[str, str]) -> Iterator[GivenPicture]:
    """The pictures of one prompt. Their seeds are the files' names, or their places where one of those is no number."""
    files = images(folder)
    numbered = all(re.fullmatch(r"[0-9]{1,18}", path.stem) for path in files)
    for place, path in enumerate(files):
        prompt = recorded(path).get("prompt") or prompt_of(folder.name, texts)
        yield GivenPicture(path, method, prompt, int(path.stem) if numbered else place)


def prompt_of(name: str, texts: Mapping[str, str]) -> str:
    """The prompt of a folder by its name.

    >>> prompt_of("a-photo-of-a-lake", {}), prompt_of("A lake, at dawn", {})
    ('a photo of a lake', 'A lake, at dawn')
    """
    if name in texts:
        return texts[name]
    spoken = name.replace("-", " ")
    return spoken if slug(spoken) == name and not DIGEST.search(name) else name


def recorded(path: Path) -> dict[str, Any]:
    """What a JSON file beside the picture tells of it, as this repository's records do; empty where there is none."""
    try:
        content = json.loads(path.with_suffix(".json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return content if isinstance(content, dict) and isinstance(content.get("prompt"), str) else {}


def check_one_making(source: Path, pictures: Sequence[GivenPicture]) -> None:
    """Refuse a method of which records tell two ways of making: of a run folder that was gone on with otherwise."""
    first: dict[str, dict[str, Any]] = {}
    for each in pictures:
        record = recorded(each.path)
        if "imported" in record or not isinstance(record.get("settings"), dict):
            continue
        model = record.get("model", {})
        made = deciding(str(record.get("method")), record["settings"])
        made |= {f"backbone.{name}": model.get(name) for name in ("fingerprint", "precision")}
        before = first.setdefault(each.method, made)
        for name in {**before, **made}:  # a setting that came later is told only where it is not as it always was
            if made.get(name) != before.get(name):
                raise UsageError(
                    f"pictures={source}: {each.method} holds pictures made with {name}={before.get(name)} and "
                    f"{made.get(name)}; take those of one run into a folder of their own"
                )


def mapped(folder: Path) -> dict[str, str]:
    """Folder's name -> prompt: of prompts.csv (columns id, prompt) or prompts.jsonl (a prompt and its id a line)."""
    table, lines = (folder / name for name in MAPPINGS)
    if lines.is_file():
        return {each.name: each.prompt for each in read_prompts(str(lines)) if each.name}
    if not table.is_file():
        return {}
    return {line["id"]: line["prompt"] for line in read_csv(table, ("id", "prompt"))}


def from_csv(path: Path) -> list[GivenPicture]:
    """The pictures of a CSV file; names of files are relative to its folder."""
    found = []
    for number, line in enumerate(read_csv(path, COLUMNS, (NOISE,)), start=2):
        if not re.fullmatch(r"[0-9]{1,18}", line["seed"].strip()):
            raise UsageError(f"pictures={path}, line {number}: seed '{line['seed']}' is no whole number from 0 on")
        file = path.parent / place_of(line["file"])
        found.append(GivenPicture(file, line["method"], line["prompt"], int(line["seed"]), line.get(NOISE) or ""))
    return found


def read_csv(path: Path, needed: Sequence[str], allowed: Sequence[str] = ()) -> list[dict[str, str]]:
    """The lines of a CSV file with just these columns. UsageError for any other file."""
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            reader = csv.DictReader(file)
            lines, columns = list(reader), list(reader.fieldnames or [])
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        reason = getattr(error, "strerror", None) or "not CSV in UTF-8"
        raise UsageError(f"{path}: cannot be read ({reason}); give a CSV file or a folder") from None
    wrong = [name for name in columns if name not in (*needed, *allowed)] + [n for n in needed if n not in columns]
    if wrong:
        optional = f", and {', '.join(allowed)} if known" if allowed else ""
        raise UsageError(f"{path}: column '{wrong[0]}'; the columns are {', '.join(needed)}{optional}")
    for number, line in enumerate(lines, start=2):
        if None in line or any(not (line[name] or "").strip() for name in needed):
            raise UsageError(f"{path}, line {number}: must have a value for each of {', '.join(needed)}")
    return lines


def name_remarks(found: Sequence[GivenPicture]) -> list[str]:
    """What the names of folders and files did not tell."""
    remarks = []
    unnumbered = [each.path for each in found if not each.path.stem.isdecimal() and each.method != REFERENCE]
    if unnumbered:
        remarks.append(
            f"{unnumbered[0]} and {len(unnumbered) - 1} more are not named by a seed; where one of a folder is not, "
            "its pictures are numbered in the order of their names"
        )
    unknown = [each.prompt for each in found if DIGEST.search(each.prompt) and " " not in each.prompt]
    if unknown:
        remarks.append(
            f"the prompt of {unknown[0]} is not known: CLIP reads the folder's name; "
            "tell it in prompts.csv, columns id and prompt"
        )
    return remarks


def coverage_remarks(pictures: Sequence[GivenPicture]) -> list[str]:
    """Methods that lack prompts which others have, a line each."""
    prompts = dict.fromkeys(each.prompt for each in pictures)
    remarks = []
    for method in dict.fromkeys(each.method for each in pictures):
        own = {each.prompt for each in pictures if each.method == method}
        lacking = [prompt for prompt in prompts if prompt not in own]
        if lacking:
            remarks.append(
                f"{method} has no picture of {len(lacking)} of {len(prompts)} prompts, such as '{lacking[0]}': "
                "comparisons leave them out, its means do not"
            )
    return remarks


def noise_shared(pictures: Sequence[GivenPicture], chosen: bool | None) -> bool:
    """Whether methods made their pictures of one prompt and seed from one noise: pairs, or independent draws.

    By the noise that is told of every picture; where it is told of none, as `chosen`, and otherwise not.

    Raises:
        UsageError: one noise goes by several seeds, or pictures of one seed by several noises while others agree.
    """
    told = {each.noise for each in pictures}
    if "" in told:
        if told != {""}:
            raise UsageError("pictures: noise is told of some pictures alone; tell it of all, or of none")
        return bool(chosen)
    noises: dict[tuple[str, int], set[str]] = {}
    makers: dict[tuple[str, str], set[str]] = {}
    for each in pictures:
        noises.setdefault((each.prompt, each.seed), set()).add(each.noise)
        makers.setdefault((each.prompt, each.noise), set()).add(each.method)
    shared = all(len(each) == 1 for each in noises.values())
    apart = all(len(each) == 1 for each in makers.values())
    if shared and apart:  # no method has a partner
        shared = bool(chosen)
    elif not shared and not apart:
        raise UsageError("pictures: some seeds stand for one noise and some for several; give one noise one seed")
    if chosen is not None and chosen != shared:
        raise UsageError(f"shared_noise={str(chosen).lower()}: the noise that the pictures name says otherwise")
    return shared


def folders(folder: Path) -> list[Path]:
    if not folder.is_dir():
        return []
    return sorted(each for each in folder.iterdir() if each.is_dir() and not each.name.startswith("."))


def images(folder: Path) -> list[Path]:
    """The pictures of a folder, in the order of the numbers in their names."""
    found = [each for each in folder.iterdir() if each.suffix.lower() in SUFFIXES and not each.name.startswith(".")]
    return sorted(
        found,
        key=lambda path: [
            (len(word), word) if word.isdecimal() else (0, word) for word in re.split(r"(\d+)", path.name)
        ],
    )
