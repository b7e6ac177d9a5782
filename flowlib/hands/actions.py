"""Actions of the synthetic hand, which need time to be told apart and tell what can't be seen.

A family of actions names two visible events, A and B, of thumb, index and middle finger. Its first member does A then
B, its second B then A: the set of visible frames is the same, the order differs. Meanwhile ring and little finger are
curled in one member and straight in the other; in which one is xor-ed with the family's number, so no rule holds for
all families. Something held hides both fingers but for the first and last tenth. So a single frame doesn't tell the
member, the sequence does, and the member tells where the hidden fingers are.
A tempo family has one event A for both members: once and slowly in the first, twice and fast in the second.
In goes a generator; out come joint angles θ [S 5 4] in radians per frame. Knows nothing of shapes and cameras.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float

from flowlib.hands.kinematics import gaussian, within_limits

THUMB, INDEX, MIDDLE, RING, LITTLE = range(5)
HIDDEN_FINGERS = (RING, LITTLE)

# What an event adds to the resting angles at its height: (finger, abduction, flexion at its three joints) in radians.
EVENTS = {
    "thumb curls": ((THUMB, 0.0, 0.5, 0.9, 0.8),),
    "index curls": ((INDEX, 0.0, 1.1, 1.3, 0.8),),
    "middle curls": ((MIDDLE, 0.0, 1.1, 1.3, 0.8),),
    "thumb opposes": ((THUMB, 0.85, 0.3, 0.2, 0.1),),
    "index spreads": ((INDEX, -0.32, -0.1, 0.0, 0.0), (MIDDLE, 0.08, -0.1, 0.0, 0.0)),
    "hook": ((INDEX, 0.0, -0.1, 1.3, 0.8), (MIDDLE, 0.0, -0.1, 1.3, 0.8)),
}
FAMILIES = (
    ("thumb curls", "index curls"),
    ("index curls", "middle curls"),
    ("middle curls", "thumb opposes"),
    ("thumb opposes", "index spreads"),
    ("index spreads", "hook"),
    ("hook", "thumb curls"),
    ("thumb curls", "middle curls"),
    ("index curls", "thumb opposes"),
)
REST = np.zeros((5, 4)) + (0.0, 0.15, 0.2, 0.1)
CURLED, STRAIGHT, BETWEEN = (1.5, 1.85), (0.15, 0.10), (0.7, 0.8)  # (first, second) flexion of the hidden fingers
DIP_OF_PIP = 0.6  # the last joint of a finger follows the one before


@dataclass(frozen=True)
class ActionConfig:
    """How actions vary from take to take: so much that an LSTM on true joints mistakes some 3 of 100 actions of
    people it doesn't know, else nothing built on it could be told apart (`python bench/hand_actions.py`).

    Attributes:
        families: how many of `FAMILIES`, two actions each; 1 to 8.
        tempo_families: how many families of one event each come after them, told apart by tempo; 0 to 6.
        frames: least and greatest length of a take, whose tempo decides it.
        amplitude: an event's height varies by this share.
        windows: phase at which the first event begins, it ends and the second begins, the second ends.
        jitter: each end of an event's window is moved by up to this phase.
        tempo: least and greatest exponent of the phase's warp: below 1 the beginning is hurried.
        posture: deviation in radians of a person's own posture from the mean.
        tremor: deviation in radians of slow, aimless motion of all visible fingers.
        reveal: ring and little finger begin to move before they are hidden and end after; else all while hidden.

    Raises:
        ValueError: a number out of its range, by name.
    """

    families: int = 6
    tempo_families: int = 0
    frames: tuple[int, int] = (20, 45)
    amplitude: float = 0.2
    windows: tuple[float, float, float] = (0.22, 0.50, 0.78)
    jitter: float = 0.06
    tempo: tuple[float, float] = (0.8, 1.3)
    posture: float = 0.03
    tremor: float = 0.03
    reveal: bool = True

    def __post_init__(self) -> None:
        for name, least, most in (("families", 1, len(FAMILIES)), ("tempo_families", 0, len(EVENTS))):
            number = getattr(self, name)
            if not isinstance(number, int) or not least <= number <= most:
                raise ValueError(f"{name}: expected a whole number from {least} to {most}, got {number!r}")
        if not 2 <= self.frames[0] <= self.frames[1]:
            raise ValueError(f"frames: expected a least length from 2 on and a greatest, got {self.frames}")
        if not 0 < self.tempo[0] <= self.tempo[1] <= 2:
            raise ValueError(f"tempo: expected a least and a greatest exponent in 0 to 2, got {self.tempo}")
        begin, middle, end = self.windows
        if not 0 < begin < middle < end < 1:
            raise ValueError(f"windows: expected three phases that rise within 0 to 1, got {self.windows}")
        for name in ("amplitude", "jitter", "posture", "tremor"):
            if not 0 <= getattr(self, name) < 1:
                raise ValueError(f"{name}: expected 0 or more and less than 1, got {getattr(self, name)}")

    @property
    def names(self) -> tuple[str, ...]:
        """Name of each action, partners side by side: 2·family + member is its class."""
        ordered = [f"{a} then {b}" for pair in FAMILIES[: self.families] for a, b in (pair, pair[::-1])]
        events = list(EVENTS)[: self.tempo_families]
        return (*ordered, *(f"{event} {times}" for event in events for times in ("once, slowly", "twice, fast")))

    def curls(self, action: int) -> bool:
        """The hidden law: whether ring and little finger are curled in this action."""
        family, member = divmod(action, 2)
        return bool((member ^ family) & 1)


@dataclass(frozen=True, eq=False)
class Habits:
    """How one person does things: what is the same in all of their takes.

    Attributes:
        tempo: factor of the length of takes.
        amplitude: factor of the height of each event, in the order of `EVENTS`.
        posture: [5 4] radians, added to the resting angles.
    """

    tempo: float
    amplitude: Float[np.ndarray, " 6"]
    posture: Float[np.ndarray, "5 4"]


@dataclass(frozen=True, eq=False)
class Take:
    """One performance of an action.

    Attributes:
        theta: [S 5 4] radians, within the limits.
        phase: [S] from 0 to 1, warped by the take's tempo.
        occluded: [S], whether the hidden fingers are covered.
    """

    theta: Float[np.ndarray, "S 5 4"]
    phase: Float[np.ndarray, " S"]
    occluded: Bool[np.ndarray, " S"]


def random_habits(rng: np.random.Generator, config: ActionConfig) -> Habits:
    """A person's habits, decided by the generator."""
    tempo = 0.85 + 0.3 * rng.random()
    amplitude = 1 + config.amplitude / 2 * (2 * rng.random(len(EVENTS)) - 1)
    return Habits(tempo, amplitude, config.posture * gaussian(rng, (5, 4)))


def perform(action: int, rng: np.random.Generator, config: ActionConfig, habits: Habits) -> Take:
    """A take of an action.

    Args:
        action: its class, a place in `config.names`.
        rng: decides the take.
        config: how takes vary.
        habits: the person's.

    Raises:
        ValueError: no such action.
    """
    if not 0 <= action < len(config.names):
        raise ValueError(f"action: expected 0 to {len(config.names) - 1}, got {action}")
    least, most = config.frames
    S = int(np.clip(np.rint((least + (most - least) * rng.random()) * habits.tempo), least, most))
    phase = _warp(np.arange(S) / (S - 1), config.tempo[0] + (config.tempo[1] - config.tempo[0]) * rng.random())
    theta = np.zeros((S, 5, 4)) + REST + habits.posture
    for event, begin, end in _timetable(action, config):
        begin, end = (edge + config.jitter * (2 * rng.random() - 1) for edge in (begin, end))
        height = habits.amplitude[list(EVENTS).index(event)] * (1 + config.amplitude * (2 * rng.random() - 1))
        for finger, *angles in EVENTS[event]:
            theta[:, finger] += height * _bump((phase - begin) / (end - begin))[:, None] * np.array(angles)
    _hide(theta, phase, config.curls(action), rng, config)
    theta[:, :3] += config.tremor * _slow(rng, S, (3, 4))
    theta[:, 1:, 3] += config.tremor * _slow(rng, S, (4,))  # last joints follow the one before only nearly
    return Take(within_limits(theta), phase, (phase > 0.1) & (phase < 0.9))


def _timetable(action: int, config: ActionConfig) -> list[tuple[str, float, float]]:
    """(event, phase where it begins, where it ends)."""
    family, member = divmod(action, 2)
    begin, middle, end = config.windows
    if family < config.families:
        first, second = FAMILIES[family][::-1] if member else FAMILIES[family]
        return [(first, begin, middle), (second, middle, end)]
    event = list(EVENTS)[family - config.families]
    return [(event, begin, middle), (event, middle, end)] if member else [(event, begin, end)]


def _hide(theta: np.ndarray, phase: np.ndarray, curled: bool, rng: np.random.Generator, config: ActionConfig) -> None:
    """Bend ring and little finger by the hidden law, in place."""
    ramps = ((0.08, 0.22), (0.82, 0.95)) if config.reveal else ((0.12, 0.24), (0.76, 0.88))
    shift = 0.01 * (2 * rng.random(2) - 1)
    there, back = (_ramp((phase - begin - move) / (end - begin)) for (begin, end), move in zip(ramps, shift))
    strength = (there - back)[:, None]
    goal, start = np.array(CURLED if curled else STRAIGHT), np.array(BETWEEN)
    for finger in HIDDEN_FINGERS:
        flexion = start + strength * (goal * (1 + 0.05 * gaussian(rng, (2,))) - start)
        theta[:, finger, 1:3] += flexion - REST[finger, 1:3]
        theta[:, finger, 3] += DIP_OF_PIP * flexion[:, 1] - REST[finger, 3]


def _warp(time: np.ndarray, exponent: float) -> np.ndarray:
    """time^exponent on 0 to 1 to second order about exponent 1, by arithmetic: 0 and 1 stay, it rises throughout."""
    return time * (1 + (1 - exponent) * (1 - time))


def _bump(x: np.ndarray) -> np.ndarray:
    """0 outside 0 to 1, smoothly up to 1 in the middle."""
    x = x.clip(0, 1)
    return 16 * (x * (1 - x)) ** 2


def _ramp(x: np.ndarray) -> np.ndarray:
    """0 before 0, 1 after 1, smooth between."""
    x = x.clip(0, 1)
    return x * x * (3 - 2 * x)


def _slow(rng: np.random.Generator, frames: int, shape: tuple[int, ...], knots: int = 5) -> np.ndarray:
    """Slow random motion [S …] of deviation about 1: smooth ramps between values at equal times."""
    values = gaussian(rng, (knots, *shape))
    place = np.arange(frames) * ((knots - 1) / max(frames - 1, 1))
    left = np.minimum(place.astype(int), knots - 2)
    share = _ramp(place - left).reshape(-1, *(1 for _ in shape))
    return values[left] + share * (values[left + 1] - values[left])
