"""The synthetic hand: a data set with exact joints, visibility and actions, rendered frame by frame when asked for.

In goes a `SyntheticConfig`; out comes a `HandCollection` like those of the published sets, with joints in FPHA's order
in the axes of FPHA's depth camera. Subjects differ in their hands and habits, takes in timing, height, view and place.
What the actions are for, and why something is held before ring and little finger, is told in `actions`.
Decided by the configuration alone: the same seed gives the same bytes on every machine, whatever is read first.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field, replace

import numpy as np
from jaxtyping import Bool, Float, Int

from flowlib.camera import FPHA_DEPTH, Camera
from flowlib.hands.actions import (
    CURLED,
    HIDDEN_FINGERS,
    REST,
    STRAIGHT,
    ActionConfig,
    Habits,
    Take,
    perform,
    random_habits,
)
from flowlib.hands.kinematics import (
    CHAINS,
    HandShape,
    forward,
    mean_shape,
    place,
    random_shape,
    rotation,
    sine_cosine,
)
from flowlib.hands.rendering import render, visible_joints
from flowlib.hands.sensor import SensorConfig, sense
from flowlib.hands.sequences import HandCollection, HandSequence
from flowlib.hands.skeleton import FPHA_21

PROTOCOLS = ("cross-subject", "within")
HIDDEN_JOINTS = tuple(joint for finger in HIDDEN_FINGERS for joint in CHAINS[finger])  # those that are covered
SEEN_JOINTS = tuple(joint for joint in range(21) if joint not in HIDDEN_JOINTS)
FORMAT = "flowlib synthetic hand 1"

HELD_RADIUS, HELD_BEFORE, HELD_ASIDE = 17.0, 48.0, 7.0  # mm: of the bars held, nearer than the fingers, off the middle
SUBJECT, TAKE, FRAME = range(3)  # what a stream of random numbers is for


@dataclass(frozen=True)
class SyntheticConfig:
    """What makes a synthetic data set.

    Attributes:
        seed: of everything random.
        subjects: how many people.
        takes: of each action by each of them.
        protocol: "cross-subject": other people in training, validation and test, about 6 : 2 : 2; "within": everyone
            in all three, half of the takes for training, as FPHA's 1:1 protocol has it.
        actions: which, and how takes vary.
        sensor: its errors; `SensorConfig.clean()` for exact depth.
        camera: of the depth.
        right: right hands; else left ones, their mirror images.

    Raises:
        ValueError: an unknown protocol, or too few subjects or takes for three splits.
    """

    seed: int = 0
    subjects: int = 10
    takes: int = 4
    protocol: str = "cross-subject"
    actions: ActionConfig = field(default_factory=ActionConfig)
    sensor: SensorConfig = field(default_factory=SensorConfig)
    camera: Camera = FPHA_DEPTH
    right: bool = True

    def __post_init__(self) -> None:
        if self.protocol not in PROTOCOLS:
            raise ValueError(f"protocol: expected one of {', '.join(PROTOCOLS)}, got {self.protocol!r}")
        least = {"subjects": 1, "takes": 3} if self.protocol == "within" else {"subjects": 3, "takes": 1}
        for name, number in {"seed": 0, **least}.items():
            value = getattr(self, name)
            if not isinstance(value, (int, np.integer)) or value < number:
                purpose = "" if name == "seed" else f" for three splits {self.protocol}"
                raise ValueError(f"{name}: expected a whole number of at least {number}{purpose}, got {value!r}")


@dataclass(frozen=True)
class ExpectedGain:
    """What knowing the action is worth for the covered joints, by nearest neighbours among true visible joints.

    All in mm over the covered joints (`HIDDEN_JOINTS`) of the frames in which they are covered.

    Attributes:
        without: error of the mean of the 15 nearest training frames.
        family: of those of the true action or its partner.
        action: of those of the true action.
        partner: of those of the partner's.
        member: how often the 15 nearest of the family name the member; 0.5 is chance.
        frames: how many were tested.
    """

    without: float
    family: float
    action: float
    partner: float
    member: float
    frames: int

    @property
    def gain(self) -> float:
        """mm over the covered joints that the action is worth."""
        return self.without - self.action

    @property
    def gain_all_joints(self) -> float:
        """The same over all 21 joints."""
        return self.gain * len(HIDDEN_JOINTS) / 21


class SyntheticHands(HandCollection):
    """A data set of the synthetic hand.

    Attributes:
        config: what it was made by.
        takes: the performance behind each sequence, by its key: joint angles, phase, when the fingers are covered.
        shapes: each subject's hand.

    >>> hands = SyntheticHands(SyntheticConfig(subjects=3, takes=1, actions=ActionConfig(families=1)))
    >>> len(hands), hands.actions, hands.sequences[0].depth(0).shape
    (6, ('thumb curls then index curls', 'index curls then thumb curls'), (480, 640))
    """

    config: SyntheticConfig
    takes: dict[str, Take]
    shapes: dict[str, HandShape]

    def __init__(self, config: SyntheticConfig = SyntheticConfig()) -> None:
        takes: dict[str, Take] = {}
        shapes: dict[str, HandShape] = {}
        splits: dict[str, str] = {}
        sequences: list[HandSequence] = []
        for number in range(config.subjects):
            rng = np.random.default_rng((config.seed, SUBJECT, number))
            subject = f"Subject_{number + 1}"
            shapes[subject] = random_shape(rng, right=config.right)
            habits = random_habits(rng, config.actions)
            for action in range(len(config.actions.names)):
                for turn in range(config.takes):
                    stream = (config.seed, TAKE, number, action, turn)
                    sequence, take = _sequence(subject, action, turn, stream, shapes[subject], habits, config)
                    sequences.append(sequence)
                    takes[sequence.key] = take
                    splits[sequence.key] = _split(config, number, turn)
        super().__init__(tuple(sequences), splits, config.actions.names)
        for name, value in (("config", config), ("takes", takes), ("shapes", shapes)):
            object.__setattr__(self, name, value)

    def occluded(self, key: str) -> Bool[np.ndarray, " S"]:
        """In which frames of a sequence the held bars cover ring and little finger."""
        return self.takes[key].occluded

    def expected_gain(self, split: str = "test", *, neighbours: int = 15) -> ExpectedGain:
        """How far the covered joints of a split can be told from the visible ones, with the action and without.

        Nearest-neighbour regression from the true visible joints, relative to the middle knuckle, of the covered
        frames in training to those in `split`: what a report compares a model's gain with.

        Raises:
            ValueError: no such split, or it is the training split itself.
        """
        if split == "train":
            raise ValueError("split: expected val or test, got 'train', from which the neighbours are taken")
        joints, actions = self._covered("train")
        asked, truth = self._covered(split)
        without, family, with_action, partner, member = [], [], [], [], []
        everything = np.ones(len(actions), bool)
        for action in np.unique(truth):
            here = asked[truth == action]
            relatives = actions // 2 == action // 2
            for errors, mask in (
                (without, everything),
                (family, relatives),
                (with_action, actions == action),
                (partner, actions == (action ^ 1)),
            ):
                errors.append(_regress(joints[mask], here, neighbours))
            nearest = _nearest(joints[relatives], here, neighbours)
            member.append((actions[relatives][nearest] == action).mean(axis=1) > 0.5)
        error = [float(np.concatenate(part).mean()) for part in (without, family, with_action, partner, member)]
        return ExpectedGain(*error, frames=len(asked))

    def _covered(self, split: str) -> tuple[Float[np.ndarray, "N 21 3"], Int[np.ndarray, " N"]]:
        """Joints relative to the middle knuckle, and actions, of all frames of a split where fingers are covered."""
        sequences = self.split(split)
        joints = [sequence.joints[self.occluded(sequence.key)] for sequence in sequences]
        actions = np.concatenate([np.full(len(part), sequence.action) for sequence, part in zip(sequences, joints)])
        together = np.concatenate(joints)
        return together - together[:, FPHA_21.centre, None], actions


def _sequence(
    subject: str,
    action: int,
    turn: int,
    stream: tuple[int, ...],
    shape: HandShape,
    habits: Habits,
    config: SyntheticConfig,
) -> tuple[HandSequence, Take]:
    rng = np.random.default_rng(stream)
    take = perform(action, rng, config.actions, habits)
    turns, positions = _wrist(rng, len(take.phase), config.right)
    joints = place(forward(take.theta, shape), turns, positions).astype(np.float32)
    bars = _held(shape, habits, turns, positions)
    radius = HELD_RADIUS * float(shape.phalanges.sum() / mean_shape().phalanges.sum())
    visible, covered = np.empty(joints.shape[:2], bool), take.occluded
    visible[~covered] = visible_joints(joints[~covered].astype(np.float64), shape.radii)
    visible[covered] = visible_joints(
        joints[covered].astype(np.float64), shape.radii, held=bars[covered], held_radius=radius
    )
    camera = config.camera

    def read(frame: int) -> np.ndarray:
        held = bars[frame] if take.occluded[frame] else None
        depth = render(joints[frame].astype(np.float64), shape.radii, camera, held=held, held_radius=radius)
        return sense(depth, np.random.default_rng((*stream, FRAME, frame)), config.sensor)

    name = config.actions.names[action].replace(",", "").replace(" ", "_")
    made = {name: value for name, value in asdict(config).items() if name not in ("subjects", "takes", "protocol")}
    source = json.dumps({"format": FORMAT, "stream": stream, "config": made})  # others' takes change nothing here
    skeleton = replace(FPHA_21, right=config.right)
    key = f"{subject}/{name}/{turn + 1}"
    return HandSequence(key, subject, action, camera, skeleton, joints, read, visible, source=source), take


def _wrist(
    rng: np.random.Generator, frames: int, right: bool
) -> tuple[Float[np.ndarray, "S 3 3"], Float[np.ndarray, "S 3"]]:
    """The hand's turn and the wrist's place in mm per frame: a view of its own for each take, and slow swaying."""
    angles = (2 * rng.random(3) - 1) * (0.25, 0.25, 0.35)
    middle = (2 * rng.random(3) - 1) * (40, 40, 70) + (0, 80, 450)
    swing = 2 * np.pi * (np.arange(frames)[:, None] / (30 + 30 * rng.random(6)) + rng.random(6))
    sway = sine_cosine(swing)[0]
    angles = angles + 0.12 * sway[:, :3]
    positions = middle + (6, 6, 10) * sway[:, 3:]
    if not right:  # the mirror image of what a right hand does
        angles, positions = angles * (1, -1, -1), positions * (-1, 1, 1)
    return rotation(angles), positions


def _held(
    shape: HandShape, habits: Habits, turns: Float[np.ndarray, "S 3 3"], positions: Float[np.ndarray, "S 3"]
) -> Float[np.ndarray, "S 4 2 3"]:
    """Axes of the four bars held before ring and little finger, the same whether these are curled or straight.

    Before the finger as it is when straight, and before its middle bone when curled: points of the hand, moved
    towards the camera along their rays, so that they cover in every view what they are held before.
    """
    poses = np.zeros((2, 5, 4)) + REST + habits.posture
    for pose, flexion in zip(poses, (STRAIGHT, CURLED)):
        pose[list(HIDDEN_FINGERS), 1:3] = flexion
        pose[list(HIDDEN_FINGERS), 3] = 0.6 * flexion[1]
    straight, curled = forward(poses, shape)
    aside = np.array((HELD_ASIDE if shape.right else -HELD_ASIDE, 0, 0))
    ends = [
        pair
        for first, second, third, last in (CHAINS[finger] for finger in HIDDEN_FINGERS)
        for pair in ((straight[first], straight[last]), (curled[second], curled[third]))
    ]
    knuckles = straight[[CHAINS[finger][0] for finger in HIDDEN_FINGERS]]
    axes = place(np.broadcast_to(np.array(ends) + aside, (len(turns), 4, 2, 3)), turns, positions)
    knuckle_depth = place(np.broadcast_to(knuckles, (len(turns), 2, 3)), turns, positions)[..., 2]
    depth = axes[..., 2].copy()
    depth[:, 1::2] = knuckle_depth[..., None]  # a curled finger's bars lie as deep as its knuckle's
    return axes * ((depth - HELD_BEFORE) / axes[..., 2])[..., None]


def _split(config: SyntheticConfig, subject: int, take: int) -> str:
    if config.protocol == "within":
        number, total = take, config.takes
        held_out = total - (total + 1) // 2
        test = (held_out + 1) // 2
        validation = held_out - test
    else:
        number, total = subject, config.subjects
        test = validation = max(1, round(0.2 * total))
    if number >= total - test:
        return "test"
    return "val" if number >= total - test - validation else "train"


def _nearest(known: np.ndarray, asked: np.ndarray, neighbours: int) -> Int[np.ndarray, "N K"]:
    """Indices of the `known` frames whose visible joints are nearest to each of the `asked`."""
    a, b = (joints[:, SEEN_JOINTS].reshape(len(joints), -1) for joints in (asked, known))
    distance = (b * b).sum(axis=1) - 2 * a @ b.T
    return np.argpartition(distance, neighbours - 1, axis=1)[:, :neighbours]


def _regress(known: np.ndarray, asked: np.ndarray, neighbours: int) -> Float[np.ndarray, " N"]:
    """Mean error in mm of the covered joints, as the nearest frames have them in the mean."""
    hidden = known[:, HIDDEN_JOINTS][_nearest(known, asked, neighbours)].mean(axis=1)
    return np.linalg.norm(hidden - asked[:, HIDDEN_JOINTS], axis=-1).mean(axis=-1)
