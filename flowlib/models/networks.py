"""`NetworkConfig`: which network is trained, and how it starts, as the notebooks and the command line ask for it.

Plain values in, a network out: the fully convolutional one (`fcn`), or one that flow guides (`guided`) with its
one-frame sibling. Knows nothing of losses or data.
"""

from __future__ import annotations

from dataclasses import dataclass, fields

from torch import nn

from flowlib.models.backbones import EarlyStages
from flowlib.models.fcn import TrajectoryFCN, stem_twins
from flowlib.models.futures import check_futures
from flowlib.models.guided import GuidedTrajectories
from flowlib.models.one_frame import OneFrameTrajectories

MODELS = ("fcn", "guided")
OF_FCN = ("backbone", "conv1", "head", "batch_norm", "working_size")
OF_GUIDED = ("flow", "flow_weights", "design")
OF_FUTURES = ("futures", "latent")


@dataclass(frozen=True)
class NetworkConfig:
    """A network to be trained. Fields of the other model are left as they are: setting one is an error.

    Raises:
        ValueError: an unknown model, or a field that the model has no use for; the message names it.
    """

    model: str = "fcn"  # or guided: optical flow, corrected; with one input frame what will move, from features
    backbone: str = "fcn_resnet50"  # also deeplabv3_resnet50, lraspp_mobilenet_v3_large, or timm/ and a name there
    weights: str = "auto"  # auto (ImageNet if it can be had), none, imagenet, coco, a path, URL or Drive id
    stride_in: str = "3x3"  # of these weights: 3x3 as torchvision's, or 1x1 as the first ResNets'
    conv1: str = "difference"  # how the first layer's weights serve two frames, or duplicate, mean, zero
    head: str = "fine"  # or torchvision (stride 8: smooth and grid-like)
    batch_norm: str = "train"  # or frozen, group
    flow: str = "dis refined"  # that guides: this, dis (faster), dis wide (slower, finds far motion), or raft
    flow_weights: str = ""  # of RAFT: "" for torchvision's, else a path, URL or gdown id
    design: str = "unet"  # of guided: unet, local (little to learn, for few videos), recurrent, pretrained (by weights)
    futures: int = 1  # whole futures that it gives, up to 8; 1 for one answer
    latent: str = "none"  # of guided: futures are modes with a weight each (none), or drawn: ae, vae, cvae
    input_frames: tuple[int, ...] = (0, 3)  # frames of a clip that the network sees
    working_size: tuple[int, int] | None = None  # height and width that it works at; None: the clips' own

    def __post_init__(self) -> None:
        if self.model not in MODELS:
            raise ValueError(f"model: expected one of {', '.join(MODELS)}, got {self.model!r}")
        check_futures(self.futures, self.latent)
        unused = OF_FCN if self.model == "guided" else (*OF_GUIDED, "latent")
        by_flow_alone = self.model == "guided" and len(self.input_frames) > 1 and self.design != "pretrained"
        unused += ("weights", "stride_in") if by_flow_alone else ()
        for field in fields(self):
            value = getattr(self, field.name)
            if field.name in unused and value != field.default and (field.name, value) != ("weights", "none"):
                raise ValueError(
                    f"{field.name}: expected {field.default!r} with model={self.model!r} and input_frames="
                    f"{self.input_frames}, which has no use for it, got {value!r}"
                )

    def make(self, num_frames: int) -> nn.Module:
        """The network for clips of `num_frames` frames, as it starts; random numbers are torch's, so seed these.

        >>> NetworkConfig("guided").make(8).config["flow"]
        'dis refined'
        """
        if self.model == "fcn":
            options = {name: value for name, value in vars(self).items() if name not in ("model", "latent", *OF_GUIDED)}
            return TrajectoryFCN(num_frames=num_frames, **options)
        if self.input_frames == (0,):
            options = {name: getattr(self, name) for name in ("weights", "stride_in", *OF_FUTURES)}
            return OneFrameTrajectories(num_frames=num_frames, **options)
        options = {name: getattr(self, name) for name in (*OF_GUIDED, *OF_FUTURES)}
        options |= {"num_frames": num_frames, "input_frames": self.input_frames, "modes_from": "velocity"}
        if self.design == "pretrained":
            options |= {"weights": self.weights, "stride_in": self.stride_in}
        return GuidedTrajectories(**options)

    def twins(self, num_frames: int) -> dict[str, nn.Module]:
        """Two networks by name that must learn the same, step for step, or something is wired up wrong.

        Of `fcn` a one-frame network and its twin, whose weights for later frames are zero and held there; of `guided`,
        in which frames meet before the network, one network twice.
        """
        if self.model == "fcn":
            options = {name: getattr(self, name) for name in ("backbone", "weights", "stride_in", "head", "batch_norm")}
            one_frame = TrajectoryFCN(num_frames=num_frames, working_size=self.working_size, **options)
            return dict(zip(("one_frame", "two_frames"), stem_twins(one_frame, self.input_frames)))
        one, two = self.make(num_frames), self.make(num_frames)
        two.load_state_dict(one.state_dict())
        return {"one": one, "again": two}

    def loss(self, asked: str = "auto") -> str:
        """The loss that is meant: with "auto" l1, and for `guided`, which says how sure it is, laplace_2d."""
        return asked if asked != "auto" else {"fcn": "l1", "guided": "laplace_2d"}[self.model]

    def describe(self, network: nn.Module) -> str:
        """A line on a network that this made: its size, and what it started from."""
        seen = network.seen if isinstance(network, GuidedTrajectories) else network
        began = seen.weights if isinstance(seen, (TrajectoryFCN, EarlyStages)) else "random numbers"
        return f"{self.model}: {sum(p.numel() for p in network.parameters()):,} parameters, started from: {began}"
