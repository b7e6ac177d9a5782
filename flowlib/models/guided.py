"""`GuidedTrajectories`: trajectories that start from optical flow and learn where it goes wrong.

Two or more frames of a clip go in; flow is measured between the first and each later one, both ways. A small U-Net on a
coarse grid then says for every pixel how much of each of a few candidate motions to believe (the flow, nothing, the
camera's motion, the flow smoothed, the flow measured backwards), how far each future frame's motion outgrows or falls
behind constant velocity, what is missing, and how sure it is. Untrained it all but predicts constant velocity.

What the network is told and what it says is in units of the clip's own motion, and on a grid of about the same number
of cells whatever the pictures' size: a video filmed closer, or twice the size, is the same problem.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from flowlib.flow import DISFlow, OpticalFlow, RAFTFlow
from flowlib.geometry import bilinear_sample, inside, pixel_grid, rescale_points
from flowlib.models.around import OwnCell, around, around_channels
from flowlib.models.backbones import REDUCED, EarlyStages
from flowlib.models.futures import FuturesHead, add_futures, futures_config
from flowlib.models.protocols import PointPrediction, TrajectoryPrediction
from flowlib.models.unet import JointHead, UNet, check_shape, enlarge, grid_size, shrink, split_said, start_at_zero
from flowlib.workspace import atomic_write

# What guides, by name. Networks learn on one and are best with it: those of before learned on "dis".
FLOWS: dict[str, Callable[[str], OpticalFlow]] = {
    "dis": lambda weights: DISFlow(),
    "dis refined": lambda weights: DISFlow("refined"),
    "dis wide": lambda weights: DISFlow("wide"),
    "raft": RAFTFlow,
}
DESIGNS = ("unet", "recurrent", "pretrained", "local")
WEIGHTS = Path(__file__).parents[1] / "weights"
CANDIDATES = 5  # motions to choose among: flow, none, camera, smoothed, backwards
SHIPPED_FUTURES = 5
SURE = 5.0  # logit by which the untrained network prefers the flow: 97 % of the mixture


class GuidedTrajectories(nn.Module):
    """Dense trajectories from two or more frames, guided by optical flow.

    Args:
        num_frames: S, the frames of a clip.
        input_frames: 0 and one or more later ones, ascending.
        flow: "dis refined", "dis" (the faster preset; neither needs weights) or "raft".
        flow_weights: of RAFT, as for `flowlib.flow.RAFTFlow`; loaded when they are first needed.
        design: "unet" says all frames at once; "recurrent" takes them one by one, and looks at each where the motion so
            far has led, as RAFT's updates do (Teed and Deng 2020); "pretrained" is "unet" that sees frame 0 as well by
            the first two stages of a ResNet-50, which are not trained further; "local" sees no pictures, but for each
            place by itself how the flow goes around it and what the candidates explain (`models.around`).
        widths: channels of the U-Net's levels; "local" has the first number in its layers.
        cells: about how many cells the grid has; 3840 are 48×80.
        weights, stride_in: of these stages, as for `one_frame.OneFrameTrajectories`.
        trust: share of what was learned that is applied, the rest is constant velocity. Below 1 in use, not in
            training: on videos unlike those learned from, half a correction is more often right than a whole one.
        futures: K, from 1 to 8: how many whole futures it gives; 1 for one answer.
        latent: "none": the futures are modes, each with its weight; "ae", "vae", "cvae": they are drawn, see
            `futures.FuturesHead`.
        modes_from: "answer" or "velocity", what modes start from, see `futures.FuturesHead`.

    Raises:
        ValueError: an argument outside these; the message names it.

    >>> model = GuidedTrajectories(num_frames=8, input_frames=(0, 3))
    >>> model(torch.zeros(1, 2, 3, 64, 96, dtype=torch.uint8)).displacement.shape
    torch.Size([1, 8, 2, 64, 96])
    """

    def __init__(
        self,
        *,
        num_frames: int = 8,
        input_frames: Sequence[int] = (0, 3),
        flow: str = "dis refined",
        flow_weights: str = "",
        design: str = "unet",
        widths: Sequence[int] = (48, 64, 96, 128),
        cells: int = 3840,
        trust: float = 1.0,
        futures: int = 1,
        latent: str = "none",
        modes_from: str = "answer",
        weights: str = "none",
        stride_in: str = "3x3",
    ) -> None:
        super().__init__()
        frames = tuple(int(frame) for frame in input_frames)
        if len(frames) < 2 or frames[0] != 0 or sorted(set(frames)) != list(frames) or frames[-1] >= num_frames:
            raise ValueError(
                f"input_frames: expected 0 and one or more later frames below {num_frames}, ascending, got {frames}"
            )
        for name, value, known in (("flow", flow, FLOWS), ("design", design, DESIGNS)):
            if value not in known:
                raise ValueError(f"{name}: expected one of {', '.join(known)}, got {value!r}")
        check_shape(widths, cells)
        if not 0 <= trust <= 1:
            raise ValueError(f"trust: expected a number from 0 to 1, got {trust!r}")
        self.num_frames, self.input_frames, self.cells = num_frames, frames, cells
        self.frames = tuple(range(num_frames))
        self.config: dict[str, Any] = {"num_frames": num_frames, "input_frames": list(frames), "flow": flow}
        self.config |= {"flow_weights": str(flow_weights), "design": design, "widths": list(widths), "cells": cells}
        self.config |= {"trust": float(trust)} | futures_config(futures, latent, modes_from)
        self.seen = EarlyStages(str(weights), stride_in) if design == "pretrained" else None
        self.config |= {"stride_in": stride_in} if self.seen else {}
        self._flow: OpticalFlow | None = None
        self.other_flow: OpticalFlow | None = None  # if set, guides every other clip in training: one model for both

        later = len(frames) - 1
        channels = guide_channels(later)
        if design == "local":
            self.look, self.trunk = None, OwnCell(channels + around_channels(4), widths[0])
        else:
            self.look = nn.Conv2d(3 * (later + 1), widths[0], 4, stride=2, padding=1)
            self.trunk = UNet(widths[0] + channels + (sum(REDUCED) if self.seen else 0), widths)
        self.head = RecurrentHead(widths[0]) if design == "recurrent" else JointHead(widths[0], num_frames - 1)
        self.choose = nn.Conv2d(widths[0], CANDIDATES + later - 1, 3, padding=1)
        with torch.no_grad():
            nn.init.zeros_(self.choose.weight)
            self.choose.bias[:] = 0  # pyright: ignore[reportOptionalSubscript]
            self.choose.bias[0] = SURE  # pyright: ignore[reportOptionalSubscript]
        several = futures > 1 or latent != "none"
        shape = (widths[0], num_frames - 1, futures, latent)
        self.many = FuturesHead(*shape, modes_from=modes_from) if several else None

    @property
    def latent(self) -> str:
        return self.config.get("latent", "none")

    @property
    def flow(self) -> OpticalFlow:
        """The flow that guides; made when it is first asked for, and can be set."""
        if self._flow is None:
            self._flow = FLOWS[self.config["flow"]](self.config["flow_weights"])
        return self._flow

    @flow.setter
    def flow(self, flow: OpticalFlow) -> None:
        self._flow = flow

    @property
    def takes_points(self) -> bool:
        """See `protocols.TakesPoints`."""
        return self.many is None

    def forward(
        self, images: Tensor, motion: Tensor | None = None, points: Float[Tensor, "B N 2"] | None = None
    ) -> TrajectoryPrediction:
        """Predict from images [B n 3 H W] of the frames `input_frames`, uint8 or floating from 0 to 255; in training
        with a latent variable, with the true motion, see `futures.LearnsLatent`; with `points`, for these alone (a
        `protocols.PointPrediction`), which costs much less than all pixels do."""
        n = len(self.input_frames)
        if images.ndim != 5 or images.shape[1:3] != (n, 3):
            got = list(images.shape)
            raise ValueError(f"images: expected shape [B {n} 3 H W] for frames {self.input_frames}, got {got}")
        size = (images.shape[-2], images.shape[-1])
        grid = grid_size(size, self.cells)
        with torch.no_grad():
            guide = Guide.of(images, self._measure(images), self.input_frames, grid)
        told = self._told(images, guide, grid)
        features = self.trunk(torch.cat(told, dim=1))
        times = torch.arange(1, self.num_frames, device=images.device) / self.input_frames[-1]
        said = self.head(features, guide, times) if isinstance(self.head, RecurrentHead) else self.head(features)
        if points is not None and self.many is None:
            return PointPrediction(**vars(self._assemble(guide, times, self.choose(features), said, points)))
        base = self._assemble(guide, times, self.choose(features), said)
        if self.many is None:
            return base
        flow = shrink(guide.candidates[:, 0], grid) * float(times[-1])
        unit = guide.unit * float(times[-1])
        velocity = guide.candidates[:, 0] * float(times[-1])
        return self.many(features, base, unit, flow, motion, self.config["trust"], velocity)

    def _told(self, images: Tensor, guide: Guide, grid: tuple[int, int]) -> list[Tensor]:
        """Channels [B C h w] for the trunk."""
        channels, dtype = guide.channels, self.choose.weight.dtype
        if self.look is None:
            grey = images[:, [0, -1]].float().mean(dim=2) / 255
            flow, none, camera, _, backwards = guide.candidates[:, :CANDIDATES].unbind(dim=1)
            near = around(grey, (flow, none, backwards, camera), guide.unit, grid)
            return [channels.to(dtype), near.to(dtype)]
        pictures = shrink((images.flatten(1, 2).float() - 127.5) / 255, (2 * grid[0], 2 * grid[1]))
        if self.training:  # another exposure for each clip: the same video is lit in one way only
            change = 0.2 * torch.randn(2, len(images), 1, 1, 1, device=images.device)
            pictures = pictures * (1 + change[0]) + change[1]
        told = [self.look(pictures.to(dtype)), channels.to(dtype)]
        return told + ([] if self.seen is None else [self.seen.seen_on(images[:, 0], grid)])

    def _assemble(
        self, guide: Guide, times: Tensor, choice: Tensor, said: Tensor, points: Tensor | None = None
    ) -> TrajectoryPrediction:
        """The prediction in pixels, from logits of the candidates [B K h w] and what the head said of the frames after
        the first [B 5F h w]: of every pixel, or of points [B N 2] as if they were a picture of one row."""
        if points is None:
            choice, said = (enlarge(values, guide.size) for values in (choice, said))
            candidates, start = guide.candidates, torch.from_numpy(pixel_grid(guide.size)).to(said).permute(2, 0, 1)
        else:
            on_grid = rescale_points(points, guide.size, (said.shape[-2], said.shape[-1])).to(said.dtype)
            choice, said = (bilinear_sample(values, on_grid)[:, :, None] for values in (choice, said))
            read = bilinear_sample(guide.candidates.flatten(1, 2), points.to(guide.candidates.dtype))
            candidates, start = (
                read.unflatten(1, (-1, 2))[:, :, :, None],
                points.to(said).movedim(-1, 1)[:, None, :, None],
            )
        gain, residual, log_scale, visibility = split_said(said)
        mixture = choice.softmax(dim=1)
        velocity = torch.einsum("bkhw,bkchw->bchw", mixture, candidates.to(mixture.dtype))
        unit = guide.unit.to(velocity.dtype)[:, None, None, None]  # B 1 1 1
        when = times.to(velocity.dtype)[:, None, None]  # F 1 1
        moved = when[:, None] * (velocity[:, None] * (1 + gain[:, :, None]) + unit[..., None] * residual)
        if self.config["trust"] < 1:
            linear = when[:, None] * candidates[:, :1].to(moved.dtype)
            moved = linear + self.config["trust"] * (moved - linear)
        # At first: a tenth of the motion so far and a fifth of a pixel.
        spread = torch.log(0.1 * unit * when + 0.2) + log_scale.clamp(-6, 6)
        stays = inside((moved.detach() + start).movedim(2, -1), guide.size)
        logits = torch.where(stays, 2.0, -2.0) + visibility
        first = torch.zeros_like(moved[:, :1])
        displacement = torch.cat([first, moved], dim=1)
        logits = torch.cat([torch.full_like(logits[:, :1], 4.0), logits], dim=1)
        spread = torch.cat([torch.full_like(spread[:, :1], -3.0), spread], dim=1)
        return TrajectoryPrediction(displacement.float(), logits.float(), self.frames, spread.float())

    def _measure(self, images: Tensor) -> Float[Tensor, "B later 2 2 H W"]:
        """Flow from the first input frame to each later one, and back, in pixels."""
        pictures = images.round().clamp(0, 255).to(torch.uint8).movedim(2, -1).cpu().numpy()
        first, later = pictures[:, 0], pictures[:, 1:]
        B, n, _, H, W = images.shape
        either = self.training and self.other_flow is not None
        draws = torch.rand(B).tolist() if either else [0.0] * B
        flows: list[np.ndarray] = []
        for one, others, draw in zip(first, later, draws):
            flow = self.other_flow if self.other_flow is not None and draw >= 0.5 else self.flow
            for other in others:
                flows += [np.asarray(flow(a, b), np.float32) for a, b in ((one, other), (other, one))]
        return torch.from_numpy(np.stack(flows)).reshape(B, n - 1, 2, 2, H, W).to(images.device)


def guide_channels(later: int) -> int:
    """Channels of `Guide.channels` for so many input frames after the first."""
    return 9 * later + 9


class Guide:
    """What the flow tells: candidate motions for every pixel, and channels for the network on its grid.

    Attributes:
        size: (H, W) of the pictures.
        candidates: [B K 2 H W] pixels between the first input frame and the last.
        channels: [B C h w].
        unit: [B] pixels; the root mean square of that motion, and a little more, so that noise stays small.
    """

    def __init__(self, size: tuple[int, int], candidates: Tensor, channels: Tensor, unit: Tensor) -> None:
        self.size, self.candidates, self.channels, self.unit = size, candidates, channels, unit

    @classmethod
    def of(cls, images: Tensor, flows: Tensor, frames: Sequence[int], grid: tuple[int, int]) -> Guide:
        """From images [B n 3 H W] of `frames` and flows [B n-1 2 2 H W] there and back."""
        B, _, _, H, W = images.shape
        span = frames[-1]
        xy = torch.from_numpy(pixel_grid((H, W))).to(flows)
        moving, back, cells = [], [], []
        grey = images.float().mean(dim=2) / 255  # B n H W
        for k, frame in enumerate(frames[1:]):
            there, returned = flows[:, k, 0], flows[:, k, 1]
            at = (there.movedim(1, -1) + xy).flatten(1, 2)
            read = bilinear_sample(torch.cat([returned, grey[:, k + 1 : k + 2]], dim=1), at).reshape(B, 3, H, W)
            stays = inside(at, (H, W)).reshape(B, 1, H, W).to(there)
            miss = (there + read[:, :2]).norm(dim=1, keepdim=True)
            look = (grey[:, :1] - read[:, 2:]).abs()
            moving.append(there * (span / frame))
            back.append(-read[:, :2] * (span / frame))
            cells.append((miss * (span / frame), look, stays))
        main, backwards = moving[-1], back[-1]
        small = shrink(main, grid)
        unit = (small.square().sum(dim=1).mean(dim=(1, 2)) + 0.25).sqrt()
        camera = robust_affine(small, (H, W))
        smooth = enlarge(F.avg_pool2d(F.pad(small, (4, 4, 4, 4), mode="replicate"), 9, 1), (H, W))
        candidates = [main, torch.zeros_like(main), camera, smooth, backwards, *moving[:-1]]
        scaled = unit[:, None, None, None]
        deviation = (shrink(main.square(), grid) - small.square()).clamp(min=0).sum(dim=1, keepdim=True).sqrt()
        side = max(H, W)
        place = (torch.from_numpy(pixel_grid((H, W))).to(main).permute(2, 0, 1) - side / 2) / side
        channels = [
            (small - shrink(camera, grid)) / scaled,
            deviation / scaled,
            shrink(camera, grid) / scaled,
            shrink(smooth, grid) / scaled,
            shrink(place.expand(B, -1, -1, -1), grid),
        ]
        for forward, backward, (miss, look, stays) in zip(moving, back, cells):
            channels += [shrink(forward, grid) / scaled, shrink(backward, grid) / scaled]
            channels += [torch.log1p(shrink(miss, grid) / scaled), torch.log1p(shrink(miss, grid))]
            channels += [4 * shrink(look, grid), shrink(stays, grid)]
            channels += [scaled.log().expand(-1, 1, *grid)]
        return cls((H, W), torch.stack(candidates, dim=1), torch.cat(channels, dim=1), unit)


class RecurrentHead(nn.Module):
    """The same, frame by frame: a convolutional GRU whose state goes on, and which sees the features of the place that
    the motion so far leads to."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.gates = nn.Conv2d(3 * width + 3, 2 * width, 3, padding=1)
        self.new = nn.Conv2d(3 * width + 3, width, 3, padding=1)
        self.said = nn.Sequential(nn.Conv2d(width, width, 3, padding=1), nn.ReLU(), nn.Conv2d(width, 5, 1))
        start_at_zero(self.said[-1])

    def forward(self, features: Tensor, guide: Guide, times: Tensor) -> Tensor:
        """[B 5F h w] on the grid, as `unet.JointHead` gives it."""
        size = guide.size
        B, _, h, w = features.shape
        cell = features.new_tensor([w / size[1], h / size[0]])
        unit = guide.unit.to(features)[:, None, None, None]
        flow = shrink(guide.candidates[:, 0], (h, w)).to(features)
        xy = torch.from_numpy(pixel_grid((h, w))).to(features)
        state, total, said = torch.tanh(features), None, []
        for time in times:
            ahead = (flow if total is None else total) * time
            at = ((ahead.detach().movedim(1, -1) * cell) + xy).flatten(1, 2)
            there = bilinear_sample(features, at).reshape(features.shape)
            told = torch.cat([ahead / unit, time.to(features).expand(B, 1, h, w)], dim=1)
            reset, keep = torch.sigmoid(self.gates(torch.cat([state, features, there, told], dim=1))).chunk(2, dim=1)
            new = torch.tanh(self.new(torch.cat([reset * state, features, there, told], dim=1)))
            state = keep * state + (1 - keep) * new
            values = self.said(state)
            said.append(values)
            total = flow * (1 + values[:, :1]) + unit * values[:, 1:3]
        return torch.cat(said, dim=1)


def robust_affine(flow: Float[Tensor, "B 2 h w"], size: tuple[int, int], rounds: int = 6) -> Float[Tensor, "B 2 H W"]:
    """The affine motion that most of a flow follows, for every pixel of `size`: least squares, weighted anew in each
    round by how well a cell agrees (Cauchy's weights at the median error)."""
    B, _, h, w = flow.shape
    y, x = (torch.linspace(-1, 1, side, dtype=torch.float64, device=flow.device) for side in (h, w))
    basis = torch.stack([torch.ones(h, w).to(x), x.expand(h, w), y[:, None].expand(h, w)], dim=-1).reshape(-1, 3)
    told = flow.double().flatten(2).movedim(1, -1)  # B M 2
    weight = torch.ones_like(told[..., :1])
    ridge = 1e-6 * torch.eye(3).to(basis)
    for _ in range(rounds):
        square = torch.einsum("mi,bmo,mj->bij", basis, weight, basis) / (h * w) + ridge
        right = torch.einsum("mi,bmo,bmc->bic", basis, weight, told) / (h * w)
        coefficients = torch.linalg.solve(square, right)  # B 3 2
        error = (told - basis @ coefficients).norm(dim=-1, keepdim=True)
        typical = error.median(dim=1, keepdim=True).values.clamp(min=0.05)
        weight = 1 / (1 + (error / typical).square())
    fitted = (basis @ coefficients).movedim(-1, 1).reshape(B, 2, h, w)
    return enlarge(fitted.to(flow), size)


def load_default(
    frames: int = 2, *, num_frames: int = 8, flow: str = "dis", flow_weights: str = "", futures: int = 1
) -> nn.Module:
    """The predictor that comes with flowlib, ready to use; `flowlib/weights/README.md` says how it was trained.

    Args:
        frames: 2: sees frames 0 and 3 (or any two pictures: times are then in thirds of the time between them); 1: sees
            frame 0 alone.
        num_frames: S; 8, for which it was trained, or fewer.
        flow: "dis", which needs no weights, or "raft"; with two frames.
        flow_weights: of RAFT, as for `flowlib.flow.RAFTFlow`.
        futures: 1, or with two frames 5: the one answer, and four ways in which a motion stops, slows down, goes on or
            speeds up, as videos do.

    Raises:
        ValueError: an argument outside these.

    >>> load_default().eval()(torch.zeros(1, 2, 3, 64, 96, dtype=torch.uint8)).displacement.shape
    torch.Size([1, 8, 2, 64, 96])
    """
    from flowlib.models.one_frame import OneFrameTrajectories

    least = {1: 2, 2: 4}
    if frames not in least:
        raise ValueError(f"frames: expected 1 or 2, got {frames!r}")
    if not least[frames] <= num_frames <= 8:
        raise ValueError(f"num_frames: expected {least[frames]} to 8, got {num_frames}")
    if frames == 2:
        if flow not in ("dis", "raft"):
            raise ValueError(f"flow: expected dis or raft, got {flow!r}")
        if flow == "dis" and flow_weights:
            raise ValueError(f"flow_weights: expected none with flow dis, got {flow_weights!r}")
        changes: dict[str, Any] = {} if flow == "dis" else {"flow": flow, "flow_weights": flow_weights}
        one = load_shipped(WEIGHTS / "guided_2f.safetensors", GuidedTrajectories, num_frames=num_frames, **changes)
        return one if futures == 1 else _with_futures(one, futures)
    if futures != 1:
        raise ValueError(f"futures: expected 1 with frames=1, got {futures!r}")
    if (flow, flow_weights) != ("dis", ""):
        raise ValueError("flow: expected none with frames=1, which sees no motion")
    file = WEIGHTS / "guided_1f.safetensors"
    return load_shipped(file, OneFrameTrajectories, num_frames=num_frames, weights="none")


def _with_futures(one: nn.Module, futures: int) -> nn.Module:
    """The shipped predictor with the futures that were learned beside it."""
    if futures != SHIPPED_FUTURES:
        raise ValueError(f"futures: expected 1 or {SHIPPED_FUTURES}, got {futures!r}")
    several = add_futures(one, futures)
    many: Any = several.get_submodule("many")
    with safe_open(WEIGHTS / "guided_2f_futures.safetensors", framework="pt") as file, torch.no_grad():
        courses = file.get_tensor("drive.weight").float()
        many.drive.weight.copy_(courses[: len(many.drive.weight)])  # frame by frame
        many.weigh.bias.copy_(file.get_tensor("weigh.bias").float())
    object.__setattr__(several, "trained_on", getattr(one, "trained_on", ()))
    return several.eval()


def default_methods(num_frames: int, input_frames: Sequence[int]) -> dict[str, nn.Module]:
    """The shipped predictors that go with clips of `num_frames` frames of which `input_frames` are seen, by name."""
    found = {"flowlib's, two frames": 2} if tuple(input_frames) == (0, 3) else {}
    found |= {"flowlib's, one frame": 1}
    return {name: load_default(count, num_frames=num_frames) for name, count in found.items() if num_frames <= 8}


def load_shipped(path: Path, kind: Callable[..., nn.Module], num_frames: int, **changes: Any) -> nn.Module:
    """A model from a file that `save_shipped` wrote, for clips of `num_frames` frames, with some of its config changed;
    in evaluation mode. It says which videos it was trained on, so that an evaluation refuses these."""
    with safe_open(path, framework="pt") as file:
        about = json.loads(file.metadata()["about"])
        state = {name: file.get_tensor(name).float() for name in file.keys()}  # noqa: SIM118
    model = kind(**about["config"] | changes | {"num_frames": num_frames})
    for name, own in model.state_dict().items():
        state[name] = state[name][: len(own)] if own.ndim else state[name]  # the head's channels go frame by frame
    model.load_state_dict(state)
    object.__setattr__(model, "trained_on", tuple(about.get("trained_on", ())))
    return model.eval()


def save_shipped(model: GuidedTrajectories | nn.Module, path: Path, about: dict[str, Any]) -> None:
    """Write a model's weights as float16, with `about` (its `config` among it) in the header."""
    state = {name: tensor.detach().half().contiguous() for name, tensor in model.state_dict().items()}
    path.parent.mkdir(parents=True, exist_ok=True)
    with atomic_write(path) as temporary:
        save_file(state, temporary, metadata={"about": json.dumps(about)})
