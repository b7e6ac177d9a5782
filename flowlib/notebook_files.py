"""The notebooks as files: where they lie, copied to a folder of the user's, and the address they name.

Where flowlib comes from in Colab is said in one place, the address of a repository. `write_address` puts it wherever a
clone names it: the notebooks' badges and set-up cells, README's links, the package's description.
"""

from __future__ import annotations

import re
import subprocess
from importlib.metadata import PackageNotFoundError, files
from pathlib import Path

from flowlib.workspace import atomic_write

COLAB = "https://colab.research.google.com"
UPLOAD = "To open it in Colab, upload it there; the next cell says where flowlib comes from."


def find_notebooks() -> list[Path]:
    """The notebooks of the clone that is in use, else those that were installed with the package.

    Raises:
        FileNotFoundError: neither is there.
    """
    clone = Path(__file__).parents[1]
    found = sorted(clone.glob("notebooks/*.ipynb")) if (clone / "pyproject.toml").is_file() else []
    if not found:
        try:
            installed = files("flowlib") or []
        except PackageNotFoundError:
            installed = []
        found = sorted(Path(str(one.locate())) for one in installed if one.match("share/flowlib/notebooks/*.ipynb"))
    if not found:
        raise FileNotFoundError(f"notebooks: expected them in {clone} or with the installed package, found none")
    return found


def copy_notebooks(folder: str | Path) -> dict[Path, bool]:
    """Copy the notebooks into a folder; what is there already stays.

    Returns:
        Where each is, and whether it was copied now.

    Raises:
        FileNotFoundError: as `find_notebooks`.
        OSError: the folder can't be written.
    """
    copied = {}
    for source in find_notebooks():
        target = Path(folder).expanduser() / source.name
        copied[target] = not target.exists()
        if copied[target]:
            with atomic_write(target) as temporary:
                temporary.write_bytes(source.read_bytes())
    return copied


def remote_address(clone: str | Path) -> str:
    """The https address of a clone's `origin`, or "" where it has none; a user's name or token in it is cut.

    Raises:
        ValueError: its address is none of https, ssh or git.
    """
    done = subprocess.run(
        ["git", "-C", str(clone), "config", "remote.origin.url"], capture_output=True, text=True, check=False
    )
    return web_address(done.stdout.strip()) if done.stdout.strip() else ""


def web_address(remote: str) -> str:
    """The https address of a repository, from any form that git takes.

    Raises:
        ValueError: it is no such form, a path for example, which nobody else can fetch from.

    >>> web_address("git@github.com:me/flowlib.git")
    'https://github.com/me/flowlib'
    """
    found = re.fullmatch(
        r"(?:(?:https?|ssh|git)://)?(?:[^@/\s]+@)?([\w.-]+\.\w+)(?::\d+(?=/))?[:/]([\w.~/-]+?)(?:\.git)?/?", remote
    )
    if not found or remote.startswith(("/", ".", "~", "file:")):
        raise ValueError(f"repository: expected an address such as https://github.com/me/flowlib, got {remote!r}")
    return f"https://{found[1]}/{found[2].lstrip('/')}"


def write_address(clone: str | Path, address: str, ref: str = "main") -> list[Path]:
    """Put the address of a repository wherever a clone names its own, or take it out.

    Args:
        clone: the folder with README.md, pyproject.toml and notebooks/.
        address: as `web_address` gives it; "" for none. Colab opens notebooks of GitHub alone, so another host's
            get no badge, and README's picture no absolute address.
        ref: the branch, tag or commit that badges open.

    Returns:
        The files that were changed.
    """
    clone, changed = Path(clone), []
    places = {path: _in_notebook(address, ref, path.stem) for path in sorted(clone.glob("notebooks/*_*.*"))}
    places |= {clone / "README.md": _in_readme(address, ref), clone / "pyproject.toml": _in_project(address)}
    places[clone / "CITATION.cff"] = [(r"(?m)^repository-code: .*\n", ""), (r"\Z", f"repository-code: {address}\n")]
    if not address:
        places[clone / "CITATION.cff"].pop()
    for path, changes in places.items():
        before = text = path.read_text(encoding="utf-8")
        for pattern, written in changes:
            text = re.sub(pattern, lambda found, written=written: found.expand(written), text)
        if text != before:
            with atomic_write(path) as temporary:
                temporary.write_text(text, encoding="utf-8")
            changed.append(path)
    return changed


def colab_link(address: str, ref: str, path: str) -> str:
    """The page of Colab that opens a notebook of a repository on GitHub; "" for one that lies elsewhere."""
    on_github = address.startswith("https://github.com/")
    return f"{COLAB}/github/{address.removeprefix('https://github.com/')}/blob/{ref}/{path}" if on_github else ""


def _in_notebook(address: str, ref: str, name: str) -> list[tuple[str, str]]:
    link = colab_link(address, ref, f"notebooks/{name}.ipynb")
    badge = f"[![Open in Colab]({COLAB}/assets/colab-badge.svg)]({link})" if link else UPLOAD
    line = rf"\[!\[Open in Colab\]\(\S+?\)\]\(\S+?\)|{re.escape(UPLOAD)}"
    return [(line, badge), (r'(?m)^(\s*"?repository = \\?")[^"\\]*', rf"\g<1>{address}")]


def _in_readme(address: str, ref: str) -> list[tuple[str, str]]:
    raw = address.replace("https://github.com/", "https://raw.githubusercontent.com/") + f"/{ref}/"
    beside = raw if "githubusercontent" in raw else ""
    source, opened = address or '"$FLOWLIB_REPO"', colab_link(address, ref, "")
    return [
        (r"(?m)^git clone \S+ flowlib$", f"git clone {source} flowlib"),
        (r"\]\(\S*?notebooks/(\d\d_\w+)\.ipynb\)", rf"]({opened}notebooks/\1.ipynb)"),
        (r'(\]\(|src="|srcset=")[^\s()"]*?docs/([\w/]+\.(?:png|webp))', rf"\1{beside}docs/\2"),
    ]


def _in_project(address: str) -> list[tuple[str, str]]:
    section = f'\n[project.urls]\nRepository = "{address}"\n' if address else ""
    return [
        (r"\n\[project\.urls\]\n(?:[^\[\n].*\n)*", ""),
        (r"\n(?=\n\[tool\.setuptools\.dynamic\])", "\n" + section),
    ]
