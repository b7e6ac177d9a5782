"""`ActionLSTM`: what a hand does, from its joints frame by frame.

Vectors [B S D] of each frame go in, with the length of each sequence; out come logits of K actions for the whole
sequence, and for its beginning up to each frame. One function in three ways: the LSTM is run over packed sequences,
over padded ones, or one frame at a time. What lies behind a sequence's end changes nothing.
Knows nothing of cameras, data or losses; D may be of joints or of anything else that has a fixed length.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

from flowlib.hands.skeleton import FPHA_21, SKELETONS
from flowlib.models.features import FEATURES, from_joints

MODES = ("packed", "padded", "unrolled")
# Attention: over what has been seen up to a frame, weights that sum to 1. Of inputs: the LSTM is fed their weighted
# mean. Of logits: those after each frame are weighed.
OF_INPUTS = ("inputs_conv", "inputs_conv_relu", "inputs_state", "inputs_rnn", "inputs_linear")
OF_LOGITS = ("logits_relu", "logits_sigmoid", "logits_conv")
ATTENTIONS = ("none", *OF_INPUTS, *OF_LOGITS)
OF_LENGTH = ("inputs_rnn", "inputs_linear")  # take sequences of a greatest length only


@dataclass(frozen=True, eq=False)
class ActionPrediction:
    """Actions of a batch of sequences.

    Attributes:
        logits: [B K] of each whole sequence.
        frames: [B S K], what they would be if the sequence ended with that frame; 0 behind its end.
    """

    logits: Float[Tensor, "B K"]
    frames: Float[Tensor, "B S K"]

    @property
    def probabilities(self) -> Float[Tensor, "B K"]:
        """Of each whole sequence, summing to 1."""
        return self.logits.softmax(dim=1)


@dataclass(frozen=True, eq=False)
class ActionState:
    """Where the network is in sequences that are told frame by frame.

    Attributes:
        cell: hidden state and cell of the LSTM, each [layers B H].
        inputs: [B T D'] of the frames so far, for attention.
        before: [B T H], the hidden state before each of these frames.
        after: [B T H], after each.
        memory: [B H] of attention that remembers.
    """

    cell: tuple[Tensor, Tensor]
    inputs: Tensor
    before: Tensor
    after: Tensor
    memory: Tensor


@dataclass(frozen=True, eq=False)
class _Run:
    """What the LSTM said of whole sequences."""

    after: Float[Tensor, "B S H"]  # its hidden state after each frame
    last: Float[Tensor, "B H"]  # after the last frame of each sequence


class ActionLSTM(nn.Module):
    """An LSTM over the frames of a sequence and a linear layer on its last hidden state.

    Args:
        inputs: D, numbers of each frame.
        num_actions: K.
        hidden: H, units of each layer.
        layers: of the LSTM.
        attention: "none", or one of
            "inputs_conv", "inputs_conv_relu": scores of past inputs by a convolution over time of [x_i, h_{i-1}];
            "inputs_state": the same of [x_i, h_now]; "inputs_rnn", "inputs_linear": by a recurrent or a linear layer on
            all of the past at once; "logits_relu", "logits_sigmoid": scores of each frame's logits by a linear layer on
            [x_i, h_i]; "logits_conv": by a convolution over time of these, and ReLU.
        kernel: of the convolutions, in frames, odd.
        max_frames: the longest sequence that "inputs_rnn" and "inputs_linear" take.
        components: of a linear pose prior that inputs go through first (`set_basis`); 0 for none.
        features: what is made of joints at the door, before the pose prior, see `features.from_joints`; "given" takes
            every D.
        skeleton: name of the joints' skeleton, for features of them.
        mode: "packed", "padded" or "unrolled", for calls that don't say; attention of inputs has only the last, for it
            needs each frame's hidden state before the next.

    Raises:
        ValueError: an argument outside these; the message names it.

    >>> ActionLSTM(63, 12)(torch.zeros(2, 5, 63), torch.tensor([5, 3])).frames.shape
    torch.Size([2, 5, 12])
    """

    basis: Tensor
    mean: Tensor

    def __init__(
        self,
        inputs: int,
        num_actions: int,
        *,
        hidden: int = 100,
        layers: int = 1,
        attention: str = "none",
        kernel: int = 9,
        max_frames: int = 120,
        components: int = 0,
        features: str = "given",
        skeleton: str = FPHA_21.name,
        mode: str = "packed",
    ) -> None:
        super().__init__()
        choices = {"attention": (attention, ATTENTIONS), "features": (features, FEATURES), "mode": (mode, MODES)}
        for name, (value, known) in (choices | {"skeleton": (skeleton, tuple(SKELETONS))}).items():
            if value not in known:
                raise ValueError(f"{name}: expected one of {', '.join(known)}, got {value!r}")
        least = {"inputs": inputs, "num_actions": num_actions, "hidden": hidden, "layers": layers, "kernel": kernel}
        for name, value in (least | {"max_frames": max_frames}).items():
            if not value >= 1:
                raise ValueError(f"{name}: expected 1 or more, got {value!r}")
        if kernel % 2 == 0:
            raise ValueError(f"kernel: expected an odd number of frames, got {kernel}")
        if not 0 <= components <= inputs:
            raise ValueError(f"components: expected 0 to {inputs}, as many as the inputs, got {components!r}")
        if features != "given" and inputs != 3 * SKELETONS[skeleton].num_joints:
            expected = f"{3 * SKELETONS[skeleton].num_joints}, for the joints of {skeleton}"
            raise ValueError(f"inputs: expected {expected}, got {inputs}")
        self.config: dict[str, Any] = least | {"attention": attention, "max_frames": max_frames, "mode": mode}
        self.config |= {"components": components, "features": features, "skeleton": skeleton}
        self.inputs, self.num_actions, self.hidden, self.mode = inputs, num_actions, hidden, mode
        self.attention, self.max_frames, self.features = attention, max_frames, features
        self.skeleton = SKELETONS[skeleton]

        D = components or inputs
        self.lstm = nn.LSTM(D, hidden, layers, batch_first=True)
        self.head = nn.Linear(hidden, num_actions)
        # Attention comes last, so that a twin without it starts with the same weights.
        self.score = _score(attention, D, hidden, kernel, max_frames)
        if components:
            self.register_buffer("basis", torch.zeros(inputs, components))
            self.register_buffer("mean", torch.zeros(inputs))

    @torch.no_grad()
    def set_basis(self, components: Tensor, mean: Tensor) -> None:
        """Fill the pose prior: an input x [D] becomes (x - `mean` [D]) @ `components` [C D] transposed.

        Raises:
            ValueError: it has none, or other shapes.
        """
        expected = [[self.config["components"], self.inputs], [self.inputs]]
        got = [list(components.shape), list(mean.shape)]
        if not self.config["components"] or got != expected:
            raise ValueError(f"components, mean: expected shapes {expected}, got {got}")
        self.basis.copy_(components.T)
        self.mean.copy_(mean)

    def forward(
        self, joints: Float[Tensor, "B S D"], lengths: Int[Tensor, " B"] | None = None, mode: str | None = None
    ) -> ActionPrediction:
        """Predict from the vectors of each frame.

        Args:
            joints: of the frames, what is behind a sequence's end is ignored.
            lengths: of the sequences, in any order; S of all if None.
            mode: "packed", "padded" or "unrolled"; the network's own by default.

        Raises:
            ValueError: other shapes, or lengths outside 1 to S.
        """
        mode, lengths = mode or self.mode, self._checked(joints, lengths)
        if mode not in MODES:
            raise ValueError(f"mode: expected one of {', '.join(MODES)}, got {mode!r}")
        there = torch.arange(joints.shape[1], device=joints.device) < lengths[:, None]  # B S
        x = self.encode(torch.where(there[:, :, None], joints, 0))
        run = self._run(x, lengths, "unrolled" if self.attention in OF_INPUTS else mode)
        frames = self.head(run.after)
        if self.attention in OF_LOGITS:
            frames = self._weights(x, run.after) @ frames
            logits = _at_end(frames, lengths)
        else:
            logits = self.head(run.last)
        return ActionPrediction(logits, torch.where(there[:, :, None], frames, 0))

    def start(self, batch: int) -> ActionState:
        """Before the first frame of so many sequences, for `step`."""
        like = self.head.weight
        cell = like.new_zeros(self.lstm.num_layers, batch, self.hidden)
        past = like.new_zeros(batch, 0, self.hidden)
        return ActionState((cell, cell), like.new_zeros(batch, 0, self.lstm.input_size), past, past, cell[0])

    def step(self, joints: Float[Tensor, "B D"], state: ActionState) -> tuple[Float[Tensor, "B K"], ActionState]:
        """The logits after one more frame, and where the network then is: `frames` of a call, one after the other."""
        state = self._advance(self.encode(joints[:, None])[:, 0], state)
        if self.attention in OF_LOGITS:
            weights = self._weights(state.inputs, state.after, last=True)
            return (weights @ self.head(state.after))[:, 0], state
        return self.head(state.cell[0][-1]), state

    def _checked(self, joints: Tensor, lengths: Tensor | None) -> Tensor:
        if joints.ndim != 3 or joints.shape[2] != self.inputs or not joints.is_floating_point():
            got = f"{joints.dtype} {list(joints.shape)}"
            raise ValueError(f"joints: expected floating [B S {self.inputs}], got {got}")
        B, S, _ = joints.shape
        if lengths is None:
            lengths = torch.full((B,), S, device=joints.device)
        if list(lengths.shape) != [B] or lengths.is_floating_point():
            raise ValueError(f"lengths: expected whole numbers [{B}], got {lengths.dtype} {list(lengths.shape)}")
        if B == 0 or S == 0:
            raise ValueError(f"joints: expected at least one sequence and one frame, got {list(joints.shape)}")
        least, most = int(lengths.min()), int(lengths.max())
        if least < 1 or most > S:
            raise ValueError(f"lengths: expected 1 to {S} frames, got {least if least < 1 else most}")
        if self.attention in OF_LENGTH and most > self.max_frames:
            raise ValueError(f"lengths: expected up to max_frames={self.max_frames} frames, got {most}")
        return lengths.to(joints.device)

    def encode(self, joints: Float[Tensor, "B S D"]) -> Float[Tensor, "B S C"]:
        """What the LSTM sees of the vectors: features of joints, and coefficients of the prior, as the config says."""
        x = joints.to(self.head.weight.dtype)
        if self.features != "given":
            x = from_joints(x.unflatten(2, (-1, 3)), self.skeleton, self.features)
        return (x - self.mean) @ self.basis if self.config["components"] else x

    def _run(self, x: Tensor, lengths: Tensor, mode: str) -> _Run:
        if mode == "packed":
            packed = pack_padded_sequence(x, lengths.cpu(), batch_first=True, enforce_sorted=False)
            outputs, (hidden, _) = self.lstm(packed)
            after, _ = pad_packed_sequence(outputs, batch_first=True, total_length=x.shape[1])
            return _Run(after, hidden[-1])
        if mode == "padded":
            after, _ = self.lstm(x)
        else:
            state, found = self.start(len(x)), []
            for frame in range(x.shape[1]):
                state = self._advance(x[:, frame], state)
                found.append(state.cell[0][-1])
            after = torch.stack(found, dim=1)
        return _Run(after, _at_end(after, lengths))

    def _advance(self, x: Tensor, state: ActionState) -> ActionState:
        """One cell call: the frame after `state`."""
        inputs, before, after, memory = state.inputs, state.before, state.after, state.memory
        hidden = state.cell[0][-1]
        if self.attention != "none":
            inputs = torch.cat([inputs, x[:, None]], dim=1)
        if self.attention in OF_INPUTS:
            before = torch.cat([before, hidden[:, None]], dim=1)
            scores, memory = self._scores_of_inputs(inputs, before, memory)
            x = (scores.softmax(dim=1)[:, None] @ inputs)[:, 0]
        output, cell = self.lstm(x[:, None], state.cell)
        if self.attention in OF_LOGITS:
            after = torch.cat([after, output], dim=1)
        return ActionState(cell, inputs, before, after, memory)

    def _scores_of_inputs(self, inputs: Tensor, before: Tensor, memory: Tensor) -> tuple[Tensor, Tensor]:
        """[B T] of the T inputs so far, the last one the current; and what attention remembers."""
        _, T, _ = inputs.shape
        if self.attention in OF_LENGTH:
            if self.max_frames < T:
                raise ValueError(f"joints: expected up to max_frames={self.max_frames} frames, got {T}")
            x = F.pad(inputs, (0, 0, 0, self.max_frames - T)).flatten(1)
            if self.attention == "inputs_rnn":
                x = memory = self.score["rnn"](x, memory)
            return self.score["linear"](x)[:, :T], memory
        beside = before[:, -1:].expand(-1, T, -1) if self.attention == "inputs_state" else before
        scores = self.score["conv"](torch.cat([inputs, beside], dim=2).mT)[:, 0]
        return (scores.relu() if self.attention == "inputs_conv_relu" else scores), memory

    def _weights(self, x: Tensor, after: Tensor, *, last: bool = False) -> Float[Tensor, "B T S"]:
        """How much each frame's logits count for the beginning up to every frame; up to the last one alone if asked."""
        _, S, _ = x.shape
        conv: Any = self.score["conv"]
        half = conv.kernel_size[0] // 2
        # A beginning knows nothing of the frames behind it, so a convolution's taps that reach there count for nothing:
        # the taps of each frame are summed up one by one, and each beginning takes the sum as far as it goes.
        taps = torch.cat([x, after], dim=2) @ conv.weight[0]  # B S k
        near = [F.pad(taps[:, :, k], (half, half))[:, k : k + S] for k in range(2 * half + 1)]
        sums = torch.stack(near, dim=2).cumsum(dim=2) + conv.bias  # B S k
        ends, frames = torch.arange(S - 1 if last else 0, S, device=x.device), torch.arange(S, device=x.device)
        ahead = ends[:, None] - frames  # T S
        scores = sums[:, frames, half + ahead.clamp(0, half)]
        scores = scores.sigmoid() if self.attention == "logits_sigmoid" else scores.relu()
        return scores.masked_fill(ahead < 0, -torch.inf).softmax(dim=2)


def _score(attention: str, inputs: int, hidden: int, kernel: int, max_frames: int) -> nn.ModuleDict:
    """The layers that score frames for attention, by name."""
    if attention == "none":
        return nn.ModuleDict()
    if attention == "inputs_rnn":
        rnn = nn.RNNCell(max_frames * inputs, hidden)
        return nn.ModuleDict({"rnn": rnn, "linear": nn.Linear(hidden, max_frames)})
    if attention == "inputs_linear":
        return nn.ModuleDict({"linear": nn.Linear(max_frames * inputs, max_frames)})
    width = (
        1 if attention in ("logits_relu", "logits_sigmoid") else kernel
    )  # a linear layer is a convolution of width 1
    return nn.ModuleDict({"conv": nn.Conv1d(inputs + hidden, 1, width, padding=width // 2)})


def _at_end(values: Tensor, lengths: Tensor) -> Tensor:
    """Of [B S C], what is at the last frame of each sequence."""
    return values[torch.arange(len(values), device=values.device), lengths - 1]


def pad(sequences: Sequence[Float[Tensor, "_ D"]]) -> tuple[Float[Tensor, "B S D"], Int[Tensor, " B"]]:
    """Sequences of different lengths as one batch, 0 behind their ends; and their lengths.

    >>> pad([torch.ones(2, 3), torch.ones(4, 3)])[1].tolist()
    [2, 4]
    """
    lengths = torch.tensor([len(sequence) for sequence in sequences])
    return nn.utils.rnn.pad_sequence(list(sequences), batch_first=True), lengths
