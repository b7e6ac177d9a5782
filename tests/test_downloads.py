"""Downloads against a server on this machine that can stall, stop, change its file and answer with pages."""

import hashlib
import http.server
import io
import threading
import zipfile

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


def test_a_drive_quota_is_one_sentence(tmp_path, monkeypatch):
    import gdown

    def download(id, output, resume):  # as gdown 5 has it
        raise gdown.exceptions.FileURLRetrievalError("Too many users have viewed\n\tor downloaded this file recently.")

    monkeypatch.setattr(gdown, "download", download)
    with pytest.raises(DownloadError, match=f"{IDENTITY}: Too many users have viewed or downloaded"):
        fetch_weights(IDENTITY, folder=tmp_path)
