"""Weights & Biases: one run per experiment run, written at its end from the files in the run folder.

The files are the truth. W&B gets a copy of them: the configuration and environment, a table of panoramas, the score
table, the pictures, the gallery, and scalars such as ``syncdiffusion/intra_lpips``. A run folder that is gone on with
yields another W&B run of the same group, because an offline run cannot be resumed.
"""

from __future__ import annotations

import json
import netrc
import os
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from experiments.panoramas.index import Index
from experiments.plan.plan import Plan
from experiments.report.gallery import open_image
from experiments.stages.report import summary
from experiments.stages.score_files import read_scores

if TYPE_CHECKING:
    import wandb

MOST_IMAGES = 24  # per method
PUBLIC_SERVERS = {"api.wandb.ai", "api.forge.coreweave.com"}
LOGIN_SECONDS = 20  # how long an unreachable server is waited for


def track(plan: Plan, index: Index) -> Path | None:
    """Write the W&B run; returns its folder, None where tracking is switched off.

    A server that cannot be reached costs LOGIN_SECONDS and a line on stderr; the run is then kept offline.
    """
    mode = wandb_mode(plan.tracking["mode"])
    if mode == "disabled":
        return None
    with kept_inside(plan.folder):
        import wandb

        try:
            run = start(plan, mode)
        except wandb.errors.Error as error:
            print(f"tracking.mode={mode}: {error}; kept offline instead".replace("\n", " "), file=sys.stderr)
            run = start(plan, "offline")
        try:
            log_files(run, plan, index)
        finally:
            run.finish()
            wandb.teardown()  # waits for W&B's own process: only then is the run's file whole
        return Path(run.settings.sync_dir)


def wandb_mode(mode: str) -> str:
    """What `auto` means here: WANDB_MODE where it is set, online under a sweep's agent or a login, else offline."""
    if mode != "auto":
        return mode
    if os.environ.get("WANDB_MODE"):
        return os.environ["WANDB_MODE"]
    if os.environ.get("WANDB_SWEEP_ID"):  # its agent has a server and waits for this run to appear there
        return "online"
    return "online" if logged_in() else "offline"


def logged_in() -> bool:
    """Whether `wandb login` (its netrc entry) or WANDB_API_KEY is there; asks no server."""
    if os.environ.get("WANDB_API_KEY"):
        return True
    server = os.environ.get("WANDB_BASE_URL")
    wanted = {urlsplit(server).hostname} if server else PUBLIC_SERVERS
    try:
        return bool(wanted & netrc.netrc(Path(os.environ.get("NETRC", "~/.netrc")).expanduser()).hosts.keys())
    except (OSError, netrc.NetrcParseError):
        return False


@contextmanager
def kept_inside(folder: Path) -> Iterator[None]:
    """W&B's own folders (staging, cache) inside the run folder, unless the user has put them elsewhere."""
    own = {name: str(folder.resolve() / "wandb" / "data") for name in ("WANDB_DATA_DIR", "WANDB_CACHE_DIR")}
    added = {name: value for name, value in own.items() if name not in os.environ}
    os.environ.update(added)
    try:
        yield
    finally:
        for name in added:
            del os.environ[name]


def start(plan: Plan, mode: str) -> wandb.Run:
    import wandb

    return wandb.init(
        project=plan.tracking["project"],
        entity=plan.tracking["entity"],
        group=plan.folder.name,
        name=plan.name,
        dir=str(plan.folder),
        mode=mode,
        config=dict(plan.resolved) | {"environment": json.loads((plan.folder / "environment.json").read_text())},
        settings=wandb.Settings(
            silent=True,
            console="off",
            init_timeout=LOGIN_SECONDS,
            login_timeout=LOGIN_SECONDS,
            x_disable_stats=True,
            x_disable_meta=True,
            disable_git=True,
            disable_code=True,
        ),
    )


def log_files(run: wandb.Run, plan: Plan, index: Index) -> None:
    import wandb

    scores, panoramas = read_scores(plan.folder, index)
    content: dict[str, Any] = {
        "panoramas": wandb.Table(dataframe=panoramas),
        "scores": wandb.Table(dataframe=scores),
        "gallery": wandb.Image(str(plan.folder / "gallery.png")),
    }
    content |= {f"images/{label}": images for label, images in pictures(index, plan.folder).items()}
    run.log(content | dict(summary(scores, panoramas)))


def pictures(index: Index, folder: Path) -> Mapping[str, list[wandb.Image]]:
    """Up to MOST_IMAGES panoramas per method as lists: images inside a wandb.Table are not kept offline."""
    import wandb

    found: dict[str, list[wandb.Image]] = {}
    for unit in (each.unit for each in index.panoramas):
        images = found.setdefault(unit.label, [])
        if len(images) < MOST_IMAGES:
            images.append(wandb.Image(open_image(folder, unit), caption=f"{unit.prompt}, seed {unit.seed}"))
    return found
