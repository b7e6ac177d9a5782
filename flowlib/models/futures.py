"""`FuturesHead`: several whole futures from one set of features, by modes or by a latent variable.

A code goes through `Film` into a small decoder that says how this future departs from the model's one answer. With
modes there are K codes, one for each class, and a weight for each is said from the frames. With a latent variable a
code is drawn: K times from the prior in use, once from a posterior that sees the truth in training (Kingma and Welling
2014; Sohn and others 2015 for the conditional one).

Knows nothing of flow; what it departs from and the unit it speaks in are handed in.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol, runtime_checkable

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from flowlib.geometry import bilinear_sample, cell_index, rescale_points
from flowlib.models.film import Film
from flowlib.models.protocols import HasConfig, TrajectoryPrediction
from flowlib.models.unet import enlarge, start_at_zero

MOST_FUTURES = 8
LATENTS = ("none", "ae", "vae", "cvae")
LATENT_SIZE = 8  # numbers of a code that is drawn
MOTION_CELLS = (12, 20)  # rows and columns of the true motion that the posterior sees
GAINS = (0.0, 0.5, 0.8, 1.0, 1.2)  # of the motion so far, by which modes start: most futures go on, slower, or stop
FILM_SPREAD = 0.5  # of the untrained Film's weights: modes have to differ before they can part


@dataclass(frozen=True, eq=False)
class Departures(TrajectoryPrediction):
    """Futures as they are in training: one answer, and on the network's grid how each future departs from it.

    Losses ask at points only, and there the coarse fields give the same values as the pixels' would; making these for
    every future took more time than all of the network.

    Attributes:
        displacement: the one answer.
        weights: [B K], as ever; `futures` is None, ask `each_future` or `futures_at`.
        pace: [B K F] the share of the one answer that each future keeps.
        departure: [B K F 2 h w] pixels that are added to it.
        kl: [B] divergence of the posterior from the prior in nats; None without a latent variable, zero where there is
            no prior to keep to.
        batches: how many batches the model has been trained on, which a warm-up of `kl` goes by.
    """

    pace: Float[Tensor, "B K F"] = field(default_factory=lambda: torch.empty(0, 0, 0))
    departure: Float[Tensor, "B K F 2 h w"] = field(default_factory=lambda: torch.empty(0, 0, 0, 2, 0, 0))
    kl: Float[Tensor, " B"] | None = None
    batches: Tensor | None = None

    def each_future(self) -> tuple[Tensor, Tensor]:
        assert self.weights is not None
        B, K, S, _, h, w = self.departure.shape
        size = self.displacement.shape[-2:]
        large = enlarge(self.departure.reshape(B, -1, h, w), size).reshape(B, K, S, 2, *size)
        return torch.addcmul(large, self.pace[..., None, None, None], self.displacement[:, None]), self.weights

    def futures_at(self, xy: Float[Tensor, "B N 2"]) -> Float[Tensor, "B K F N 2"]:
        B, K, S, _, h, w = self.departure.shape
        size = (self.displacement.shape[-2], self.displacement.shape[-1])
        departed = bilinear_sample(self.departure.reshape(B, -1, h, w), rescale_points(xy, size, (h, w)).to(self.pace))
        base = bilinear_sample(self.displacement.flatten(1, 2), xy.to(self.displacement)).reshape(B, 1, S, 2, -1)
        moved = torch.addcmul(departed.reshape(B, K, S, 2, -1), self.pace[..., None, None], base)
        return moved.movedim(3, -1)


@runtime_checkable
class LearnsLatent(Protocol):
    """Its `forward` takes the true motion in training, [B F 3 rows columns]: the mean displacement in pixels of the
    points that start in each of `MOTION_CELLS`, and the share of the frame's sightings that is known there."""

    @property
    def latent(self) -> str: ...


def check_futures(futures: int, latent: str = "none") -> None:
    """Raise `ValueError` unless a model can have so many futures, of that kind."""
    if isinstance(futures, bool) or not isinstance(futures, int) or not 1 <= futures <= MOST_FUTURES:
        raise ValueError(f"futures: expected a whole number from 1 to {MOST_FUTURES}, got {futures!r}")
    if latent not in LATENTS:
        raise ValueError(f"latent: expected one of {', '.join(LATENTS)}, got {latent!r}")


def futures_config(futures: int, latent: str = "none") -> dict[str, Any]:
    """What a model's config says of its futures; nothing for one answer, as before there were several."""
    check_futures(futures, latent)
    said = {"futures": futures} if futures > 1 or latent != "none" else {}
    return said | ({"latent": latent} if latent != "none" else {})


def anchors(futures: int) -> list[float]:
    """The share of the motion so far by which each mode starts: `GAINS`, or as many numbers spread evenly over them.
    One of them always is 1, so that the first choice starts as the one answer.

    >>> anchors(5), anchors(3), anchors(1)
    ([0.0, 0.5, 0.8, 1.0, 1.2], [0.0, 1.0, 1.2], [1.0])
    """
    gains = np.interp(np.linspace(0, len(GAINS) - 1, futures), np.arange(len(GAINS)), GAINS)
    gains[np.abs(gains - 1).round(6).argmin()] = 1.0
    return gains.tolist()


def directions(futures: int) -> Float[np.ndarray, "K 2"]:
    """Unit vectors that point in as many directions, far from each other and from the axes."""
    angles = 0.6 + 2 * np.pi * np.arange(futures) / futures
    return np.stack([np.cos(angles), np.sin(angles)], axis=1).astype(np.float32)


class FuturesHead(nn.Module):
    """K futures as departures from one answer.

    Args:
        width: channels of the features.
        frames: predicted after frame 0.
        futures: K, from 1 to `MOST_FUTURES`.
        latent: "none" for modes; "ae" (a code of the truth, kept to no prior), "vae" (to a normal one) or "cvae" (to
            one that the frames tell) for codes that are drawn.
        apart: start modes in K different directions. Where the one answer is that nothing moves, its gains are all
            alike, and of modes that are alike the first wins everywhere, so they never part.
    """

    draws: Tensor
    batches: Tensor

    def __init__(self, width: int, frames: int, futures: int, latent: str = "none", *, apart: bool = False) -> None:
        super().__init__()
        check_futures(futures, latent)
        self.futures, self.latent, self.frames = futures, latent, frames
        size = futures if latent == "none" else LATENT_SIZE
        self.read = nn.Conv2d(width, width, 3, padding=1)
        self.first, self.mix, self.second = Film(size, width), nn.Conv2d(width, width, 1), Film(size, width)
        self.said = nn.Conv2d(width, 3 * frames, 1)
        self.pace = nn.Linear(size, frames, bias=False)
        self.drift = nn.Linear(size, 2, bias=False) if apart or latent != "none" else None
        for film in (self.first, self.second):
            nn.init.normal_(film.layer.weight, std=FILM_SPREAD)
        start_at_zero(self.said)
        start_at_zero(self.pace)
        if latent == "none":
            self.weigh = nn.Linear(2 * width, futures)
            start_at_zero(self.weigh)
            with torch.no_grad():
                if self.drift is not None:
                    self.drift.weight[:] = torch.from_numpy(directions(futures)).T
                paces = torch.tensor(anchors(futures))
                self.pace.weight += paces - 1
                self.weigh.bias[(paces - 1).abs().argmin()] = 1.0  # the one answer is the first choice at first
            return
        self.see = nn.Sequential(
            nn.Conv2d(3 * frames, 32, 3, stride=2, padding=1), nn.ReLU(),
            nn.Conv2d(32, 32, 3, stride=2, padding=1), nn.ReLU(), nn.Flatten(),
        )  # fmt: skip
        seen = 32 * -(-MOTION_CELLS[0] // 4) * -(-MOTION_CELLS[1] // 4)
        self.posterior = nn.Linear(seen + 2 * width, 2 * LATENT_SIZE)
        if latent == "cvae":
            self.prior = nn.Linear(2 * width, 2 * LATENT_SIZE)
            start_at_zero(self.prior)
        # Always the same draws, so that equal frames get equal futures; the first is the prior's mean.
        drawn = np.random.default_rng(0).standard_normal((MOST_FUTURES, LATENT_SIZE))
        drawn[0] = 0
        self.register_buffer("draws", torch.from_numpy(drawn).float()[:futures], persistent=False)
        self.register_buffer("batches", torch.zeros((), dtype=torch.int64))

    def forward(
        self,
        features: Float[Tensor, "B C h w"],
        base: TrajectoryPrediction,
        unit: Float[Tensor, " B"],
        flow: Float[Tensor, "B 2 h w"] | None = None,
        motion: Float[Tensor, "B F 3 rows columns"] | None = None,
        share: float = 1.0,
    ) -> TrajectoryPrediction:
        """The futures around one answer.

        Args:
            features: of the frames seen.
            base: the one answer, frame 0 first.
            unit: pixels that what is said is in.
            flow: motion between the frames seen in pixels, of which a future may take another share in each place.
            motion: the true motion, see `LearnsLatent`; used in training alone.
            share: of what is said that is applied.
        """
        pooled = torch.cat([features.mean(dim=(2, 3)), features.amax(dim=(2, 3))], dim=1)
        codes, weights, extra = self._codes(pooled, unit, motion)
        gain, shift = self._decode(features, codes)  # B K F h w, B K F 2 h w
        scale = unit.to(shift)[:, None, None, None, None, None]
        moved = scale * shift
        if self.drift is not None:
            moved = moved + scale * self.drift(codes)[:, :, None, :, None, None]
        if flow is not None:
            moved = moved + gain[:, :, :, None] * flow.to(moved)[:, None, None]
        when = torch.arange(1, self.frames + 1, device=moved.device).to(moved)[:, None, None, None] / self.frames
        departure = F.pad(share * when * moved, (0, 0, 0, 0, 0, 0, 1, 0)).float()  # nothing departs in frame 0
        pace = F.pad(1 + self.pace(codes), (1, 0), value=1.0).float()
        about: dict[str, Any] = {
            "visibility_logits": base.visibility_logits,
            "frames": base.frames,
            "log_scale": base.log_scale,
        }
        many: dict[str, Any] = {"weights": weights.float(), "pace": pace, "departure": departure} | extra
        found = Departures(displacement=base.displacement, **about, **many)
        if self.training:
            return found
        return TrajectoryPrediction.of_futures(*found.each_future(), **about)

    def _codes(self, pooled: Tensor, unit: Tensor, motion: Tensor | None) -> tuple[Tensor, Tensor, dict[str, Tensor]]:
        """Codes [B K Z], their weights [B K], and in training what `Departures` has beside them."""
        B, K = len(pooled), self.futures
        if self.latent == "none":
            return torch.eye(K).to(pooled).expand(B, K, K), self.weigh(pooled).float().softmax(dim=1), {}
        told = self.prior(pooled) if self.latent == "cvae" else pooled.new_zeros(B, 2 * LATENT_SIZE)
        mean, spread = told.float().chunk(2, dim=1)
        if not self.training or motion is None:
            drawn = mean[:, None] + spread[:, None].exp() * self.draws
            return drawn.to(pooled), pooled.new_full((B, K), 1 / K), {}
        known = torch.cat([motion[:, 1:, :2] / unit[:, None, None, None, None], motion[:, 1:, 2:]], dim=2)
        seen = self.see(known.flatten(1, 2).to(pooled))
        own, log_own = self.posterior(torch.cat([seen, pooled], dim=1)).float().chunk(2, dim=1)
        self.batches += 1
        if self.latent == "ae":
            code, kl = own, own.new_zeros(B)
        else:
            code = own + log_own.exp() * torch.randn_like(own)
            apart = ((own - mean).square() + (2 * log_own).exp()) * (-2 * spread).exp()
            kl = (spread - log_own + (apart - 1) / 2).sum(dim=1)
        return code[:, None].to(pooled), pooled.new_ones(B, 1), {"kl": kl, "batches": self.batches.clone()}

    def _decode(self, features: Tensor, codes: Tensor) -> tuple[Tensor, Tensor]:
        """What each code says in each cell: a gain [B K F h w] and a shift [B K F 2 h w]."""
        B, K, _ = codes.shape
        _, _, h, w = features.shape
        # The convolution that sees neighbours is shared: what a further future costs is two products for each cell.
        inner = F.relu(_modulated(self.first, self.read(features)[:, None], codes)).flatten(0, 1)
        inner = _modulated(self.second, self.mix(inner).unflatten(0, (B, K)), codes).flatten(0, 1)
        values = self.said(F.relu(inner)).reshape(B, K, self.frames, 3, h, w)
        return values[:, :, :, 0], values[:, :, :, 1:]


def _modulated(film: Film, x: Tensor, codes: Tensor) -> Tensor:
    """What `film` gives for x [B K|1 C h w] and codes [B K Z], without a copy for each K."""
    gain, shift = film.layer(codes)[..., None, None].chunk(2, dim=2)
    return torch.addcmul(shift, x, 1 + gain)


def motion_cells(tracks: Tensor, visibility: Tensor, queries: Tensor, size: tuple[int, int]) -> Tensor:
    """The true motion that a `LearnsLatent` model is told: tracks [F N 2], visibility [F N], queries [N 3] ->
    [F 3 rows columns]."""
    rows, columns = MOTION_CELLS
    xy = queries[:, 1:]
    place = torch.from_numpy(cell_index(xy.double().numpy(), size, MOTION_CELLS))
    flat = place[:, 0] * columns + place[:, 1]
    seen = visibility.float()
    moved = torch.where(visibility[..., None], (tracks - xy).float(), 0.0)
    sums = torch.zeros(len(tracks), 4, rows * columns)
    told = torch.stack([moved[..., 0], moved[..., 1], seen, torch.ones_like(seen)], dim=1)  # F 4 N
    sums.index_add_(2, flat, told)
    mean = sums[:, :2] / sums[:, 2:3].clamp(min=1)
    return torch.cat([mean, sums[:, 2:3] / sums[:, 3:].clamp(min=1)], dim=1).reshape(-1, 3, rows, columns)


def futures_of(model: Any) -> int:
    """How many futures a model gives; 1 for one that doesn't say."""
    return int(model.config.get("futures", 1)) if isinstance(model, HasConfig) else 1


def add_futures(model: nn.Module, futures: int, latent: str = "none") -> nn.Module:
    """A model that gives several futures, with all weights of `model`, which gives one answer.

    Args:
        model: `GuidedTrajectories` or `OneFrameTrajectories`, trained or not. One that has such futures already is
            given back as it is.
        futures, latent: as in `FuturesHead`.

    Raises:
        ValueError: a model of another kind, or one that has other futures than these.

    >>> from flowlib.models.guided import load_default
    >>> add_futures(load_default(), 5)(torch.zeros(1, 2, 3, 64, 96, dtype=torch.uint8)).futures.shape
    torch.Size([1, 5, 8, 2, 64, 96])
    """
    check_futures(futures, latent)
    config: Mapping[str, Any] = model.config if isinstance(model, HasConfig) else {}
    own = config.get("futures", 1), config.get("latent", "none")
    if own == (futures, latent):
        return model
    if own != (1, "none"):
        raise ValueError(f"futures: expected {own[0]} ({own[1]}), as the model has, got {futures} ({latent})")
    arguments = dict(config) | futures_config(futures, latent)
    try:
        wider = type(model)(**arguments | ({"weights": "none"} if "stride_in" in config else {}))
    except TypeError:
        kind = type(model).__name__
        raise ValueError(f"model: expected one that can have futures, got {kind}, which has none") from None
    missing, unexpected = wider.load_state_dict(model.state_dict(), strict=False)
    if unexpected or any(not name.startswith("many.") for name in missing):
        raise ValueError(f"model: expected weights of {type(model).__name__}, got others: {[*missing, *unexpected][0]}")
    return wider.train(model.training)
