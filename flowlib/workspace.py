"""Name the places of artefacts, and write files whole or not at all.

A `Workspace` is one folder: on the mounted Drive in Colab, wherever `$FLOWLIB_ROOT` says, or `workspace/` in the clone.
Knows paths and bytes; knows nothing of videos, shards or checkpoints. It never mounts a Drive: that waits for a person.
"""

from __future__ import annotations

import hashlib
import json
import os
import platform
import re
import shutil
import sys
import tempfile
import warnings
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import cache
from pathlib import Path
from typing import Any
from zipfile import ZIP_DEFLATED, ZipFile

DRIVE = Path("/content/drive/MyDrive")
LONGEST_NAME = 220  # bytes; disks take 255, some of which a time or the name of a temporary file need


class Workspace:
    """The folder that holds a project's artefacts, with one sub-folder for each kind.

    Args:
        root: the folder; if empty, the first of `$FLOWLIB_ROOT`, `flowlib/` on the mounted Drive, and `workspace/`
            in the clone (found from the working folder upwards) or, outside a clone, in the working folder.

    >>> workspace = Workspace("/tmp/flowlib-example")
    >>> workspace.runs.name
    'runs'
    """

    def __init__(self, root: str | Path = "") -> None:
        self.root = _absolute(root) if str(root) else default_root()
        if self.root.exists() and not self.root.is_dir():
            raise NotADirectoryError(f"root: expected a folder, got the file {self.root}")

    def __repr__(self) -> str:
        return f"Workspace({str(self.root)!r})"

    @property
    def videos(self) -> Path:
        return self.root / "videos"

    @property
    def frames(self) -> Path:
        return self.root / "frames"

    @property
    def datasets(self) -> Path:
        return self.root / "datasets"

    @property
    def runs(self) -> Path:
        return self.root / "runs"

    @property
    def weights(self) -> Path:
        return self.root / "weights"

    @property
    def reports(self) -> Path:
        return self.root / "reports"

    @property
    def scans(self) -> Path:
        """What is known of videos by their content, see `shots.scan_all`; may be deleted at any time."""
        return self.root / "surveys.json"

    def dataset(self, name: str) -> Path:
        """The folder of the dataset called `name`."""
        return self.datasets / check_name("dataset", name)

    def check(self, name: str) -> Path:
        """The folder of the short trainings that check something about the run called `name`."""
        return self.root / "checks" / check_name("check", name)

    def report(self, name: str) -> Path:
        """The folder of the report called `name`."""
        return self.reports / check_name("report", name)

    @property
    def scratch(self) -> Path:
        """A folder on a local disk for work in progress: the root's own, or a temporary one where the root is a Drive.

        Files that grow on a mounted Drive may never be synchronised, so work there happens beside it.
        """
        if self.root.is_relative_to(DRIVE.parent):
            key = hashlib.sha256(str(self.root).encode()).hexdigest()[:12]
            return Path(tempfile.gettempdir()) / f"flowlib-{key}"
        return self.root / "scratch"

    def writable(self) -> Workspace:
        """This workspace, its root made and tried by writing a file; warns where it goes when Colab's session ends.

        Raises:
            OSError: the root can't be made or written; the message names it.
        """
        try:
            self.root.mkdir(parents=True, exist_ok=True)
            with tempfile.NamedTemporaryFile(dir=self.root, prefix=".write-test-"):
                pass
        except OSError as error:
            reason = error.strerror or error
            raise OSError(f"root: expected a folder that can be written, got {self.root} ({reason})") from error
        if "google.colab" in sys.modules and not self.root.is_relative_to(DRIVE.parent):
            _warn_of_session(self.root)
        return self

    def archive(self, path: str | Path = "") -> Path:
        """Pack the workspace into one .zip, for example to download it before a session ends.

        Unpacked anywhere, it is a workspace again: `Workspace("<that folder>")`. Left out is what can be had again:
        downloaded weights, work in progress and temporary files.

        Args:
            path: of the .zip; "" for one beside the workspace, with its name.

        Returns:
            Where it is; in Colab `google.colab.files.download(workspace.archive())` sends it to your computer.

        Raises:
            OSError: there is no workspace, or the .zip can't be written.
        """
        path = Path(path).expanduser() if str(path) else self.root.with_name(f"{self.root.name}_results.zip")
        if not self.root.is_dir():
            raise FileNotFoundError(f"root: expected a workspace to pack, found nothing at {self.root}")
        apart = {self.weights, self.root / "scratch"}
        with atomic_write(path) as temporary, ZipFile(temporary, "w", ZIP_DEFLATED, compresslevel=1) as packed:
            for folder, folders, names in os.walk(self.root):
                folders[:] = sorted(name for name in folders if Path(folder, name) not in apart)
                for file in (Path(folder, name) for name in sorted(names)):
                    if not file.name.endswith(".part") and file not in (path, temporary):
                        packed.write(file, file.relative_to(self.root))
        return path


@cache  # once for each root: several steps of a notebook ask for a writable workspace
def _warn_of_session(root: Path) -> None:
    warnings.warn(
        f"no Drive in use: what is made in {root} vanishes with this session. Mount your Drive (the folder icon on the "
        "left) and run the notebook again, or call workspace.archive() at the end: it packs a .zip to download",
        stacklevel=3,
    )


def _absolute(root: str | Path) -> Path:
    """A root as a shell would read it: with `~` and `$HOME` filled in, and `..` taken back."""
    path = Path(os.path.expandvars(root)).expanduser()
    unset = re.search(r"\$(\w+|\{\w+\})", str(path))
    if unset and not path.exists():
        raise ValueError(f"root: expected a folder, got {str(root)!r}, and there is no variable {unset[0]}")
    return path.resolve() if ".." in path.parts else path.absolute()


def default_root() -> Path:
    """The workspace's folder when none is named; see `Workspace`."""
    if os.environ.get("FLOWLIB_ROOT"):
        return _absolute(os.environ["FLOWLIB_ROOT"])
    if DRIVE.is_dir():
        return DRIVE / "flowlib"
    return (find_clone() or Path.cwd()) / "workspace"


def find_clone() -> Path | None:
    """The flowlib checkout that the working folder lies in, or None.

    papermill's working folder is the shell's and a notebook's its own, so both must lead to the same place.
    """
    for folder in (Path.cwd(), *Path.cwd().parents):
        if (folder / "flowlib" / "workspace.py").is_file() and (folder / "pyproject.toml").is_file():
            return folder
    return None


def check_name(kind: str, name: str) -> str:
    """Return `name` if it can name a folder in the workspace, else raise `ValueError`."""
    if not name.strip() or name != Path(name).name or name in (".", ".."):
        raise ValueError(f"{kind}: expected the name of a folder, without slashes, got {name!r}")
    if not name.isprintable() or len(name.encode()) > LONGEST_NAME:
        raise ValueError(f"{kind}: expected a name of printable letters, at most {LONGEST_NAME} bytes, got {name!r}")
    return name


@contextmanager
def atomic_write(path: str | Path, *, make_folder: bool = True) -> Iterator[Path]:
    """Give a temporary path beside `path`; what is written there takes its place when the block ends without an error.

    The file is fsynced before the rename and the folder after it, so a reader, a kill or a power cut finds the old
    file, the new file or none, never half a one. After an error the temporary file is removed.

    >>> path = Path("whole.txt")
    >>> with atomic_write(path) as temporary:
    ...     _ = temporary.write_text("all of it, or nothing")
    >>> path.read_text()
    'all of it, or nothing'
    """
    path = Path(path)
    if make_folder:  # not where a disk may go away: what was made in its place would keep it from coming back
        path.parent.mkdir(parents=True, exist_ok=True)
    temporary = temporary_path(path)
    try:
        yield temporary
        _fsync(temporary)
        os.replace(temporary, path)
        _fsync(path.parent)
    finally:
        temporary.unlink(missing_ok=True)


class ForgivingFile:
    """A new file for a writer that can't cope with errors: it may write on, and `close` raises what the disk refused.

    HDF5 can neither close a file that it couldn't write to its end nor forget it, and crashes when the process ends.

    Args:
        path: where; what is there is replaced.
    """

    def __init__(self, path: Path) -> None:
        self.file, self.error = open(path, "w+b", buffering=0), None  # noqa: SIM115 (closed by who made it)
        for name in ("seek", "tell", "flush", "read", "readinto"):
            setattr(self, name, getattr(self.file, name))

    def write(self, data: Any) -> int:
        """Write all of `data`, whatever has bytes, or remember why not."""
        left = memoryview(data).cast("B")
        size = len(left)
        with self._remembering():
            while left:
                left = left[self.file.write(left) :]
        return size

    def truncate(self, size: int) -> int:
        """Cut the file or lengthen it."""
        with self._remembering():
            self.file.truncate(size)
        return size

    def close(self) -> None:
        """Close the file.

        Raises:
            OSError: the disk has refused something.
        """
        self.file.close()
        if self.error:
            raise self.error

    @contextmanager
    def _remembering(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            error.filename = error.filename or self.file.name
            self.error = self.error or error


def temporary_path(path: Path) -> Path:
    """A name beside `path` for a file in the making; says by which process of which machine, see `clear_stale`."""
    return path.with_name(f".{path.name}.{_numbering()}.{os.getpid()}.part")


@cache
def _numbering() -> str:
    """Among which processes this one's number is its own: of this machine since it started, and of this container."""
    about = [platform.node()]
    for read in (Path("/proc/sys/kernel/random/boot_id").read_text, lambda: os.readlink("/proc/self/ns/pid")):
        with suppress(OSError):
            about.append(read())
    return f"flowlib-{hashlib.sha256(' '.join(about).encode()).hexdigest()[:12]}"


def clear_stale(folder: Path) -> None:
    """Remove the temporary files of processes that were killed, by their names, and nobody else's.

    Of another machine or container nobody here can say whether its process lives; such files go when they are a day old
    by the disk's own clock.
    """
    for path in folder.iterdir():
        if maker := re.fullmatch(r"\..+\.(flowlib-[0-9a-f]{12})\.(\d+)\.part", path.name):
            with suppress(FileNotFoundError):  # it was finished just now
                here = maker[1] == _numbering()
                if not _is_running(int(maker[2])) if here else _now(folder) - path.stat().st_mtime > 24 * 3600:
                    path.unlink()


def _now(folder: Path) -> float:
    """The time by the clock of a folder's disk."""
    with tempfile.TemporaryFile(dir=folder) as file:
        return os.fstat(file.fileno()).st_mtime


def _is_running(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        pass  # somebody else's
    return True


def write_json(path: str | Path, content: dict | list) -> Path:
    """Write `content` as readable JSON, atomically."""
    with atomic_write(path) as temporary:
        temporary.write_text(json.dumps(content, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
    return Path(path)


def read_json(path: str | Path) -> dict:
    """The JSON object in a file, which a person may have edited.

    Raises:
        ValueError: it holds none, or one with a name twice; the message names the file.
        OSError: it can't be read.
    """

    def once(pairs: list[tuple[str, Any]]) -> dict:
        content = dict(pairs)
        if len(content) < len(pairs):
            twice = Counter(name for name, _ in pairs).most_common(1)[0][0]
            raise ValueError(f"{twice!r} stands there twice")
        return content

    try:
        text = Path(path).read_text(encoding="utf-8").removeprefix("\ufeff")  # which some editors put first
        content = json.loads(text, object_pairs_hook=once)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{path}: expected JSON, {error}") from error
    if not isinstance(content, dict):
        raise ValueError(f"{path}: expected JSON, an object in braces, got {str(content)[:80]}")
    return content


@contextmanager
def locked(path: Path) -> Iterator[None]:
    """Hold the lock that is the file `path`, after whoever holds it now; it goes when its process does.

    Where a disk has no locks to give, as some mounted Drives, nothing is locked.
    """
    try:
        import fcntl
    except ImportError:  # Windows
        yield
        return
    try:
        lock = os.open(path, os.O_RDWR | os.O_CREAT)
    except PermissionError:
        lock = os.open(path, os.O_RDONLY)  # another user's, in a folder that both may write
    try:
        with suppress(OSError):
            fcntl.flock(lock, fcntl.LOCK_EX)
        yield
    finally:
        os.close(lock)


def publish(source: str | Path, target: str | Path, *, make_folder: bool = True) -> Path:
    """Copy a closed file to where it is to stay: under a temporary name, read back, compared, then renamed.

    Raises:
        OSError: the copy's SHA-256 differs from the source's, or the disk refuses; `target` is then untouched.
    """
    source, target = Path(source), Path(target)
    with atomic_write(target, make_folder=make_folder) as temporary:
        shutil.copyfile(source, temporary)
        _fsync(temporary)
        if sha256_file(temporary) != sha256_file(source):
            raise OSError(f"{target}: the copy differs from its source {source}; nothing was replaced")
    return target


def sha256_file(path: str | Path) -> str:
    """The SHA-256 of a file's bytes as 64 hexadecimal digits."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _fsync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    except OSError:
        if not path.is_dir():  # some mounted Drives can't sync a folder; a file must be synced
            raise
    finally:
        os.close(descriptor)
