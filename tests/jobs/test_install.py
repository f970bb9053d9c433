"""`jobs/install.sh` with a real uv and an index on loopback: pinned versions, mirrors, environments used again."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import urllib.request
import zipfile
from collections.abc import Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

import jobs

SCRIPT = Path(str(jobs.__file__)).with_name("install.sh")


class Quiet(SimpleHTTPRequestHandler):
    def log_message(self, format: str, *_: object) -> None:
        """Say nothing."""


@pytest.fixture(scope="module")
def index(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """An index with two versions of a package."""
    root = tmp_path_factory.mktemp("index")
    for version in ("1.0", "2.0"):
        (root / "simple" / "tiny").mkdir(parents=True, exist_ok=True)
        with zipfile.ZipFile(root / "simple" / "tiny" / f"tiny-{version}-py3-none-any.whl", "w") as wheel:
            info = f"tiny-{version}.dist-info"
            wheel.writestr("tiny.py", f"version = {version!r}\n")
            wheel.writestr(f"{info}/METADATA", f"Metadata-Version: 2.1\nName: tiny\nVersion: {version}\n")
            wheel.writestr(f"{info}/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
            wheel.writestr(f"{info}/RECORD", "")
    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=str(root)))
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
    thread.start()
    yield f"http://127.0.0.1:{server.server_address[1]}/simple"
    server.shutdown()
    server.server_close()
    thread.join()


def install(bundle: Path, index: str, *packages: str, **more: str) -> subprocess.CompletedProcess[str]:
    """Run the script in a bundle, with nothing of this process's own settings of pip and uv."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("PIP_", "UV_"))}
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    environment |= {"PATH": path, "PIP_INDEX_URL": index, "UV_CACHE_DIR": str(bundle / "cache"), **more}
    words = ["sh", str(SCRIPT), sys.executable, *packages]
    return subprocess.run(words, cwd=bundle, env=environment, capture_output=True, text=True)


def version_in(bundle: Path) -> str:
    words = [str(bundle / "env/bin/python"), "-c", "import tiny; print(tiny.version)"]
    return subprocess.run(words, capture_output=True, text=True, check=True).stdout.strip()


def bundle_of(root: Path, pinned: str) -> Path:
    root.mkdir()
    (root / "requirements.txt").write_text("tiny>=1\n")
    (root / "constraints.txt").write_text(f"tiny=={pinned}\nnot-asked-for==3\n")
    return root


def test_versions_are_pinned_and_an_environment_is_used_again(tmp_path: Path, index: str) -> None:
    bundle = bundle_of(tmp_path / "bundle", "1.0")
    done = install(bundle, index)
    assert done.returncode == 0, done.stderr
    assert version_in(bundle) == "1.0"
    assert float((bundle / "env/seconds").read_text()) >= 0
    (bundle / "env/mark").touch()
    assert install(bundle, index).returncode == 0
    assert (bundle / "env/mark").exists()
    (bundle / "constraints.txt").write_text("tiny==2.0\n")
    assert install(bundle, index).returncode == 0
    assert version_in(bundle) == "2.0"


def test_a_prebuilt_image_is_used_if_it_has_the_same_versions(tmp_path: Path, index: str) -> None:
    image, bundle = bundle_of(tmp_path / "image", "1.0"), bundle_of(tmp_path / "bundle", "1.0")
    assert install(image, index).returncode == 0
    built = {"TUNEPLAN_IMAGE_ENV": str(image / "env")}
    assert install(bundle, "http://127.0.0.1:1/simple", **built).returncode == 0
    assert (bundle / "env").resolve() == image / "env"
    other = bundle_of(tmp_path / "other", "2.0")
    assert install(other, index, **built).returncode == 0
    assert version_in(other) == "2.0" and version_in(image) == "1.0"


def test_what_cannot_be_installed_ends_the_set_up_and_leaves_nothing_taken_for_whole(
    tmp_path: Path, index: str
) -> None:
    bundle = bundle_of(tmp_path / "bundle", "9.9")
    done = install(bundle, index)
    assert done.returncode != 0 and "tiny" in done.stderr
    assert not (bundle / "env/wanted").exists()


def test_wheels_of_directories_are_found_as_pip_finds_them(tmp_path: Path, index: str) -> None:
    """What an organisation has beside its index, as its own build of torch."""
    bundle = bundle_of(tmp_path / "bundle", "1.0")
    places = [tmp_path / "others", tmp_path / "wheels"]
    for place in places:
        place.mkdir()
    with urllib.request.urlopen(f"{index}/tiny/tiny-1.0-py3-none-any.whl") as answer:
        (places[1] / "tiny-1.0-py3-none-any.whl").write_bytes(answer.read())
    found = " ".join(str(place) for place in places)
    done = install(bundle, "", PIP_FIND_LINKS=found, UV_NO_INDEX="1")
    assert done.returncode == 0, done.stderr
    assert version_in(bundle) == "1.0"
