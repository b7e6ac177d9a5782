"""Commands on hands: `flowlib hands collect | train | evaluate | view | action`; `__main__` says how they are made."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Annotated, Any, Literal  # no `annotations` of `__future__`: tyro can't evaluate a local class's

from flowlib.options import InWorkspace, Split, WithModel
from flowlib.workspace import check_name


@dataclass(frozen=True)
class OnHands(InWorkspace):
    dataset: str = "hands"  # name of the store of hands; other hands want another name


def make_hands_collect() -> type:
    """put hands into a store: synthetic ones, or FPHA, MSRA15, ICVL or NYU; run again, it goes on"""
    import tyro

    from flowlib.hands.sources import describe_hands, find_hands
    from flowlib.hands.store import StoreConfig, write_hands

    @dataclass(frozen=True)
    class Collect(OnHands):
        source: tyro.conf.Positional[str] = "synthetic"  # synthetic, fpha, msra15, icvl or nyu
        folder: str = ""  # where the published data set lies
        protocol: str = ""  # what is tested: cross-subject, within (synthetic), 1:1 (fpha), P0 to P8 (msra15), …
        subjects: int = 10  # people of the synthetic hand
        takes: int = 4  # of each of its actions by each of them
        families: int = 6  # of its actions, two each
        seed: int = 0  # of the synthetic hand
        config: Annotated[StoreConfig, tyro.conf.arg(name="")] = StoreConfig()
        verify: bool = False  # read what is stored already to the last byte, and store anew what is damaged

        def __call__(self) -> None:
            made = {name: vars(self)[name] for name in ("protocol", "subjects", "takes", "families", "seed")}
            collection = find_hands(self.source, self.folder, **made)
            store = self.workspace.dataset(self.dataset)
            skipped = write_hands(store, collection, self.config, verify=self.verify, progress=True)
            print(describe_hands(collection, skipped))

    return Collect


def make_hands_train() -> type:
    """train a network to find the joints of a hand; run again, it goes on where it was"""
    import tyro

    from flowlib.hand_views import open_hands, parse_augment
    from flowlib.hands.crop import CropConfig
    from flowlib.models.pose import PoseNet
    from flowlib.tasks.hand_pose import PoseTask
    from flowlib.training import TrainConfig, fit
    from flowlib.training.runs import run_folder

    quick = TrainConfig(
        "hand_pose", steps=2000, batch_size=64, optimizer="adam", weight_decay=0.0, learning_rate=1e-3,
        validate_every=200, save_every=200, threads=1,
    )  # fmt: skip

    @dataclass(frozen=True)
    class TrainHands(OnHands):
        unpacked: bool = False  # read depth from an unpacked copy: the same, faster, and some 15 times as large
        net: Literal["small", "deepprior++"] = "small"  # the published plan, or one for two CPU cores
        components: int = 30  # of the pose prior
        dropout: float = 0.0  # in the network's head; 0.3 as published
        loss: Literal["joints", "coefficients"] = "joints"  # squared error of joints, or as published
        hidden_weight: float = 0.1  # of hidden joints in the joints' loss; 1 with coefficients
        augment: str = "rot 30,scale 0.1,trans"  # changes of training crops, one for each; "" for none
        crop: Annotated[CropConfig, tyro.conf.arg(name="")] = CropConfig(size=64)
        config: Annotated[TrainConfig, tyro.conf.arg(name="")] = quick

        def __post_init__(self) -> None:
            super().__post_init__()
            check_name("name", self.config.name)

        def __call__(self) -> None:
            import torch

            store = self.workspace.dataset(self.dataset)
            train, validation, _ = open_hands(store, self.crop, unpacked=self.unpacked)
            torch.manual_seed(self.config.seed)
            shape = {"size": self.crop.size, "components": self.components, "dropout": self.dropout}
            model = PoseNet.named(self.net, joints=train.skeleton.num_joints, **shape)
            learned: dict[str, Any] = {"loss": self.loss, "hidden_weight": self.hidden_weight}
            augment = parse_augment(self.augment)
            task = PoseTask(augment=augment, pca_augment=augment, skeleton=train.skeleton.name, **learned)
            folder = run_folder(self.config.name, self.workspace.runs)
            result = fit(model, task, train, validation, self.config, folder=folder)
            print(result)
            print(f"Checkpoint: {result.best}")

    return TrainHands


@dataclass(frozen=True)
class WithPoseNet(WithModel, OnHands):
    run: str = "hand_pose"  # name of the run that was trained
    split: Split = "test"  # whose hands
    centre: Literal["", "truth", "estimated"] = ""  # of the crops; "" for that of the training

    def open_hands(self) -> tuple[Any, Any, dict[str, Any], Any]:
        """The trained network, its task, what its checkpoint says, and the sequences, cropped as in training."""
        from flowlib.hands.crop import CropConfig
        from flowlib.hands.dataset import HandSequences
        from flowlib.tasks.hand_pose import PoseTask
        from flowlib.training.checkpoints import load_task

        model, about = self.model()
        if not isinstance(task := load_task(about["path"]), PoseTask):
            raise ValueError(f"run: expected one trained on hands, got {about['path']}, of a {type(task).__name__}")
        crop = {key: value for key, value in about["data"]["train"]["crop"].items() if key != "truth"}
        crop = CropConfig(**crop | ({"centre": self.centre, "centre_noise": 0.0} if self.centre else {}))
        sequences = HandSequences(self.workspace.dataset(self.dataset), self.split, crop)
        return model, task, about, sequences


def make_hands_evaluate() -> type:
    """measure a network for hands beside the mean pose and the nearest crop, and write a report"""
    import tyro

    from flowlib.evaluation import EvalConfig, evaluate
    from flowlib.hand_views import pose_methods
    from flowlib.hands.dataset import HandFrames

    @dataclass(frozen=True)
    class EvaluateHands(WithPoseNet):
        config: Annotated[EvalConfig, tyro.conf.arg(name="")] = EvalConfig(threads=1)
        report: str = "hand_pose"  # name of the report's folder
        intervals: Literal["sequence", "subject"] = "sequence"  # what means and intervals are over
        allow_leak: bool = False  # evaluate on hands the checkpoint was trained on, and say so in the report

        def __call__(self) -> None:
            model, task, about, sequences = self.open_hands()
            train = HandFrames(sequences.root, "train", sequences.config)
            folder, task = self.workspace.report(self.report), replace(task, intervals=self.intervals)
            options: dict[str, Any] = {"config": self.config, "allow_leak": self.allow_leak, "about": {"model": about}}
            report = evaluate(pose_methods(model, train), task, sequences, folder=folder, **options)
            print(report.markdown(), f"Report: {report.save(folder)}", sep="\n")

    return EvaluateHands


@dataclass(frozen=True)
class ViewHands(WithPoseNet):
    """write a sequence of a hand in 3D, with a network's joints, as an HTML page that plays anywhere"""

    sequence: str = "0"  # number or key of a sequence
    report: str = "hands_view"  # name of the folder in reports/ that the page goes to

    def __call__(self) -> None:
        from flowlib.hand_views import hand_viewer
        from flowlib.notebook_views import save_viewer

        model, task, _, sequences = self.open_hands()
        keys = sequences.videos
        known = {name: number for number, key in enumerate(keys) for name in (str(number), key)}
        if self.sequence not in known:
            got = repr(self.sequence)
            raise ValueError(f"sequence: expected 0 to {len(keys) - 1} or a key such as {keys[0]!r}, got {got}")
        viewer = hand_viewer({"model": model}, sequences, known[self.sequence], task)
        save_viewer(viewer, self.workspace.report(self.report), "viewer")


def make_hands_action() -> type:
    """train a network to name actions from joints, and measure it; run again, it goes on where it was"""
    import tyro

    from flowlib.action_views import accuracy_table, action_methods, open_actions
    from flowlib.evaluation import EvalConfig, evaluate
    from flowlib.models.actions import ActionLSTM
    from flowlib.tasks.action import ActionTask
    from flowlib.training import TrainConfig, fit, load_checkpoint
    from flowlib.training.runs import run_folder

    quick = TrainConfig(
        "action", steps=2000, batch_size=20, optimizer="amsgrad", weight_decay=0.0, learning_rate=3e-3, clip="none",
        schedule="constant", validate_every=100, save_every=100, num_workers=0,
        threads=1,
    )  # fmt: skip

    @dataclass(frozen=True)
    class Action(OnHands):
        poses: str = "truth"  # what is classified: truth, or the name of a run of `hands train`, whose joints are taken
        partners: bool = True  # whether actions come in pairs, side by side, as those of the synthetic hand do
        hidden: int = 100  # units of the LSTM
        layers: int = 1  # of the LSTM
        attention: str = "none"  # or logits_sigmoid, logits_relu, logits_conv, inputs_conv, …
        mode: Literal["packed", "padded", "unrolled"] = "packed"  # how the LSTM is run: the same numbers
        features: Literal["given", "centre", "root", "bones"] = "given"  # what of the joints counts
        components: int = 0  # of a pose prior that joints go through first; 0: none
        max_frames: int = 0  # longer sequences are cut to their first frames; 0: none is
        train_noise: float = 0.0  # mm, how far joints of training sequences are moved at random
        report: str = "action"  # name of the report's folder
        intervals: Literal["sequence", "subject"] = "sequence"  # what means and intervals are over
        config: Annotated[TrainConfig, tyro.conf.arg(name="")] = quick

        def __post_init__(self) -> None:
            super().__post_init__()
            check_name("name", self.config.name)

        def __call__(self) -> None:
            import torch

            runs, folder = self.workspace.runs, self.workspace.report(self.report)
            store = self.workspace.dataset(self.dataset)
            train, validation, test = open_actions(store, self.poses, runs=runs, max_frames=self.max_frames)
            torch.manual_seed(self.config.seed)
            options = ("hidden", "layers", "attention", "mode", "features", "components")
            shape: dict[str, Any] = {name: vars(self)[name] for name in options} | {"skeleton": train.skeleton.name}
            model = ActionLSTM(3 * train.skeleton.num_joints, len(train.actions), **shape)
            learned: dict[str, Any] = {"noise": self.train_noise, "intervals": self.intervals}
            task = ActionTask(actions=tuple(train.actions), partners=self.partners, **learned)
            result = fit(model, task, train, validation, self.config, folder=run_folder(self.config.name, runs))
            print(result)
            best, about = load_checkpoint(result.best)
            methods = action_methods(best, task, train)
            scoring = EvalConfig(threads=self.config.threads)
            report = evaluate(methods, task, test, folder=folder, config=scoring, about={"model": about})
            print(*report.summary(), report.table(), accuracy_table(report), sep="\n")
            print(f"Checkpoint: {result.best}\nReport: {report.save(folder)}")

    return Action


HANDS: dict[str, type | Callable[[], type]] = {
    **{"hands collect": make_hands_collect, "hands train": make_hands_train},
    **{"hands evaluate": make_hands_evaluate, "hands view": ViewHands, "hands action": make_hands_action},
}
