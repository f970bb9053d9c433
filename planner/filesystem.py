"""Which kind of disk a directory lies on."""

from __future__ import annotations

from pathlib import Path

_NETWORK = {
    "nfs",
    "nfs4",
    "cifs",
    "smb3",
    "smbfs",
    "afs",
    "ceph",
    "lustre",
    "gpfs",
    "beegfs",
    "glusterfs",
    "9p",
}
_NETWORK_FUSE = (
    "sshfs",
    "s3fs",
    "gcsfuse",
    "rclone",
    "glusterfs",
    "ceph",
    "goofys",
    "blobfuse",
    "juicefs",
    "davfs",
)
_MOUNTS = Path("/proc/self/mounts")


def network_file_system(path: Path, mounts: str | None = None) -> str | None:
    """Type of the network file system that a directory lies on, None for a local disk or if nobody can tell.

    Args:
        path: An existing directory.
        mounts: Text as in /proc/self/mounts; default this machine's.
    """
    if mounts is None:
        try:
            mounts = _MOUNTS.read_text(encoding="utf-8", errors="replace")
        except OSError:
            return None
    kind = file_system(path.resolve(), mounts)
    if kind is None or kind in _NETWORK:
        return kind
    return kind if kind.startswith("fuse.") and kind[5:].startswith(_NETWORK_FUSE) else None


def file_system(path: Path, mounts: str) -> str | None:
    """Type of the innermost mount that holds an absolute path.

    >>> file_system(Path("/home/ann/x"), "a / ext4 rw 0 0\\nb /home nfs4 rw 0 0\\n")
    'nfs4'
    """
    best, kind = -1, None
    for line in mounts.splitlines():
        parts = line.split(" ")
        if len(parts) < 3:
            continue
        place = Path(parts[1].replace("\\040", " "))
        if path.is_relative_to(place) and len(place.parts) >= best:
            best, kind = len(place.parts), parts[2]
    return kind
