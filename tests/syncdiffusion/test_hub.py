"""Which commit a name on the hub means: asked of the hub, else read from its cache. The hub here is a stand-in."""

from types import SimpleNamespace

import huggingface_hub
import pytest
from huggingface_hub import constants
from huggingface_hub.errors import RepositoryNotFoundError

from syncdiffusion import hub
from syncdiffusion.backbones.adapters import Adapters
from syncdiffusion.backbones.model_files import fingerprint
from syncdiffusion.hub import commit_of, pinned

FETCHED, TODAY = "a" * 40, "b" * 40


@pytest.fixture
def asked(monkeypatch, tmp_path):
    """What the hub is asked, (repository, revision); its cache holds the branch main and the tag v2 of owner/name."""
    found = []

    def repo_info(self, repository, revision, timeout):
        found.append((repository, revision))
        if repository == "owner/secret":
            raise RepositoryNotFoundError("401", response=SimpleNamespace(headers={}, request=None, status_code=401))
        return SimpleNamespace(sha=TODAY)

    refs = tmp_path / "models--owner--name" / "refs"
    refs.mkdir(parents=True)
    (refs / "main").write_text(FETCHED)
    (refs / "v2").write_text("c" * 40)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr(huggingface_hub.HfApi, "repo_info", repo_info)
    commit_of.cache_clear()
    yield found
    commit_of.cache_clear()


def online(monkeypatch):
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(hub, "reachable", lambda url: True)


def test_offline_it_is_what_was_fetched(asked):
    assert commit_of("owner/name") == commit_of("owner/name", "main") == FETCHED
    assert commit_of("owner/name", "v2") == "c" * 40
    assert commit_of("owner/name", "d" * 40) == "d" * 40
    assert (commit_of("owner/other"), commit_of("owner/other", "v1")) == ("main", "v1")
    assert asked == []


def test_online_it_is_what_the_hub_says_and_asked_once(asked, monkeypatch):
    online(monkeypatch)
    assert commit_of("owner/name") == commit_of("owner/name") == TODAY
    assert commit_of("owner/secret", "v1") == "v1"
    assert asked == [("owner/name", "main"), ("owner/secret", "v1")]


def test_models_and_adapters_are_told_by_their_commits(asked, monkeypatch):
    assert fingerprint("owner/name") == f"owner/name@{FETCHED}"
    assert fingerprint("owner/other", "v1") == "owner/other@v1"
    (told,) = Adapters(lora="owner/name").record()["lora"]
    assert told == pinned("owner/name@main") == f"owner/name@{FETCHED}"
    assert pinned("owner/other") == "owner/other" and pinned("embedded") == "embedded"
    before = fingerprint("owner/name", adapters=Adapters(lora="owner/name"))
    commit_of.cache_clear()
    online(monkeypatch)  # the branch has moved
    assert fingerprint("owner/name") == f"owner/name@{TODAY}"
    assert fingerprint("owner/name", FETCHED, Adapters(lora=f"owner/name@{FETCHED}")) == before
