"""Writing so that a kill or a full disk never leaves half a file or half a line."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path

from filelock import FileLock, Timeout

from deqcert.errors import RunFolderError

LOCK = ".lock"


def write_atomically(path: Path, content: str | bytes) -> None:
    """Replace `path` by `content` in one step: temporary file, fsync, rename, folder fsync.

    Raises:
        RunFolderError: The disk refused; what was at `path` is unchanged.
    """
    temporary = path.with_name(path.name + ".tmp")
    try:
        with open(temporary, "wb") as stream:
            stream.write(content.encode() if isinstance(content, str) else content)
            stream.flush()
            os.fsync(stream.fileno())
        os.replace(temporary, path)
        _sync_folder(path.parent)
    except OSError as error:
        with contextlib.suppress(OSError):  # on a disk that cannot be written at all
            temporary.unlink(missing_ok=True)
        raise cannot_write(path, error) from error


def make_folder(path: Path) -> None:
    """Make a folder, and those it is in, where it is missing.

    Raises:
        RunFolderError: The disk refused, or a file is in its way.
    """
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise cannot_write(path, error) from error


def cannot_write(path: Path, error: OSError) -> RunFolderError:
    """Return the one-line error for a disk that refused a write to `path`."""
    if isinstance(error, (FileExistsError, NotADirectoryError)):
        return RunFolderError(f"cannot make a folder of {path}: a file is in its way")
    return RunFolderError(
        f"cannot write {path}: {error.strerror or error}; what was written before is kept, "
        "run again to resume once there is space and permission"
    )


def lock_folder(folder: Path) -> FileLock:
    """Take the lock of a folder that one process at a time may write; release it when done.

    Raises:
        RunFolderError: Another process has it, or the disk refused.
    """
    lock = FileLock(folder / LOCK, thread_local=False)
    try:
        lock.acquire(timeout=0)
    except Timeout as error:
        raise RunFolderError(
            f"{folder} is being written by another process; wait for it or choose another folder"
        ) from error
    except OSError as error:
        raise cannot_write(folder / LOCK, error) from error
    return lock


class LineFile:
    """An append-only text file whose lines are either whole and on disk, or absent.

    Args:
        path: The file; created if missing.
        end: Length in bytes of the part to keep; anything after it is cut off.
    """

    def __init__(self, path: Path, *, end: int) -> None:
        self.path = path
        flags = os.O_RDWR | os.O_CREAT | os.O_APPEND | getattr(os, "O_BINARY", 0)
        try:
            self._descriptor = os.open(path, flags, 0o644)
            if os.fstat(self._descriptor).st_size != end:
                os.ftruncate(self._descriptor, end)
        except OSError as error:
            raise cannot_write(path, error) from error

    def append(self, line: str) -> None:
        """Append `line` and its newline; return once they are on disk.

        Raises:
            RunFolderError: The disk refused; the file is as it was before the call.
        """
        try:
            end = os.fstat(self._descriptor).st_size
        except OSError as error:
            raise cannot_write(self.path, error) from error
        try:
            _write_all(self._descriptor, (line + "\n").encode())
            os.fsync(self._descriptor)
        except BaseException as error:
            # Also on Ctrl-C between two partial writes: half a line would merge with the next one.
            self._cut(end)
            if isinstance(error, OSError):
                raise cannot_write(self.path, error) from error
            raise

    def _cut(self, end: int) -> None:
        """Cut the file at `end`; where even that fails, close it, so that nothing can follow."""
        try:
            os.ftruncate(self._descriptor, end)
        except OSError:
            self.close()

    def close(self) -> None:
        """Close the file; a second call does nothing."""
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1


def _write_all(descriptor: int, content: bytes) -> None:
    """Write all of `content`: the system may take less than it is given."""
    view = memoryview(content)
    while view:
        view = view[os.write(descriptor, view) :]


def _sync_folder(folder: Path) -> None:
    """Flush the folder's entries, so that a rename survives a power cut; a no-op on Windows."""
    if os.name != "posix":
        return
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        with contextlib.suppress(OSError):  # some network file systems cannot flush a folder
            os.fsync(descriptor)
    finally:
        os.close(descriptor)
