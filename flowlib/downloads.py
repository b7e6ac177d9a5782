"""Weights files: from a path, a URL or a Google Drive id into the cache, whole and checked or not at all.

What arrives grows under a temporary name on a local disk, is looked at (length, SHA-256, a page or text in place of
a file, an archive cut short) and only then takes its name. Knows bytes and HTTP; nothing of networks or checkpoints.
"""

from __future__ import annotations

import glob
import gzip
import hashlib
import inspect
import json
import logging
import os
import re
import shutil
import threading
import time
import zipfile
import zlib
from collections.abc import Generator, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from queue import Empty, Queue
from typing import Any
from urllib.parse import parse_qs, urlsplit

from flowlib.progress import Progress
from flowlib.weight_files import LARGEST, foreign_content
from flowlib.workspace import Workspace, publish, sha256_file

ATTEMPTS = 4
PAUSE = 2.0  # seconds before the next attempt
TIMEOUT = (20.0, 60.0)  # seconds to connect, and for each piece; a slow server must not hang a night's job
LONGEST = 6 * 3600.0  # seconds for a file in all
PIECE = 1 << 16  # what a broken connection may cost
MAX_BYTES = LARGEST  # of a file, announced or not
SPARE = 256 << 20  # bytes of the disk that a file of unannounced length leaves free
PAGE_HINT = (
    "got a web page instead of the file (on Google Drive: too many downloads today, or not shared with anyone who "
    "has the link; on Dropbox the link must end in dl=1; on Hugging Face it must hold /resolve/, not /blob/)"
)

logger = logging.getLogger(__name__)


class DownloadError(OSError):
    """A file could not be fetched, or what came is not the file; the message is one sentence with the remedy."""


def fetch_weights(source: str, *, default_url: str = "", sha256: str = "", folder: Path | None = None) -> Path:
    """Find a weights file, downloading it once if it isn't here.

    An interrupted download goes on where it stopped when the server's file is still the same one, in this call
    (a few times) or in the next; otherwise it starts again. Several processes may ask for the same file at once.

    Args:
        source: a path, a URL, a Google Drive id or link; "" for `default_url`. A URL or an id may end in
            "#sha256=…" to have that checked.
        default_url: where the published file is.
        sha256: what the default file must have (or `source`, where there is no default): 64 hexadecimal digits, or
            the first 8 or more of them, as in torchvision's file names. A file without a known one has it printed.
        folder: the cache; `weights/` of the workspace if None.

    Returns:
        The path of a whole file.

    Raises:
        FileNotFoundError: `source` reads as a path, and nothing is there.
        DownloadError: no network, a server's refusal, a page or text instead of the file, a wrong SHA-256, a file of
            more than `MAX_BYTES`, a server that takes longer than `LONGEST`.
        ValueError: neither a source nor a default, or a `sha256` that isn't one.

    >>> fetch_weights(str(Path(__file__))).name
    'downloads.py'
    """
    expected = sha256 if not source or not default_url else ""
    source, _, pinned = str(source or default_url).strip().partition("#sha256=")
    expected = (pinned or expected).lower()
    if not source:
        raise ValueError("source: expected a path, a URL or a Google Drive id, got ''")
    if expected and not re.fullmatch("[0-9a-f]{8,64}", expected):
        raise ValueError(f"sha256: expected 8 to 64 hexadecimal digits, got {expected!r}")
    path = Path(source).expanduser()
    if path.is_file():
        _check_hash(path, expected)
        return path
    if drive_id(source) is None and not _is_url(source):
        got = "a folder" if path.is_dir() else "nothing there"
        raise FileNotFoundError(f"{source}: expected a weights file, a URL or a Google Drive id, got {got}")
    return _fetch_into_cache(source, expected, folder)


def drive_id(source: str) -> str | None:
    """The id in a Google Drive link, `source` itself if it looks like a bare id, or None.

    >>> drive_id("https://drive.google.com/file/d/1A2b3C4d5E6f7G8h9I0j1K2l3M4n5O6p7/view?usp=sharing")
    '1A2b3C4d5E6f7G8h9I0j1K2l3M4n5O6p7'
    """
    if re.fullmatch(r"[A-Za-z0-9_-]{25,80}", source):
        return source
    url = urlsplit(source)
    if url.hostname not in ("drive.google.com", "docs.google.com", "drive.usercontent.google.com"):
        return None
    in_path = re.search(r"/d/([A-Za-z0-9_-]{10,})", url.path)
    return in_path.group(1) if in_path else parse_qs(url.query).get("id", [None])[0]


def _is_url(source: str) -> bool:
    return urlsplit(source).scheme in ("http", "https") and bool(urlsplit(source).hostname)


def _fetch_into_cache(source: str, expected: str, folder: Path | None) -> Path:
    folder = folder and Path(folder).expanduser()
    target = (folder or Workspace().weights) / _cache_name(source)
    if target.is_file():
        _check_hash(target, expected, f"; delete it to have it fetched again: {target}")
        return target
    growing = (folder or Workspace().scratch / "downloads") / f"{target.name}.part"
    growing.parent.mkdir(parents=True, exist_ok=True)
    with _alone(growing.with_suffix(".lock")):
        if not target.is_file():  # else another process fetched it while this one waited
            _receive(source, growing)
            _check_arrived(growing, source, expected)
            _settle(growing, target)
    return target


def _cache_name(source: str) -> str:
    """A name of its own for each source, since half of all weights files are called model.pth."""
    key = hashlib.sha256(source.encode()).hexdigest()[:8]
    name = Path(urlsplit(source).path).name if drive_id(source) is None else f"drive-{drive_id(source)}"
    stem, dot, suffixes = (re.sub(r"[^\w.+-]", "_", name[-120:]) or "weights").partition(".")
    return f"{stem}-{key}{dot}{suffixes}"


@contextmanager
def _alone(path: Path) -> Iterator[None]:
    """Hold the lock file `path`, so that of several jobs in one workspace one downloads and the others wait."""
    try:
        import fcntl
    except ImportError:  # no such locks on Windows; there each process has to be started alone
        yield
        return
    with open(path, "w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX)
        except OSError:
            logger.warning("%s: this disk knows no locks, so start only one download of a file at a time", path.parent)
        yield
        path.unlink(missing_ok=True)


def _receive(source: str, growing: Path) -> None:
    """Have `growing` hold all that the server announces."""
    identity = drive_id(source)
    if identity is None:
        _receive_url(source, growing)
    else:
        _receive_drive(identity, growing)


def _receive_drive(identity: str, growing: Path) -> None:
    import gdown
    import requests

    refusal = gdown.exceptions.FileURLRetrievalError
    refusals = (refusal, getattr(gdown.exceptions, "DownloadError", refusal))  # the second came with gdown 6
    # gdown 5, as found on Colab, knows none of these; it then waits for as long as the server does.
    late, known = threading.Event(), inspect.signature(gdown.download).parameters
    wanted = {"timeout": TIMEOUT, "retries": ATTEMPTS - 1, "cancel": late, "progress": _check_size}
    patience = {name: value for name, value in wanted.items() if name in known}
    timer = threading.Timer(LONGEST, late.set)
    timer.daemon = True
    timer.start()
    before = _leftovers(growing)
    try:
        got = gdown.download(id=identity, output=str(growing), resume=True, **patience)
    except requests.RequestException as error:
        raise _unreachable(f"https://drive.google.com/uc?id={identity}", growing, error) from error
    except refusals as error:
        if before and _leftovers(growing) == before:  # what is left of an earlier call can't be gone on with
            _discard(growing)
            return _receive_drive(identity, growing)
        reason = " ".join(str(error).split())
        raise DownloadError(f"Google Drive does not give out {identity}: {reason}") from error
    except OSError as error:  # the disk's, or a limit's
        _discard(growing)
        raise DownloadError(f"Google Drive, {identity}: {error}; nothing of it is kept") from error
    except getattr(gdown.exceptions, "DownloadCancelled", ()) as error:
        raise DownloadError(f"Google Drive took longer than {LONGEST:.0f} s; run it again to go on") from error
    finally:
        timer.cancel()
    if got is None:
        raise DownloadError(f"Google Drive does not give out {identity}: {PAGE_HINT}")


def _leftovers(growing: Path) -> dict[Path, int]:
    """gdown's own temporary files for `growing`, and their sizes."""
    return {path: path.stat().st_size for path in growing.parent.glob(f"{glob.escape(growing.name)}*.part")}


def _receive_url(url: str, growing: Path) -> None:
    import requests

    deadline = time.monotonic() + LONGEST
    for attempt in range(1, ATTEMPTS + 1):
        before = _size(growing)
        try:
            if not _is_complete(growing, url):
                with closing(_pieces(url, _resume_headers(growing, url), deadline)) as pieces:
                    _append(pieces, growing, url)
            return
        except requests.RequestException as error:
            stuck = attempt > 1 and _size(growing) == before  # twice without a byte
            if attempt == ATTEMPTS or stuck or time.monotonic() > deadline:
                raise _unreachable(url, growing, error) from error
        time.sleep(PAUSE)


def _pieces(url: str, headers: dict[str, str], deadline: float) -> Generator[Any, None, None]:
    """The server's response, then what it sends, in pieces.

    A thread reads them: a server that drips byte after byte, be it of its headers, would hold this one for ever.
    """
    import requests

    pieces: Queue[Any] = Queue(16)
    left = threading.Event()

    def read() -> None:
        try:
            with requests.get(url, stream=True, timeout=TIMEOUT, headers=headers) as response:
                pieces.put(response)
                for piece in response.iter_content(PIECE):
                    pieces.put(piece)
                    if left.is_set():
                        return
            pieces.put(None)
        except requests.RequestException as error:
            pieces.put(error)
        except (OSError, ValueError) as error:  # what requests lets pass
            pieces.put(requests.ConnectionError(str(error)))

    threading.Thread(target=read, daemon=True).start()
    patience, received = time.monotonic() + sum(TIMEOUT), 0
    try:
        while True:
            try:
                piece = pieces.get(timeout=max(0.0, min(patience, deadline) - time.monotonic()))
            except Empty:
                raise requests.ReadTimeout(f"{url}: too slow") from None
            if piece is None:
                return
            if isinstance(piece, Exception):
                raise piece
            yield piece
            received += len(piece) if isinstance(piece, bytes) else PIECE
            if received >= PIECE:
                patience, received = time.monotonic() + TIMEOUT[1], 0
    finally:
        left.set()
        while not pieces.empty():  # the thread may wait for room
            pieces.get_nowait()


def _append(pieces: Iterator[Any], growing: Path, url: str) -> None:
    """Write a response to `growing`: its end if the server goes on where we stopped, else all of it."""
    import requests

    response, have, state = next(pieces), _size(growing), _state(growing, url)
    changed = _validator(response) not in ("", state.get("validator"))
    if response.status_code == 416 and have:
        if not changed and response.headers.get("Content-Range") == f"bytes */{have}":
            return  # an earlier call was stopped just before giving the file its name
        raise _start_anew(growing, "the server's file has changed")
    if response.status_code >= 400:
        raise DownloadError(f"{url}: the server answered {response.status_code} {response.reason}")
    if "text/html" in response.headers.get("Content-Type", ""):
        raise DownloadError(f"{url}: {PAGE_HINT}")
    start, total = _extent(response)
    differs = None not in (total, state.get("total")) and total != state["total"]
    if start not in (0, have) or (start and (changed or differs)):
        span = response.headers.get("Content-Range")
        raise _start_anew(growing, f"asked for the bytes from {have} on, got {span}")
    try:
        _write(pieces, growing, start, total, {"url": url, "total": total, "validator": _validator(response)})
    except OSError as error:
        if isinstance(error, requests.RequestException):
            raise
        _discard(growing)  # a limit or the disk has refused it
        raise DownloadError(f"{url}: {error}; nothing of it is kept") from error
    if total is not None and _size(growing) > total:
        raise _start_anew(growing, f"got more than the announced {total} bytes")
    if total is not None and _size(growing) < total:
        raise requests.exceptions.ChunkedEncodingError(f"{_size(growing)} of {total} bytes")


def _write(pieces: Iterator[bytes], growing: Path, start: int, total: int | None, state: dict[str, Any]) -> None:
    _check_size(start, total)
    _check_room(growing, (total or 0) - start)
    _state_file(growing).write_text(json.dumps(state))
    with (
        open(growing, "ab" if start else "wb") as file,
        Progress(None, growing.stem, total, "B", initial=start, unit_scale=True) as bar,
    ):
        for piece in pieces:
            _check_size(file.tell() + len(piece))
            if total is None:
                _check_room(growing, SPARE)
            file.write(piece)
            bar.update(len(piece))


def _extent(response) -> tuple[int, int | None]:
    """Where in the file a response starts (-1: it doesn't say), and how long the whole file is (None: the same)."""
    if response.status_code == 206:
        span = re.fullmatch(r"bytes (\d+)-(\d+)/(\d+|\*)", response.headers.get("Content-Range", ""))
        if span is None or _is_encoded(response):
            return -1, None
        return int(span[1]), int(span[2]) + 1 if span[3] == "*" else int(span[3])
    length = response.headers.get("Content-Length", "")
    return 0, int(length) if length.isdigit() and not _is_encoded(response) else None


def _is_encoded(response) -> bool:
    return response.headers.get("Content-Encoding", "identity") != "identity"


def _check_size(size: int, total: int | None = None) -> None:
    if max(size, total or 0) > MAX_BYTES:
        got = f"{total / 1e9:.1f} GB" if total else "more, without an end"
        raise DownloadError(f"expected at most {MAX_BYTES / 1e9:.1f} GB (flowlib.downloads.MAX_BYTES), got {got}")


def _check_room(growing: Path, needed: int) -> None:
    free = shutil.disk_usage(growing.parent).free
    if needed > free:
        raise DownloadError(f"{growing.parent}: expected {needed / 1e6:.0f} MB of free disk, got {free / 1e6:.0f} MB")


def _start_anew(growing: Path, why: str) -> OSError:
    from requests.exceptions import ChunkedEncodingError

    _discard(growing)
    return ChunkedEncodingError(why)


def _resume_headers(growing: Path, url: str) -> dict[str, str]:
    state = _state(growing, url)
    headers = {"Accept-Encoding": "identity", "User-Agent": "flowlib"}
    if state.get("validator") and _size(growing):
        # With If-Range a server whose file has changed sends all of the new one.
        headers |= {"Range": f"bytes={_size(growing)}-", "If-Range": state["validator"]}
    return headers


def _validator(response) -> str:
    """What tells this version of the server's file from another; "" where a download can't be gone on with."""
    if _is_encoded(response):  # there, the server counts other bytes than these
        return ""
    tag = response.headers.get("ETag", "")
    return tag if tag and not tag.startswith("W/") else response.headers.get("Last-Modified", "")


def _is_complete(growing: Path, url: str) -> bool:
    """Whether an earlier call got every byte and was stopped just before giving the file its name."""
    total = _state(growing, url).get("total")
    return total is not None and _size(growing) == total


def _state_file(growing: Path) -> Path:
    return growing.with_name(f"{growing.name}.json")


def _state(growing: Path, url: str) -> dict:
    try:
        state = json.loads(_state_file(growing).read_text())
    except (FileNotFoundError, ValueError):
        return {}
    return state if isinstance(state, dict) and state.get("url") == url else {}


def _size(path: Path) -> int:
    return path.stat().st_size if path.is_file() else 0


def _unreachable(url: str, growing: Path, error: Exception) -> DownloadError:
    import requests

    reason = type(error).__name__
    if _size(growing):
        done = f"stopped after {_size(growing) / 1e6:.1f} MB"
        return DownloadError(f"{url}: {done} ({reason}); run it again to go on from there")
    lost = "no connection to" if isinstance(error, requests.ConnectionError) else "no file from"
    remedy = "with no network here, copy the file over and give its path"
    return DownloadError(f"{url}: {lost} {urlsplit(url).hostname} ({reason}); {remedy}")


def _check_arrived(growing: Path, source: str, expected: str) -> None:
    """Refuse what isn't the file, and remove it so that the next call starts anew."""
    try:
        if found := foreign_content(growing):
            hint = PAGE_HINT if found == "a web page" else f"expected a weights file, got {found}"
            raise DownloadError(f"{source}: {hint}")
        _check_whole_archive(growing, source)
        _check_hash(growing, expected, f" from {source}")
    except DownloadError:
        _discard(growing)
        raise
    if not expected:
        print(f"{source}: SHA-256 {sha256_file(growing)}")


def _check_whole_archive(path: Path, source: str) -> None:
    """Servers that announce no length leave only the file's own end to tell whether it all came."""
    with open(path, "rb") as file:
        start = file.read(4)
    try:
        if start == b"PK\x03\x04":
            zipfile.ZipFile(path).close()
        elif start[:2] == b"\x1f\x8b":
            with gzip.open(path) as archive:
                while archive.read(PIECE):
                    _check_size(archive.tell())
    except (zipfile.BadZipFile, EOFError, zlib.error, OSError) as error:
        raise DownloadError(f"{source}: the archive that came is cut short or damaged ({error})") from error


def _check_hash(path: Path, expected: str, where: str = "") -> None:
    if not expected:
        return
    digest = sha256_file(path)
    if not digest.startswith(expected):
        raise DownloadError(f"{path.name}: expected SHA-256 {expected}, got {digest}{where}")


def _settle(growing: Path, target: Path) -> None:
    if growing.parent == target.parent:
        with open(growing, "rb+") as file:
            os.fsync(file.fileno())
        os.replace(growing, target)
    else:
        publish(growing, target)
    _discard(growing)


def _discard(growing: Path) -> None:
    for path in (growing, _state_file(growing), *_leftovers(growing)):
        path.unlink(missing_ok=True)
