"""A headless Chromium and a JupyterLab of one's own, for the tests that look at the viewer where people do.

Knows nothing of the viewer. Everything listens on this machine only, keeps its settings in a folder it is given, and
ends with the test.
"""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

CLONE = Path(__file__).parents[1]
PYTHONPATH = f"{CLONE}{os.pathsep}{CLONE / 'tests'}"  # so that any interpreter finds the package and the examples
FLAGS = (
    "--headless --no-sandbox --disable-gpu --disable-quic --no-first-run --disable-background-networking "
    "--disable-component-update --disable-sync"
).split()
CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
PATIENCE = 60.0  # seconds that a busy machine may take for what takes two


@dataclass
class Watched:
    """A page, and what it should not have done: logged errors, or asked for something from elsewhere."""

    page: object
    home: str
    errors: list[str] = field(default_factory=list)
    strangers: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.page.on("console", lambda message: message.type == "error" and self.errors.append(message.text))
        self.page.on("pageerror", lambda error: self.errors.append(str(error)))
        self.page.on("request", lambda request: self._note(request.url))

    def _note(self, url: str) -> None:
        if not url.startswith((self.home, self.home.replace("http", "ws", 1), "data:", "blob:", "about:")):
            self.strangers.append(url)

    def assert_clean(self) -> None:
        assert not self.strangers, f"requests to elsewhere: {self.strangers}"
        assert not self.errors, f"errors in the console: {self.errors}"


@contextmanager
def chromium(profile: Path) -> Iterator:
    """A browser with a fresh profile: Playwright's persistent context, from which pages are opened."""
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        settings = {"executable_path": CHROMIUM, "args": FLAGS, "viewport": {"width": 1200, "height": 900}}
        context = playwright.chromium.launch_persistent_context(profile, **settings)
        context.set_default_timeout(PATIENCE * 1000)
        yield context
        context.close()


@dataclass
class Lab:
    """A running JupyterLab: its address, and the folder of its kernels' connection files."""

    url: str
    token: str
    root: Path
    runtime: Path

    def write_notebook(self, name: str, cells: list[str]) -> None:
        """Put a notebook of these code cells into the server's folder."""
        import nbformat

        notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(source) for source in cells])
        notebook.metadata.kernelspec = {"name": "python3", "display_name": "Python 3", "language": "python"}
        nbformat.write(notebook, self.root / name)

    def address(self, name: str) -> str:
        return f"{self.url}/lab/tree/{name}?token={self.token}"

    def kernel_of(self, name: str) -> str:
        """The number of the kernel that runs a notebook."""
        with urllib.request.urlopen(f"{self.url}/api/sessions?token={self.token}") as answer:
            return next(session["kernel"]["id"] for session in json.load(answer) if session["path"] == name)

    def run_all(self, page, name: str) -> None:
        """Open a notebook, wait until its kernel answers, and run all its cells."""
        page.goto(self.address(name))
        page.wait_for_selector("text=/ipykernel\\) \\| Idle/")  # the status bar, in JupyterLab 3 and 4 alike
        page.click('.lm-MenuBar-itemLabel:text-is("Run")')
        page.click('.lm-Menu-itemLabel:text-is("Run All Cells")')

    @contextmanager
    def python(self, name: str) -> Iterator:
        """A function that runs one expression in a notebook's kernel and gives its value."""
        from jupyter_client import BlockingKernelClient

        client = BlockingKernelClient(connection_file=str(self.runtime / f"kernel-{self.kernel_of(name)}.json"))
        client.load_connection_file()
        client.start_channels()
        client.wait_for_ready(timeout=PATIENCE)
        yield lambda expression: _evaluate(client, expression)
        client.stop_channels()


def _evaluate(client, expression: str):
    """The value of an expression by way of JSON; a statement (no value) gives None."""
    code, wanted = "", {"value": f"__import__('json').dumps({expression})"}
    if "=" in expression.replace("==", ""):
        code, wanted = expression, {}
    options = {"user_expressions": wanted, "store_history": False, "reply": True, "timeout": PATIENCE}
    answer = client.execute(code, **options)
    content = answer["content"]
    assert content["status"] == "ok", content
    if not wanted:
        return None
    value = content["user_expressions"]["value"]
    assert value["status"] == "ok", value
    return json.loads(eval(value["data"]["text/plain"], {"__builtins__": {}}))


@contextmanager
def jupyterlab(folder: Path, python: str = sys.executable) -> Iterator[Lab]:
    """Start JupyterLab with the given interpreter, its files below `folder`; it ends when the block does."""
    places = {name: folder / name for name in ("root", "config", "runtime", "settings", "workspaces", "ipython")}
    for place in places.values():
        place.mkdir(parents=True, exist_ok=True)
    _silence(places["settings"])
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    environment = os.environ | {
        "JUPYTER_CONFIG_DIR": str(places["config"]),
        "JUPYTER_RUNTIME_DIR": str(places["runtime"]),
        "JUPYTERLAB_SETTINGS_DIR": str(places["settings"]),
        "JUPYTERLAB_WORKSPACES_DIR": str(places["workspaces"]),
        "IPYTHONDIR": str(places["ipython"]),
        "PYTHONPATH": PYTHONPATH,
    }
    options = [f"--ServerApp.port={port}", "--ServerApp.ip=127.0.0.1", "--no-browser", "--allow-root"]
    options.append("--IdentityProvider.token=abc")
    command = [python, "-m", "jupyterlab", *options, f"--ServerApp.root_dir={places['root']}"]
    with open(folder / "lab.log", "wb") as log:
        server = subprocess.Popen(command, env=environment, stdout=log, stderr=log, cwd=places["root"])
        try:
            _wait_for(f"http://127.0.0.1:{port}/api?token=abc", server, folder / "lab.log")
            yield Lab(f"http://127.0.0.1:{port}", "abc", places["root"], places["runtime"])
        finally:
            server.terminate()
            server.wait(timeout=PATIENCE)


def _silence(settings: Path) -> None:
    """No question about news, no look for updates."""
    place = settings / "@jupyterlab" / "apputils-extension" / "notification.jupyterlab-settings"
    place.parent.mkdir(parents=True)
    place.write_text('{"fetchNews": "false", "checkForUpdates": false}')


def _wait_for(url: str, server: subprocess.Popen, log: Path) -> None:
    end = time.monotonic() + PATIENCE
    while time.monotonic() < end:
        assert server.poll() is None, f"JupyterLab ended by itself: {log.read_text()[-2000:]}"
        try:
            with urllib.request.urlopen(url):
                return
        except OSError:
            time.sleep(0.2)
    raise TimeoutError(f"JupyterLab did not answer in {PATIENCE} s: {log.read_text()[-2000:]}")
