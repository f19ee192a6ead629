"""A folder as one file, and back: an uncompressed tar of plain files and folders, and of nothing else."""

import os
import stat
import tarfile
from pathlib import Path, PurePosixPath
from typing import Final

from shepherd.errors import TaskFailedError

_PLAIN: Final = {tarfile.REGTYPE, tarfile.AREGTYPE}


def pack(folder: Path, target: Path) -> None:
    """Write what a folder holds into a tar, in the order of names; a link to a file inside it becomes that file.

    Raises:
        TaskFailedError: `invalid_result`: it holds what can't travel; the text names it.
    """
    root = folder.resolve()
    # Dereferenced, so that a link and a second name of the same file become files: neither is let in when unpacking.
    with tarfile.open(target, "w", format=tarfile.PAX_FORMAT, dereference=True) as tar:
        for parent, folders, files in os.walk(root):
            folders.sort()
            for name in sorted(files) + folders:
                path = Path(parent, name)
                _check(path, root=root)
                tar.add(path, arcname=str(path.relative_to(root)), recursive=False, filter=_without_owner)


def unpack(source: Path, folder: Path) -> Path:
    """Unpack such a tar into an empty folder, and return it.

    Raises:
        TaskFailedError: `invalid_data`: it isn't one, or it holds what could lead out of the folder; nothing of
            that entry and those after it was written.
    """
    try:
        with tarfile.open(source, "r:") as tar:
            for member in tar:
                _take_out(tar, member, folder=folder)
    except (tarfile.TarError, EOFError, ValueError, FileExistsError, NotADirectoryError) as error:
        raise TaskFailedError("invalid_data", f"the folder can't be unpacked: {error}") from None
    return folder


def _check(path: Path, *, root: Path) -> None:
    mode = path.lstat().st_mode
    if stat.S_ISLNK(mode):
        if not path.resolve().is_relative_to(root) or not path.is_file():
            reason = "is a link to something else than a file inside the folder"
            raise TaskFailedError("invalid_result", f"the returned folder can't travel: {path} {reason}")
    elif not stat.S_ISREG(mode) and not stat.S_ISDIR(mode):
        raise TaskFailedError("invalid_result", f"the returned folder can't travel: {path} is neither file nor folder")


def _without_owner(member: tarfile.TarInfo) -> tarfile.TarInfo:
    member.uid = member.gid = 0
    member.uname = member.gname = ""
    return member


def _take_out(tar: tarfile.TarFile, member: tarfile.TarInfo, *, folder: Path) -> None:
    # What is written comes from these names only. No link is ever made, so none can lead out.
    parts = PurePosixPath(member.name).parts
    if not parts or member.name.startswith("/") or ".." in parts or "\0" in member.name:
        raise ValueError(f"the name {member.name!r} leads out of it")
    path = folder.joinpath(*parts)
    if member.isdir():
        path.mkdir(parents=True, exist_ok=True)
        return
    content = tar.extractfile(member) if member.type in _PLAIN and not member.issparse() else None
    if content is None:
        raise ValueError(f"{member.name!r} is neither a file nor a folder")
    path.parent.mkdir(parents=True, exist_ok=True)
    with content, path.open("xb") as file:
        while chunk := content.read(1024 * 1024):
            file.write(chunk)
    path.chmod(0o755 if member.mode & 0o100 else 0o644)
    os.utime(path, (member.mtime, member.mtime))
