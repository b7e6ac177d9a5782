"""Read files of weights: what `torch.save` wrote, looked through whatever stands around it, and nothing of it run.

Every loader of weights comes through here. Knows files and names of tensors; knows no network. torch is loaded late.
"""

from __future__ import annotations

import errno
import gzip
import lzma
import pickle
import pickletools
import re
import shutil
import struct
import tarfile
import tempfile
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch import Tensor, nn

LARGEST = 4 << 30  # bytes of a file of weights; an archive that claims more isn't unpacked
NAMES = ("model_state_dict", "state_dict", "model", "module", "network", "net", "weights", "params")  # the first counts
WRAPPERS = re.compile(r"^(module\.|_orig_mod\.)+|(?<=\.)(_orig_mod|_fsdp_wrapped_module|_checkpoint_wrapped_module)\.")
STARTS = {
    b"%PDF": "a PDF",
    b"\x89PNG": "a picture",
    b"\xff\xd8\xff": "a picture",
    b"GIF8": "a picture",
    b"\x89HDF": "an HDF5 file",
    b"RIFF": "a RIFF file",
}
# What torch throws at damage; an OSError with a number is the disk's, and goes its way.
DAMAGE = (pickle.UnpicklingError, RuntimeError, EOFError, LookupError, ValueError, TypeError, AttributeError)
DAMAGE += (AssertionError, ArithmeticError, MemoryError, struct.error, zipfile.BadZipFile)


def read_weights(path: str | Path) -> dict[str, Tensor]:
    """A file's tensors by name, as float32 where they are floating.

    Looked through: {"state_dict": …}, {"model": …} and their like, what DataParallel (`module.`), torch.compile
    (`_orig_mod.`) and Lightning (`model.`) put before the names, numbers and objects beside the weights, and a tar
    archive (the newest of its checkpoints). Where a file holds several sets of weights, the one named as in `NAMES`.

    Raises:
        ValueError: not a file of weights that torch wrote; the message says what it is.
        OSError: it may not be read.
    """
    path = Path(path)
    if found := foreign_content(path):
        raise ValueError(f"{path}: expected weights that torch.save wrote, got {found}; get the file anew")
    with _newest_member(path) if tarfile.is_tarfile(path) else nullcontext(path) as file:
        return _tensors(_load(file, path), path)


def load_strictly(network: nn.Module, path: str | Path, name: str) -> None:
    """Fill `network`, called `name`, with exactly its own tensors from a file.

    Raises:
        ValueError: as `read_weights`, or a tensor is missing, unknown or of another shape.
    """
    state, wanted = read_weights(path), network.state_dict()
    counters = {key for key in wanted if key.endswith("num_batches_tracked")}  # old files lack them; nothing reads them
    missing, unknown = sorted(wanted.keys() - state.keys() - counters), sorted(state.keys() - wanted.keys())
    if missing or unknown:
        got = f"a file without {_some(missing)} and with unknown {_some(unknown)}"
        raise ValueError(f"{path}: expected the {len(wanted)} tensors of {name}, got {got}")
    for key, tensor in state.items():
        if tensor.shape != wanted[key].shape:
            shapes = f"expected {key} of shape {list(wanted[key].shape)}, got {list(tensor.shape)}"
            raise ValueError(f"{path}: {shapes} (weights of {name})")
    network.load_state_dict(wanted | state)


def _some(names: list[str]) -> str:
    return ", ".join(names[:3]) + f" and {len(names) - 3} more" * (len(names) > 3) if names else "none"


def foreign_content(path: Path) -> str:
    """What a file is that certainly holds no weights, in words: a web page, a text, …; "" for any other."""
    with open(path, "rb") as file:
        start = file.read(4096)
    if start[:2] == b"\x1f\x8b":
        try:
            with gzip.open(path) as file:
                start = file.read(4096)
        except (OSError, EOFError, zlib.error):
            return "a damaged archive"
    if not start.strip(b"\0 \t\r\n"):
        return "zeros" if start.strip() else "an empty one"
    if start.startswith(b"version https://git-lfs"):
        return "a Git LFS pointer in place of the file (`git lfs pull` in its repository fetches it)"
    if known := next((words for magic, words in STARTS.items() if start.startswith(magic)), ""):
        return known
    wide = start[:2] in (b"\xff\xfe", b"\xfe\xff")
    if not wide and re.search(rb"[\0-\x08\x0e-\x1a\x1c-\x1f]", start):  # which no text has, and all else soon
        return ""
    text = start.decode("utf-16" if wide else "utf-8", "replace").lstrip("\ufeff \t\r\n\f")
    if text.startswith("<"):
        return "a web page"
    return f"a text: {' '.join(text.split())[:100]!r}"


@contextmanager
def _newest_member(path: Path) -> Iterator[Path]:
    """The checkpoint with the highest number of a tar archive, unpacked under a name of its own."""
    try:
        with tarfile.open(path) as archive, tempfile.NamedTemporaryFile(suffix=".pth") as file:
            members = []
            for member in archive:
                if member.offset_data + member.size > LARGEST:
                    raise ValueError(f"{path}: expected an archive of at most {LARGEST:.1e} bytes, got a larger one")
                members += [member] * (member.isfile() and member.name.endswith((".pth", ".pt", ".bin")))
            if len({re.sub(r"\d+", "", Path(member.name).name) for member in members}) != 1:
                got = [member.name for member in members[:5]] or archive.getnames()[:5]
                raise ValueError(f"{path}: expected an archive of one network's checkpoints (*.pth), got {got}")
            newest = max(members, key=lambda member: (len(Path(member.name).name), Path(member.name).name))
            content = archive.extractfile(newest)
            assert content, "an ordinary file has a content"
            shutil.copyfileobj(content, file)  # never to where the member's own name leads
            file.flush()
            yield Path(file.name)
    except (tarfile.TarError, EOFError, zlib.error, lzma.LZMAError, gzip.BadGzipFile) as error:
        raise ValueError(f"{path}: expected weights in an archive, got a damaged one ({error})") from error


def _load(file: Path, path: Path) -> Any:
    """A file's content, with an empty stand-in wherever something would have to be run to have it back."""
    import torch

    # torch 2.4 has no such context; there, a file with objects beside the weights is refused.
    allowing = getattr(torch.serialization, "safe_globals", lambda names: nullcontext())
    try:
        with allowing(_stand_ins(file)):
            return torch.load(file, map_location="cpu", weights_only=True)
    except (*DAMAGE, OSError) as error:
        if isinstance(error, OSError) and error.errno not in (None, errno.EINVAL):  # a seek to where a cut file ends
            raise
        # The error's own text is left out: it advises to run what the file says.
        got = f"{'damaged data' if zipfile.is_zipfile(file) else 'another kind of file'}; get the file anew"
        if isinstance(error, pickle.UnpicklingError):
            named = re.search(r"GLOBAL ([\w.]+)", str(error))
            got = f"objects that would have to be run{(named and f' ({named[1]})') or ''}, or damaged data"
        elif "TorchScript" in str(error):
            got = "a TorchScript program (save its state_dict() instead)"
        elif isinstance(error, MemoryError):
            got = "tensors that don't fit into memory"
        raise ValueError(f"{path}: expected weights that torch.save wrote, got {got}") from error


def _stand_ins(file: Path) -> list[type]:
    """For every class and function that a file names, an empty class of that name; torch uses its own where it can."""
    names: set[str] = set()
    with ExitStack() as stack:
        if zipfile.is_zipfile(file):
            archive = stack.enter_context(zipfile.ZipFile(file))
            if any(name.endswith("/constants.pkl") for name in archive.namelist()):
                raise ValueError("TorchScript")
            pickles = [archive.open(name) for name in archive.namelist() if name.endswith("/data.pkl")]
        else:
            pickles = [stack.enter_context(open(file, "rb"))] * 5  # the old format: five pickles, then the numbers
        for data in pickles:
            names |= {str(arg) for opcode, arg, _ in pickletools.genops(data) if opcode.name == "GLOBAL"}
    # Protocol 2, which torch writes, has Python 2's names.
    return [_stand_in(*name.replace("__builtin__ ", "builtins ").split(" ", 1)) for name in names if " " in name]


def _stand_in(module: str, name: str) -> type:
    nothing = {"__init__": lambda self, *args: None, "__setstate__": lambda self, state: None}
    return type(name, (dict,), {**nothing, "__module__": module, "__qualname__": name, "__hash__": object.__hash__})


def _tensors(content: Any, path: Path) -> dict[str, Tensor]:
    import torch

    sets = dict(_sets(content))
    ranks = [name for known in NAMES for name in sets if name.split("/")[-1] == known]
    if not sets or _is_training_run(content):
        raise ValueError(f"{path}: expected a dictionary of weights, got {_in_words(content)}")
    if len(sets) > 1 and not ranks:
        got = f"several: {', '.join(sets)}; save the one that is meant by itself"
        raise ValueError(f"{path}: expected one network's weights, got {got}")
    found = {key: value for key, value in sets[ranks[0] if ranks else next(iter(sets))].items() if _is_plain(value)}
    plain = {WRAPPERS.sub("", str(key)): value for key, value in found.items()}
    found = plain if len(plain) == len(found) else found
    found.pop("n_averaged", None)  # of torch.optim.swa_utils
    for prefix in ("model.", "net.", "network."):
        if all(key.startswith(prefix) for key in found):
            found = {key.removeprefix(prefix): value for key, value in found.items()}
    found = {key: value.float() if value.is_floating_point() else value for key, value in found.items()}
    for key, value in found.items():
        if not torch.isfinite(value).all():
            raise ValueError(f"{path}: expected finite weights, got NaN or infinity in {key}")
    return found


def _sets(content: Any, name: str = "", depth: int = 3) -> Iterator[tuple[str, dict]]:
    """(place, dictionary) of every innermost dictionary of tensors, but an optimizer's."""
    if not isinstance(content, dict) or content.keys() >= {"state", "param_groups"}:
        return
    inner = [(key, value) for key, value in content.items() if isinstance(value, dict) and depth]
    deeper = [found for key, value in inner for found in _sets(value, f"{name}/{key}".strip("/"), depth - 1)]
    if deeper or any(map(_is_plain, content.values())):
        yield from deeper or [(name, content)]


def _is_plain(value: Any) -> bool:
    import torch

    return isinstance(value, torch.Tensor) and (value.layout, value.device.type) == (torch.strided, "cpu")


def _is_training_run(content: Any) -> bool:
    return isinstance(content, dict) and isinstance(content.get("meta"), str)


def _in_words(content: Any) -> str:
    if not isinstance(content, dict):
        return type(content).__name__
    if _is_training_run(content):
        return "a checkpoint of a training run (flowlib.training.load_checkpoint reads those)"
    if content.keys() >= {"state", "param_groups"} or "optimizer_state_dict" in content:
        return "an optimizer's state alone"
    if type(content) is not dict and type(content).__module__ != "collections":
        return f"an object, {type(content).__module__}.{type(content).__name__} (save its state_dict() instead)"
    inside = (f"{key}: {type(value).__module__}.{type(value).__name__}" for key, value in list(content.items())[:5])
    return f"none in {{{', '.join(inside)}}}"
