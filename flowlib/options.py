"""Options that commands share: the workspace they work in, and the trained model they take."""

from dataclasses import dataclass
from typing import Any, Literal  # no `annotations` of `__future__`: tyro can't evaluate a local class's

from flowlib.workspace import Workspace, check_name

Split = Literal["train", "val", "test", "calibration", "all"]


@dataclass(frozen=True)
class InWorkspace:
    root: str = ""  # the workspace; "" finds it: $FLOWLIB_ROOT, the mounted Drive, or workspace/ in the clone

    def __post_init__(self) -> None:
        names = {name: vars(self).get(name) for name in ("dataset", "run", "report")}
        for kind, name in names.items():
            if name or (name == "" and kind != "run"):  # "" stands for none
                check_name(kind, name)

    @property
    def workspace(self) -> Workspace:
        return Workspace(self.root).writable()


@dataclass(frozen=True)
class WithModel(InWorkspace):
    run: str = "two_frames"  # name of the run that was trained
    checkpoint: str = ""  # a file instead of the run's best.pt
    device: Literal["auto", "cpu", "cuda"] = "auto"  # where it runs

    def model(self) -> tuple[Any, dict[str, Any]]:
        """The trained model, and what its checkpoint says of it."""
        from flowlib.training.checkpoints import find_checkpoint, load_checkpoint

        return load_checkpoint(find_checkpoint(self.workspace.runs, self.run, self.checkpoint), device=self.device)
