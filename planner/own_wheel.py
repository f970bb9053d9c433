"""This installation of tuneplan as a wheel, and what installs it: another machine gets the very same code."""

from __future__ import annotations

import base64
import hashlib
import shutil
import zipfile
from collections.abc import Iterable
from importlib import metadata
from importlib.util import find_spec
from pathlib import Path

from planner.bundle import INSTALL_SCRIPT, LOCK, install_script, pinned_versions
from providers.errors import StorageError

_DISTRIBUTION = "tuneplan"
_PACKAGES = ("planner", "jobs", "providers")
_TAG = "py3-none-any"


def write_installable(directory: Path, extras: Iterable[str]) -> None:
    """Replace a directory by one in which `sh install.sh` makes `env/bin/plan`.

    Args:
        directory: Nothing else may be in it.
        extras: Ours.

    Raises:
        StorageError: It cannot be written.
    """
    try:
        shutil.rmtree(directory, ignore_errors=True)
        directory.mkdir(parents=True, mode=0o700)
        wheel = build_wheel(directory)
        # the hash makes other code of the same version another wish
        wanted = f"./{wheel.name}[{','.join(extras)}]\n# {hashlib.sha256(wheel.read_bytes()).hexdigest()}\n"
        (directory / "requirements.txt").write_text(wanted, encoding="utf-8")
        (directory / "constraints.txt").write_text(pinned_versions(), encoding="utf-8")
        (directory / INSTALL_SCRIPT).write_text(install_script(), encoding="utf-8")
    except OSError as error:
        raise StorageError(f"cannot write {directory}: {error.strerror or error}") from error


def build_wheel(directory: Path) -> Path:
    """Write the wheel; equal code makes an equal file.

    Raises:
        StorageError: The directory cannot be written, or the installation has lost its metadata.
    """
    here = metadata.distribution(_DISTRIBUTION)
    info = f"{_DISTRIBUTION}-{here.version}.dist-info"
    files = {name: path.read_bytes() for name, path in _sources().items()}
    files[f"planner/{LOCK}"] = pinned_versions().encode()  # in a checkout it lies beside the package
    files[f"{info}/METADATA"] = _told(here, "METADATA")
    files[f"{info}/entry_points.txt"] = _told(here, "entry_points.txt")
    files[f"{info}/WHEEL"] = f"Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: {_TAG}\n".encode()
    record = f"{info}/RECORD"
    files[record] = _record(files, record)
    target = directory / f"{_DISTRIBUTION}-{here.version}-{_TAG}.whl"
    try:
        with zipfile.ZipFile(target, "w", zipfile.ZIP_DEFLATED) as wheel:
            for name, body in files.items():
                wheel.writestr(zipfile.ZipInfo(name), body, zipfile.ZIP_DEFLATED)
    except OSError as error:
        raise StorageError(f"cannot write {target}: {error.strerror or error}") from error
    return target


def _sources() -> dict[str, Path]:
    """Names in the wheel, sorted, and the files of the imported packages."""
    files: dict[str, Path] = {}
    for package in _PACKAGES:
        spec = find_spec(package)
        root = Path(str(spec and spec.origin)).parent
        for path in root.rglob("*"):
            if path.is_file() and "__pycache__" not in path.parts:
                files[f"{package}/{path.relative_to(root).as_posix()}"] = path
    return {name: files[name] for name in sorted(files)}


def _told(distribution: metadata.Distribution, name: str) -> bytes:
    text = distribution.read_text(name)
    if text is None:
        raise StorageError(f"this installation of tuneplan has no {name}", hint="install it again")
    return text.encode()


def _record(files: dict[str, bytes], own: str) -> bytes:
    rows = [f"{name},sha256={_hash(body)},{len(body)}" for name, body in files.items()]
    return "\n".join([*rows, f"{own},,", ""]).encode()


def _hash(body: bytes) -> str:
    return base64.urlsafe_b64encode(hashlib.sha256(body).digest()).rstrip(b"=").decode()
