"""Weights & Biases before anything is made: what `tracking.mode=auto` means here, and whether W&B can be used."""

from __future__ import annotations

import configparser
import importlib.util
import netrc
import os
import re
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from syncdiffusion.errors import UsageError
from syncdiffusion.files import place_of

PUBLIC_SERVERS = {"api.wandb.ai", "api.forge.coreweave.com"}
MODES = ("online", "offline", "disabled", "shared", "dryrun", "run")  # that WANDB_MODE may be
OFFLINE = ("offline", "dryrun")
NOT_IN_PROJECT, LONGEST_PROJECT = "/\\#?%:", 128  # W&B's own rule
OWN_FOLDERS = ("WANDB_DATA_DIR", "WANDB_CACHE_DIR")  # staging, cache
OFF = "or switch it off with tracking=disabled"


def wandb_mode(mode: str) -> str:
    """What `auto` means here: WANDB_MODE where it is set, what `wandb offline` or `wandb disabled` left here, online
    under a sweep's agent or a login, else offline."""
    if mode != "auto":
        return mode
    if os.environ.get("WANDB_MODE"):
        return os.environ["WANDB_MODE"]
    if os.environ.get("WANDB_SWEEP_ID"):  # its agent has a server and waits for this run to appear there
        return "online"
    kept = kept_setting("mode")
    return kept if kept in ("offline", "disabled") else "online" if logged_in() else "offline"


def logged_in() -> bool:
    """Whether `wandb login` (its netrc entry) or WANDB_API_KEY is there; asks no server."""
    if os.environ.get("WANDB_API_KEY"):
        return True
    server = os.environ.get("WANDB_BASE_URL") or kept_setting("base_url")
    wanted = {urlsplit(server).hostname} if server else PUBLIC_SERVERS
    try:
        return bool(wanted & netrc.netrc(place_of(os.environ.get("NETRC", "~/.netrc"))).hosts.keys())
    except (OSError, netrc.NetrcParseError):
        return False


def kept_setting(name: str) -> str | None:
    """What W&B's own commands (`wandb login --host`, `wandb offline`) have kept, in the current folder or for all."""
    found = configparser.ConfigParser(interpolation=None)
    local = ".wandb" if Path(".wandb").is_dir() else "wandb"
    system = os.environ.get("WANDB_CONFIG_DIR") or "~/.config/wandb"
    try:  # the later file counts
        found.read([place_of(system) / "settings", place_of(os.environ.get("WANDB_DIR") or ".") / local / "settings"])
    except (configparser.Error, OSError, ValueError):
        return None
    return found.get("default", name, fallback=None)


def check_tracking(tracking: Mapping[str, Any]) -> None:
    """Refuse what W&B would refuse after hours of work; asks no server and imports nothing of it.

    tracking: the section of the configuration. Nothing is looked at where tracking is switched off.

    Raises:
        UsageError: a project's name that W&B does not take, a WANDB_MODE or WANDB_BASE_URL that is none, W&B not
            installed.
    """
    if tracking["mode"] == "disabled":
        return
    told = os.environ.get("WANDB_MODE")
    if told and told not in MODES:  # W&B itself reads it, whatever tracking.mode says
        raise UsageError(f"WANDB_MODE={told}: use one of {', '.join(MODES[:3])}, {OFF}")
    if wandb_mode(tracking["mode"]) == "disabled":
        return
    if importlib.util.find_spec("wandb") is None:
        raise UsageError(f"tracking.mode={tracking['mode']}: wandb is not installed; pip install wandb, {OFF}")
    for name in ("project", "entity"):
        check_name(f"tracking.{name}", tracking[name])
    if server := os.environ.get("WANDB_BASE_URL"):
        check_server(server)


def check_name(setting: str, value: str | None) -> None:
    """Raises UsageError for a name that W&B refuses, or that is none."""
    if value is None and setting.endswith("entity"):
        return
    if not value or not value.strip():
        raise UsageError(f"{setting}={value or ''}: is empty; give a name, {OFF}")
    if found := sorted(set(value) & set(NOT_IN_PROJECT)):
        advice = "; the part before / is tracking.entity" if setting.endswith("project") and "/" in found else ""
        raise UsageError(f"{setting}={value}: a name in W&B holds none of {' '.join(NOT_IN_PROJECT)}{advice}")
    if len(value) > LONGEST_PROJECT:
        raise UsageError(f"{setting}: a name of {len(value)} characters; W&B takes {LONGEST_PROJECT} at most")


def check_server(address: str) -> None:
    """Raises UsageError for what is no address of a server; whether one answers there only the start can tell."""
    try:
        parts = urlsplit(address)
        sound = parts.scheme in ("http", "https") and bool(re.fullmatch(r"[\w.:-]+", parts.hostname or ""))
        sound = sound and parts.port != 0  # reading the port raises where it is no number
    except ValueError:
        sound = False
    if not sound:
        raise UsageError(f"WANDB_BASE_URL={address}: no address of a server; give https://HOST, {OFF}")


def check_folders(run_folder: Path) -> None:
    """Refuse folders that W&B could not write to; it would turn to another, or fail at the end.

    Raises:
        UsageError: names the folder and who chose it.
    """
    chosen = {"run_dir": run_folder / "wandb"}
    chosen |= {name: place_of(os.environ[name]) for name in OWN_FOLDERS if os.environ.get(name)}
    for setting, folder in chosen.items():
        try:
            folder.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryFile(dir=folder):
                pass
        except OSError as error:
            raise UsageError(
                f"{setting}: W&B cannot write to {folder} ({error.strerror}); give another {setting}, {OFF}"
            ) from error
