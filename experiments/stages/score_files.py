"""What scoring leaves: study.json, panoramas.csv, replicates.csv, swaps.csv, scores.csv, and checksums.

They belong together, so all of them are whole on the disk before the first takes its place. The old scores go just
before that and the new scores.csv comes last: whatever interrupts, there are the old files, the new ones, or no scores.
`sha256sum -c scores.sha256` says whether one was cut or changed since, `references.sha256` the same of the reference
images that panoramas were held against.
"""

from __future__ import annotations

import hashlib
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from experiments.common.files import discard, json_text, write_together, write_whole
from experiments.metrics.catalogue import COLUMNS
from experiments.panoramas.index import Index, Panorama
from experiments.results.study import Study, read_numbers
from syncdiffusion.errors import UsageError

if TYPE_CHECKING:
    import pandas as pd

    from experiments.metrics.score import Scored

SCORE_COLUMNS = ["method", "prompt", "metric", "value", "stderr", "n", "network"]
SWAP_COLUMNS = ["method", "against", "metric", "difference", "stderr", "p", "n", "prompts", "freedom", "network"]
REPLICATE_COLUMNS = ["method", "replicate", "metric", "value", "n", "network"]
PANORAMA_COLUMNS = list(COLUMNS)
CHECKSUMS, REFERENCES = "scores.sha256", "references.sha256"
# scores.csv goes first: without it nothing else is taken for a scored run.
DROPPED = ("scores.csv", "replicates.csv", "swaps.csv", CHECKSUMS, REFERENCES)


def write_scores(folder: Path, study: Study, index: Index, scored: Scored) -> None:
    """Put the files of a scoring pass in place of those of the last one.

    Raises:
        Unwritable: the disk is full, ...; the old files are then still there.
    """
    csv = {
        "panoramas.csv": panoramas_csv(folder, index.panoramas, scored.rows),
        "replicates.csv": csv_text(scored.replicates, REPLICATE_COLUMNS),
        "swaps.csv": csv_text(scored.swaps, SWAP_COLUMNS),
        "scores.csv": csv_text(scored.scores, SCORE_COLUMNS),
    }
    sums = "".join(f"{hashlib.sha256(text.encode()).hexdigest()}  {name}\n" for name, text in csv.items())
    references = reference_sums(folder, index)
    files = {"study.json": json_text(asdict(study)), CHECKSUMS: sums, REFERENCES: references, **csv}
    write_together({folder / name: text for name, text in files.items()}, before=lambda: drop_scores(folder))


def drop_scores(folder: Path) -> None:
    for name in DROPPED:
        discard(folder / name)


def keep_panoramas(folder: Path, index: Index) -> None:
    """Bring panoramas.csv up to date after generating; all scores go where a picture was made anew."""
    if written_rows(folder / "panoramas.csv") != index.rows or not same_references(folder, index):
        if (folder / "scores.csv").exists():
            print(
                f"the scores in {folder} are of other panoramas than those there now, and are dropped; tables and "
                "figures there are of them until the run is scored and reported",
                file=sys.stderr,
            )
        drop_scores(folder)
        write_whole(folder / "panoramas.csv", panoramas_csv(folder, index.panoramas))


def reference_sums(folder: Path, index: Index) -> str:
    """A line for each reference image, as `sha256sum` writes it."""
    lines = [f"{each.record['png_sha256']}  {each.png.relative_to(folder).as_posix()}\n" for each in index.references]
    return "".join(sorted(lines))


def same_references(folder: Path, index: Index) -> bool:
    """Whether the scores there are of these reference images; so they are where nothing is told of any."""
    try:
        return (folder / REFERENCES).read_text() == reference_sums(folder, index)
    except OSError:  # scored before they were told, or not scored
        return True


def written_rows(path: Path) -> set[tuple[str, str]] | None:
    """(label, key) of every row of a panoramas.csv; None where the file is not there or damaged."""
    import pandas as pd

    try:
        written = pd.read_csv(path, usecols=["method", "key"], dtype=str, keep_default_na=False)
    except (OSError, ValueError):  # pandas's own errors, and those of bytes that are no text, are ValueErrors
        return None
    return set(written[["method", "key"]].itertuples(index=False, name=None))


def read_scores(folder: Path, index: Index) -> tuple[pd.DataFrame, pd.DataFrame]:
    """scores.csv and panoramas.csv, checked against the panoramas that they speak of.

    Raises:
        UsageError: nothing is scored, the panoramas were made anew since, or a file was cut or changed.
    """
    if not all((folder / name).is_file() for name in ("scores.csv", "panoramas.csv")):
        raise UsageError(f"run_dir={folder}: not scored yet; run stage=score")
    if written_rows(folder / "panoramas.csv") not in (None, index.rows):
        raise UsageError(f"run_dir={folder}: scores.csv is of other panoramas than those there; run stage=score")
    if not same_references(folder, index):
        raise UsageError(f"run_dir={folder}: scores.csv is of other reference images than those there; run stage=score")
    check_whole(folder)
    scores, panoramas = (read_numbers(folder / name) for name in ("scores.csv", "panoramas.csv"))
    if "key" not in panoramas:
        raise UsageError(f"{folder / 'panoramas.csv'}: no column 'key'; run stage=score again")
    return scores, panoramas


def check_whole(folder: Path) -> None:
    """Refuse files that are not as they were written; what was scored before there were checksums passes.

    Raises:
        UsageError: names the file.
    """
    try:
        lines = (folder / CHECKSUMS).read_text().splitlines()
    except FileNotFoundError:
        return
    except (OSError, ValueError):
        lines = []
    wanted = {name: digest for digest, _, name in (line.partition("  ") for line in lines)}
    for name in sorted({*wanted, "panoramas.csv", "scores.csv"}):  # a cut list of checksums names fewer
        try:
            content = (folder / name).read_bytes()
        except OSError as error:
            raise UsageError(f"{folder / name}: not readable ({error.strerror}); run stage=score again") from None
        if hashlib.sha256(content).hexdigest() != wanted.get(name):
            raise UsageError(f"{folder / name}: cut or changed since it was written; run stage=score again")


def panoramas_csv(folder: Path, panoramas: Sequence[Panorama], rows: Sequence[Mapping[str, Any]] = ()) -> str:
    """A row per panorama with its cost and, where `rows` has them, its scores."""
    scored = {(row["method"], row["prompt"], row["seed"]): row for row in rows}
    lines = []
    for each in panoramas:
        unit, record = each.unit, each.record
        line = {
            "method": unit.label,
            "prompt": unit.prompt,
            "seed": unit.seed,
            "seconds": record["seconds"],
            "peak_memory_bytes": record["peak_memory_bytes"],
            "device": record["device"],
            "file": each.png.relative_to(folder).as_posix(),
            "key": record["key"],
        }
        lines.append(line | dict(scored.get((unit.label, unit.prompt, unit.seed), {})))
    metrics = [name for name in (rows[0] if rows else {}) if name not in PANORAMA_COLUMNS]
    return csv_text(lines, PANORAMA_COLUMNS + metrics)


def csv_text(rows: Sequence[Mapping[str, Any]], columns: list[str]) -> str:
    import pandas as pd

    return pd.DataFrame([dict(row) for row in rows], columns=columns).to_csv(index=False)
