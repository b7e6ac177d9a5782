"""Downloads against a server on this machine that can stall, stop, change its file and answer with pages."""

from __future__ import annotations

import gzip
import hashlib
import http.server
import io
import subprocess
import sys
import threading
import time
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest

import flowlib.downloads as downloads
from flowlib.downloads import DownloadError, drive_id, fetch_weights

IDENTITY = "1A2b3C4d5E6f7G8h9I0j1K2l3M4n5O6p7"


def archive(seed: int = 0, size: int = 3_000_000) -> bytes:
    """A zip, as torch writes weights, of bytes that don't repeat."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as file:
        entry = zipfile.ZipInfo("data.pkl")  # not dated: made twice, it is the same
        file.writestr(entry, b"".join(hashlib.sha256(b"%d %d" % (seed, i)).digest() for i in range(size // 32)))
    return buffer.getvalue()


class Server(http.server.ThreadingHTTPServer):
    """Serves `body`; the attributes below make it misbehave."""

    def __init__(self):
        super().__init__(("127.0.0.1", 0), Handler)
        self.body, self.status, self.content_type = archive(), 200, "application/octet-stream"
        self.drops_after: list[int] = []  # bytes after which the next answers break off
        self.tagged = self.with_length = True
        self.stalls = False
        self.raw: Callable[[Handler], None] | None = None  # answers in place of the rest
        self.raw_ranges: Callable[[Handler], None] | None = None  # the same where only a part is asked for
        self.ranges: list[str | None] = []
        self.released = threading.Event()

    def url(self, name: str = "model.pth") -> str:
        return f"http://127.0.0.1:{self.server_port}/weights/{name}"

    @property
    def tag(self) -> str:
        return f'"{hashlib.sha256(self.body).hexdigest()[:16]}"'


class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        server: Server = self.server
        server.ranges.append(self.headers.get("Range"))
        if raw := (self.headers.get("Range") and server.raw_ranges) or server.raw:
            try:
                return raw(self)
            except OSError:  # it was left
                return None
        start = 0
        if self.headers.get("Range") and self.headers.get("If-Range") == server.tag:
            start = int(self.headers["Range"].removeprefix("bytes=").removesuffix("-"))
        self.send_response(206 if start else server.status)
        self.send_header("Content-Type", server.content_type)
        if server.tagged:
            self.send_header("ETag", server.tag)
        if server.with_length:
            self.send_header("Content-Length", str(len(server.body) - start))
        if start:
            self.send_header("Content-Range", f"bytes {start}-{len(server.body) - 1}/{len(server.body)}")
        self.end_headers()
        rest = server.body[start:]
        self.wfile.write(rest[: server.drops_after.pop(0)] if server.drops_after else rest)
        if server.stalls:
            server.released.wait(20)

    def send(self, head: str, body: bytes = b"") -> None:
        """Exactly this: the status and headers, then the body."""
        self.wfile.write(b"HTTP/1.1 " + "\r\n".join([*head.split("; "), "", ""]).encode() + body)
        self.close_connection = True

    def log_message(self, *args):
        pass


@pytest.fixture
def server(monkeypatch):
    monkeypatch.setattr(downloads, "PAUSE", 0.0)
    server = Server()
    threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
    yield server
    server.released.set()
    server.shutdown()
    server.server_close()


def test_fetches_once_prints_the_hash_and_leaves_only_the_file(server, tmp_path, capsys):
    path = fetch_weights(server.url(), folder=tmp_path)
    assert path.read_bytes() == server.body and path.suffix == ".pth"
    assert hashlib.sha256(server.body).hexdigest() in capsys.readouterr().out
    assert fetch_weights(server.url(), folder=tmp_path) == path
    assert server.ranges == [None]
    assert list(tmp_path.iterdir()) == [path]


def test_the_cache_is_the_workspace(server, tmp_path, monkeypatch):
    monkeypatch.setenv("FLOWLIB_ROOT", str(tmp_path))
    path = fetch_weights("", default_url=server.url())
    assert path.parent == tmp_path / "weights" and path.read_bytes() == server.body
    assert not any(file.is_file() for file in (tmp_path / "scratch").rglob("*"))


def test_files_of_one_name_from_two_places_do_not_meet(server, tmp_path):
    first = fetch_weights(server.url("a/model.pth"), folder=tmp_path)
    server.body = archive(seed=1)
    second = fetch_weights(server.url("b/model.pth"), folder=tmp_path)
    assert first.read_bytes() != second.read_bytes() == server.body


def test_a_broken_connection_is_gone_on_with(server, tmp_path):
    server.drops_after = [1 << 20, 1 << 19]
    assert fetch_weights(server.url(), folder=tmp_path).read_bytes() == server.body
    starts = [0 if asked is None else int(asked[6:-1]) for asked in server.ranges]
    assert starts == [0, 1 << 20, (1 << 20) + (1 << 19)]


def test_a_later_call_goes_on_where_an_earlier_one_gave_up(server, tmp_path):
    server.drops_after = [1 << 20, 0, 0]
    with pytest.raises(DownloadError, match="stopped after 1.0 MB .* run it again"):
        fetch_weights(server.url(), folder=tmp_path)
    assert not list(tmp_path.glob("*.pth"))
    server.drops_after = []
    assert fetch_weights(server.url(), folder=tmp_path).read_bytes() == server.body
    assert server.ranges[-1] == "bytes=1048576-"


def test_starts_again_when_the_servers_file_has_changed(server, tmp_path):
    server.drops_after = [1 << 20, 0, 0]
    with pytest.raises(DownloadError):
        fetch_weights(server.url(), folder=tmp_path)
    server.drops_after, server.body = [], archive(seed=1)
    assert fetch_weights(server.url(), folder=tmp_path).read_bytes() == server.body


def test_starts_again_when_the_server_cannot_resume(server, tmp_path):
    server.tagged, server.drops_after = False, [1 << 20]
    assert fetch_weights(server.url(), folder=tmp_path).read_bytes() == server.body
    assert server.ranges == [None, None]


def test_a_stop_between_the_last_byte_and_the_rename_costs_nothing(server, tmp_path, monkeypatch):
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(downloads, "_check_arrived", lambda *args: (_ for _ in ()).throw(KeyboardInterrupt()))
        fetch_weights(server.url(), folder=tmp_path)
    assert not list(tmp_path.glob("*.pth"))
    assert fetch_weights(server.url(), folder=tmp_path).read_bytes() == server.body
    assert len(server.ranges) == 1


def test_a_cut_archive_of_unannounced_length_is_refused(server, tmp_path):
    server.with_length, server.drops_after = False, [1 << 20]
    with pytest.raises(DownloadError, match="cut short"):
        fetch_weights(server.url(), folder=tmp_path)
    assert not list(tmp_path.glob("*.pth"))
    assert fetch_weights(server.url(), folder=tmp_path).read_bytes() == server.body


def test_a_stalled_server_is_given_up(server, tmp_path, monkeypatch):
    monkeypatch.setattr(downloads, "TIMEOUT", (1.0, 0.3))
    server.stalls, server.drops_after = True, [1 << 20, 0, 0, 0]
    with pytest.raises(DownloadError, match="stopped after 1.0 MB"):
        fetch_weights(server.url(), folder=tmp_path)


@pytest.mark.parametrize(
    "answer, asked",
    [
        ("416 Range Not Satisfiable; Content-Range: bytes */{size}", 2),  # all is here
        ("416 Range Not Satisfiable; Content-Range: bytes */{size}; ETag: {tag}", 2),
        ("416 Range Not Satisfiable", 3),
        ("416 Range Not Satisfiable; Content-Range: bytes */17", 3),
        ('416 Range Not Satisfiable; Content-Range: bytes */{size}; ETag: "other"', 3),
    ],
)
def test_a_stop_before_the_rename_without_a_length_is_no_416_for_ever(server, tmp_path, monkeypatch, answer, asked):
    server.with_length = False
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(downloads, "_check_arrived", lambda *args: (_ for _ in ()).throw(KeyboardInterrupt()))
        fetch_weights(server.url(), folder=tmp_path)
    head = answer.format(size=len(server.body), tag=server.tag)
    server.raw_ranges = lambda handler: handler.send(f"{head}; Content-Length: 0")
    assert fetch_weights(server.url(), folder=tmp_path).read_bytes() == server.body
    assert len(server.ranges) == asked and len(list(tmp_path.iterdir())) == 1


RIGHT = "Content-Range: bytes 1048576-{last}/{size}"


@pytest.mark.parametrize(
    "head, start",
    [
        ("ETag: {tag}", 1 << 20),  # no word of what it is
        ("Content-Range: bytes 7-{last}/{size}", 7),
        ("Content-Range: bytes 2000000-{last}/{size}", 2_000_000),
        ("Content-Range: 1048576-{last}", 1 << 20),
        ("Content-Range: bytes 1048576-{last}/99999999", 1 << 20),
        (RIGHT, 0),  # all of the file under the header of its end
        (RIGHT + '; ETag: "other"', 1 << 20),
        (RIGHT + "; Content-Encoding: gzip", 1 << 20),
        ("Content-Type: multipart/byteranges", 1 << 20),
    ],
)
def test_a_wrong_part_is_thrown_away_and_all_fetched_anew(server, tmp_path, head, start):
    server.drops_after = [1 << 20]
    head = "206 Partial Content; " + head.format(last=len(server.body) - 1, size=len(server.body), tag=server.tag)
    body = server.body[start:]
    server.raw_ranges = lambda handler: handler.send(f"{head}; Content-Length: {len(body)}", body)
    assert fetch_weights(server.url(), folder=tmp_path).read_bytes() == server.body
    assert server.ranges == [None, "bytes=1048576-", None]


@pytest.mark.parametrize("span, start", [("bytes 1048576-{last}/*", 1 << 20), ("bytes 0-{last}/{size}", 0)])
def test_a_part_that_is_right_in_other_words_is_taken(server, tmp_path, span, start):
    server.drops_after = [1 << 20]
    span = span.format(last=len(server.body) - 1, size=len(server.body))
    head = f"206 Partial Content; Content-Range: {span}; Content-Length: {len(server.body) - start}"
    server.raw_ranges = lambda handler: handler.send(head, server.body[start:])
    assert fetch_weights(server.url(), folder=tmp_path).read_bytes() == server.body
    assert len(server.ranges) == 2


def test_a_server_that_only_sends_wrong_parts_is_given_up(server, tmp_path):
    server.raw = lambda handler: handler.send("206 Partial Content; Content-Length: 3", b"abc")
    with pytest.raises(DownloadError, match="no file from 127.0.0.1 .ChunkedEncodingError.; .*give its path"):
        fetch_weights(server.url(), folder=tmp_path)


HTML = b"<html><body>Quota exceeded</body></html>"


@pytest.mark.parametrize(
    "body, found",
    [
        (b"<!-- served by cache 7 -->\n" + HTML, "web page"),
        (b"<!--" + b" a long comment" * 1000 + b"-->" + HTML, "web page"),
        (b"\xef\xbb\xbf\r\n" + HTML, "web page"),
        (HTML.decode().encode("utf-16"), "web page"),
        (b"<Error><Code>AccessDenied</Code></Error>", "web page"),
        (gzip.compress(HTML, mtime=0), "web page"),
        (b'{"error": "rate limit exceeded"}', "a text: '.*rate limit"),
        (b'  [{"message": "Not Found"}]', "a text: '.*Not Found"),
        (b"Not Found", "a text: 'Not Found'"),
        ("Zugriff für Gäste gesperrt".encode("latin-1"), "a text: 'Zugriff"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 9\n", "a Git LFS pointer"),
        (b"\n \r\n", "got an empty one"),
        (bytes(100_000), "got zeros"),
        (b"%PDF-1.7\n\x00\x01", "a PDF"),
        (gzip.compress(archive(), mtime=0)[:100], "a damaged archive|cut short"),
    ],
)
@pytest.mark.parametrize("with_length", [True, False])
def test_what_is_no_file_of_weights_is_not_kept(server, tmp_path, body, found, with_length):
    server.body, server.with_length = body, with_length
    with pytest.raises(DownloadError, match=found):
        fetch_weights(server.url(), folder=tmp_path)
    assert not {file.suffix for file in tmp_path.iterdir()} - {".lock"}
    server.body = archive()
    assert fetch_weights(server.url(), folder=tmp_path).read_bytes() == server.body


def endless(pause: float, size: int, *, chunked: bool = False) -> Callable[[Handler], None]:
    def answer(handler: Handler) -> None:
        handler.send("200 OK; Transfer-Encoding: chunked" if chunked else "200 OK")
        piece = b"%x\r\n%s\r\n" % (size, b"\0\1" * (size // 2)) if chunked else b"\0\1" * (size // 2)
        while not handler.server.released.wait(pause):
            handler.wfile.write(piece)

    return answer


@pytest.mark.parametrize("answer", [endless(0, 1 << 16), endless(0, 1 << 10, chunked=True), "announced"])
def test_a_file_without_an_end_is_left_and_not_kept(server, tmp_path, monkeypatch, answer):
    monkeypatch.setattr(downloads, "MAX_BYTES", 4_000_000)
    head = "200 OK; Content-Length: 9000000000"
    server.raw = (lambda handler: handler.send(head, b"PK")) if answer == "announced" else answer
    with pytest.raises(DownloadError, match="expected at most 0.0 GB .flowlib.downloads.MAX_BYTES.*nothing of it is"):
        fetch_weights(server.url(), folder=tmp_path)
    assert not {file.suffix for file in tmp_path.iterdir()} - {".lock"} and len(server.ranges) == 1


def test_a_file_without_an_end_leaves_room_on_the_disk(server, tmp_path, monkeypatch):
    free, real = iter(range(downloads.SPARE + 3_000_000, 0, -(1 << 16))), downloads.shutil.disk_usage(tmp_path)
    monkeypatch.setattr(downloads.shutil, "disk_usage", lambda path: real._replace(free=next(free)))
    server.raw = endless(0, 1 << 16)
    with pytest.raises(DownloadError, match="expected 268 MB of free disk"):
        fetch_weights(server.url(), folder=tmp_path)
    assert not {file.suffix for file in tmp_path.iterdir()} - {".lock"}


def test_a_disk_that_refuses_to_write_is_left_empty(server, tmp_path):
    code = f"""
import resource
resource.setrlimit(resource.RLIMIT_FSIZE, (1_000_000, 1_000_000))
from flowlib.downloads import DownloadError, fetch_weights
try:
    fetch_weights({server.url()!r}, folder={str(tmp_path)!r})
except DownloadError as error:
    print("refused:", error)
"""
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert "refused: " in result.stdout and "File too large; nothing of it is kept" in result.stdout, result.stderr
    assert not {file.suffix for file in tmp_path.iterdir()} - {".lock"}


def drip(head: str, rest: bytes) -> Callable[[Handler], None]:
    """A server that sends `rest` byte by byte, each within the time to wait for it."""

    def answer(handler: Handler) -> None:
        handler.wfile.write(b"HTTP/1.1 200 OK\r\n" + head.encode())
        for i in range(1000):
            handler.wfile.write(rest[i : i + 1] or b"x")
            if handler.server.released.wait(0.03):
                return

    return answer


@pytest.mark.parametrize(
    "answer",
    [
        drip("", b"X-Slow: "),  # the headers
        drip("Content-Length: 3000000\r\n\r\n", b"PK"),
        drip("\r\n", b"PK"),
        drip("Transfer-Encoding: chunked\r\n\r\n", b"1\r\nP\r\n" * 200),
        drip("Transfer-Encoding: chunked\r\n\r\n", b"1;"),  # the length of a chunk
    ],
)
def test_a_drip_is_given_up(server, tmp_path, monkeypatch, answer):
    monkeypatch.setattr(downloads, "TIMEOUT", (0.2, 0.3))
    server.raw, began = answer, time.monotonic()
    with pytest.raises(DownloadError, match="ReadTimeout"):
        fetch_weights(server.url(), folder=tmp_path)
    assert time.monotonic() - began < 5 and not list(tmp_path.glob("*.pth"))


def test_a_steady_stream_has_a_limit_in_all(server, tmp_path, monkeypatch):
    monkeypatch.setattr(downloads, "LONGEST", 0.7)
    server.raw, began = endless(0.05, 1 << 16), time.monotonic()
    with pytest.raises(DownloadError, match=r"stopped after .* \(ReadTimeout\)"):
        fetch_weights(server.url(), folder=tmp_path)
    assert time.monotonic() - began < 5 and len(server.ranges) == 1


@pytest.mark.parametrize(
    "state", ["[]", "7", "{", '{"url": 3}', '{"url": "URL", "total": "x", "validator": "TAG"}', "\0"]
)
def test_a_spoilt_note_on_a_part_costs_the_part_at_most(server, tmp_path, state):
    server.drops_after = [1 << 20, 0, 0]
    with pytest.raises(DownloadError):
        fetch_weights(server.url(), folder=tmp_path)
    (note,) = tmp_path.glob("*.json")
    note.write_text(state.replace("URL", server.url()).replace("TAG", server.tag.replace('"', '\\"')))
    assert fetch_weights(server.url(), folder=tmp_path).read_bytes() == server.body


@pytest.mark.parametrize("content_type", ["text/html; charset=utf-8", "application/octet-stream"])
def test_a_quota_page_is_no_file(server, tmp_path, content_type):
    server.body, server.content_type = b"\n<!DOCTYPE html><html>Quota exceeded</html>", content_type
    with pytest.raises(DownloadError, match="web page instead of the file"):
        fetch_weights(server.url(), folder=tmp_path)
    assert not {file.suffix for file in tmp_path.iterdir()} - {".lock"}


def test_an_empty_answer_and_a_refusal_say_so(server, tmp_path):
    server.body = b""
    with pytest.raises(DownloadError, match="got an empty one"):
        fetch_weights(server.url(), folder=tmp_path)
    server.status = 404
    with pytest.raises(DownloadError, match="answered 404 Not Found"):
        fetch_weights(server.url(), folder=tmp_path)


def test_the_hash_of_the_default_is_checked_also_by_its_first_digits(server, tmp_path):
    digest = hashlib.sha256(server.body).hexdigest()
    for known in (digest, digest[:8]):
        fetch_weights("", default_url=server.url(), sha256=known, folder=tmp_path)
    with pytest.raises(DownloadError, match="expected SHA-256 00000000, got .*delete it"):
        fetch_weights("", default_url=server.url(), sha256="00000000", folder=tmp_path)


def test_a_wrong_hash_leaves_nothing(server, tmp_path):
    with pytest.raises(DownloadError, match=f"expected SHA-256 {'0' * 64}, got"):
        fetch_weights(server.url() + "#sha256=" + "0" * 64, folder=tmp_path)
    assert not {file.suffix for file in tmp_path.iterdir()} - {".lock"}


def test_ones_own_file_needs_not_be_the_default(server, tmp_path):
    own = tmp_path / "own.pth"
    own.write_bytes(b"weights")
    assert fetch_weights(str(own), default_url=server.url(), sha256="0" * 64) == own
    with pytest.raises(DownloadError, match="own.pth: expected SHA-256"):
        fetch_weights(str(own), sha256="0" * 64)


def test_no_network_names_the_host(server, tmp_path):
    server.shutdown()
    server.server_close()
    with pytest.raises(DownloadError, match="no connection to 127.0.0.1 .*give its path"):
        fetch_weights(server.url(), folder=tmp_path)


def test_a_full_disk_is_noticed_before(server, tmp_path, monkeypatch):
    usage = type(downloads.shutil.disk_usage(tmp_path))(10, 9, 1000)
    monkeypatch.setattr(downloads.shutil, "disk_usage", lambda path: usage)
    with pytest.raises(DownloadError, match="expected 3 MB of free disk, got 0 MB"):
        fetch_weights(server.url(), folder=tmp_path)


def test_jobs_that_ask_together_download_once(server, tmp_path):
    jobs = [threading.Thread(target=fetch_weights, args=(server.url(),), kwargs={"folder": tmp_path}) for _ in range(4)]
    for job in jobs:
        job.start()
    for job in jobs:
        job.join()
    assert len(server.ranges) == 1 and len(list(tmp_path.glob("*.pth"))) == 1


def test_a_missing_path_is_not_taken_for_anything_else(tmp_path, refuses):
    with pytest.raises(FileNotFoundError, match="nothing there"):
        fetch_weights("weights/missing.pth")
    with pytest.raises(FileNotFoundError, match="got a folder"):
        fetch_weights(str(tmp_path))
    with refuses("expected a path, a URL or a Google Drive id"):
        fetch_weights("")
    with refuses("8 to 64 hexadecimal digits"):
        fetch_weights("http://127.0.0.1/x.pth", sha256="abc")


@pytest.mark.parametrize(
    "source, expected",
    [
        (IDENTITY, IDENTITY),
        (f"https://drive.google.com/file/d/{IDENTITY}/view?usp=drive_link", IDENTITY),
        (f"https://drive.google.com/uc?export=download&id={IDENTITY}", IDENTITY),
        ("https://example.org/model.pth", None),
        ("weights/model-000200000.pth", None),
        ("model.pth", None),
    ],
)
def test_drive_ids_are_told_from_paths_and_urls(source, expected):
    assert drive_id(source) == expected


def test_a_drive_file_goes_through_gdown(tmp_path, monkeypatch):
    import gdown

    asked = {}

    def download(id, output, resume, timeout, retries):
        asked.update(id=id, resume=resume, timeout=timeout)
        with open(output, "wb") as file:
            file.write(archive())
        return output

    monkeypatch.setattr(gdown, "download", download)
    path = fetch_weights(f"https://drive.google.com/file/d/{IDENTITY}/view", folder=tmp_path)
    assert path.read_bytes() == archive() and asked == {"id": IDENTITY, "resume": True, "timeout": downloads.TIMEOUT}


def test_a_drive_file_without_an_end_or_a_part_that_cannot_be_gone_on_with(tmp_path, monkeypatch):
    import gdown

    calls = []

    def download(id, output, resume, progress, cancel):
        calls.append(output)
        part = tmp_path / f"{output}abcd1234.part"
        if part.exists():
            raise gdown.exceptions.DownloadError("Server did not honor the requested byte range")
        part.write_bytes(b"PK")
        if len(calls) < 2:
            progress(9_000_000_000, None)
        if len(calls) < 3:
            raise gdown.exceptions.DownloadError("incomplete")
        part.rename(output)
        Path(output).write_bytes(archive())
        return output

    monkeypatch.setattr(gdown, "download", download)
    with pytest.raises(DownloadError, match="expected at most 4.3 GB .*nothing of it is kept"):
        fetch_weights(IDENTITY, folder=tmp_path)
    assert not {file.suffix for file in tmp_path.iterdir()} - {".lock"}
    with pytest.raises(DownloadError, match="incomplete"):
        fetch_weights(IDENTITY, folder=tmp_path)
    path = fetch_weights(IDENTITY, folder=tmp_path)  # the part is refused once, then all is fetched anew
    assert path.read_bytes() == archive() and len(calls) == 4 and list(tmp_path.iterdir()) == [path]


def test_a_drive_quota_is_one_sentence(tmp_path, monkeypatch):
    import gdown

    def download(id, output, resume):  # as gdown 5 has it
        raise gdown.exceptions.FileURLRetrievalError("Too many users have viewed\n\tor downloaded this file recently.")

    monkeypatch.setattr(gdown, "download", download)
    with pytest.raises(DownloadError, match=f"{IDENTITY}: Too many users have viewed or downloaded"):
        fetch_weights(IDENTITY, folder=tmp_path)
