"""What a name on the model hub means today, so that a record tells which weights made a picture."""

from __future__ import annotations

import functools
import re
from pathlib import Path

from syncdiffusion.files import of_hubs_form
from syncdiffusion.perceptual.pretrained import reachable

SECONDS = 10.0  # that the hub has for its answer


@functools.cache
def commit_of(repository: str, revision: str | None = None) -> str:
    """The commit (40 hex digits) that a branch or tag of a hub repository means; asked once per process.

    What the hub says; where it does not answer, what it said when the repository was last fetched to this machine;
    where neither is known the name itself, "main" for None.
    """
    from huggingface_hub import HfApi, constants
    from huggingface_hub.errors import HfHubHTTPError
    from huggingface_hub.file_download import repo_folder_name

    name = revision or "main"
    if re.fullmatch("[0-9a-f]{40}", name):
        return name
    if not constants.HF_HUB_OFFLINE and reachable(constants.ENDPOINT):
        try:
            return HfApi().repo_info(repository, revision=name, timeout=SECONDS).sha or name
        except (HfHubHTTPError, OSError, ValueError):
            pass  # no such repository, or one that asks for a login: loading it tells why
    folder = repo_folder_name(repo_id=repository, repo_type="model")
    try:
        return (Path(constants.HF_HUB_CACHE) / folder / "refs" / name).read_text(encoding="ascii").strip() or name
    except (OSError, ValueError):
        return name


def pinned(value: str) -> str:
    """owner/name or owner/name@revision with the commit in place of the revision; as it is where none is known."""
    repository, _, revision = value.partition("@")
    if not of_hubs_form(repository):
        return value
    commit = commit_of(repository, revision or None)
    return value if commit == (revision or "main") else f"{repository}@{commit}"
