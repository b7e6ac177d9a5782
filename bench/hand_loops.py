"""Loops between pose and action on the synthetic hand, people unseen: each beside its controls, and what it cost.

    python bench/hand_loops.py                     # everything: nets, out-of-fold poses, loops, table, checks
    python bench/hand_loops.py --lists             # and conditionings, alphas, norms, parts trained, by small runs

The store of hands (10 people, 12 actions, 4 takes each) is made in `--folder` when it is first asked for. Every
training is a run there and goes on where it was. Checked, each with its figures:

    (j) told the true action, the second pass gains at least half of what it could on covered joints; told the partner's
        it loses; told 1/K it is within 1 mm of the plain net
    (k) the trained chain is better than the untrained one in both numbers
    (l) two passes with the predicted action beat two with 1/K on covered joints, paired by sequence
    (o) two evaluations are bit-equal
    (p) a training that is stopped and goes on has the same metrics
    (q) action nets trained on out-of-fold poses, poses in the fold, and true ones

(i), (m) and (n) are exact and are tests (tests/test_models_loops.py). Seconds are CPU seconds of this call. The last
line is JSON.
"""

import argparse
import json
import os
import platform
import shutil
import time
from dataclasses import replace
from pathlib import Path

import torch

from flowlib.evaluation import Report, evaluate
from flowlib.hand_loops import (
    CONDITIONINGS,
    LoopHands,
    Nets,
    fine_tune,
    glue,
    loop_lists,
    loop_maker,
    out_of_fold,
    paired_table,
    train_actions,
    train_net,
    try_conditionings,
    weigh_passes,
    with_controls,
)
from flowlib.hand_views import parse_augment
from flowlib.hands.crop import CropConfig
from flowlib.hands.sources import find_hands
from flowlib.hands.store import write_hands
from flowlib.hands.synthetic import SyntheticHands
from flowlib.models.actions import ActionLSTM
from flowlib.models.loops import Chain, Told
from flowlib.models.pose import PoseNet
from flowlib.tasks.action import ActionTask
from flowlib.tasks.hand_pose import PoseTask
from flowlib.tasks.pose_and_action import JointTask, OnTruePoses, predict_poses
from flowlib.tasks.protocol import Estimate
from flowlib.training import TrainConfig, fit, run_experiments

AUGMENT = parse_augment("rot 30,scale 0.1,trans")
SHOWN = ("mpjpe", "mpjpe_covered", "mpjpe_seen", "top1", "nll")


class Clock:
    """CPU seconds of the parts of a call."""

    def __init__(self) -> None:
        self.began, self.seconds = time.process_time(), {}

    def __call__(self, part: str) -> None:
        now = time.process_time()
        self.seconds[part], self.began = round(now - self.began), now
        print(f"[{time.strftime('%H:%M:%S')}] {part}: {self.seconds[part]} CPU s", flush=True)


def config(args: argparse.Namespace, name: str, steps: int, batch: int, **options) -> TrainConfig:
    every = max(1, steps // args.validations)
    fixed = {"weight_decay": 0.0, "device": "cpu", "num_workers": 0, "validate_every": every, "save_every": every}
    return TrainConfig(
        name, steps, batch, **{"optimizer": "adam", "learning_rate": 1e-3, "seed": args.seed, **fixed} | options
    )


def pose_net(args: argparse.Namespace, seed: int, **told) -> PoseNet:
    torch.manual_seed(seed)
    return PoseNet.named("small", size=args.size, dropout=0.0, **told)


def train_nets(args: argparse.Namespace, hands: LoopHands, clock: Clock) -> tuple[Nets, dict[str, ActionLSTM]]:
    """Pose nets, out-of-fold poses, action nets by what they were trained on."""
    runs, folder = args.folder / "runs", args.folder / "poses"
    plain = PoseTask(loss="joints", hidden_weight=0.1, augment=AUGMENT, pca_augment=AUGMENT)
    given = hands.frames, hands.validation_frames
    first, other = (
        train_net(pose_net(args, seed), plain, *given, config(args, name, args.steps, 64, seed=seed), runs)
        for name, seed in (("first", args.seed), ("other", args.seed + 1))
    )
    clock("two plain pose nets")
    told = replace(plain, hidden_weight=args.told_weight, condition_dropout=0.25)
    net = pose_net(args, args.seed, num_actions=hands.num_actions, film=("linear",))
    second = train_net(net, told, *given, config(args, "second", args.told_steps, 64), runs)
    clock("conditioned pose net")
    steps = config(args, "fold", args.fold_steps, 64)
    poses = out_of_fold(hands, args.folds, lambda: pose_net(args, args.seed), plain, steps, runs, folder)
    clock("pose nets of the folds")
    task = ActionTask(hands.train.actions, partners=True, noise=args.noise, offset=args.offset)
    steps = config(args, "action", args.action_steps, 20, learning_rate=3e-3, optimizer="amsgrad", validate_every=20)
    kinds = {"out of fold": poses, "in the fold": predict_poses(first, hands.train, folder), "true": None}
    actions = train_actions(hands, kinds, first, lambda: ActionLSTM(63, hands.num_actions), task, steps, runs, folder)
    attentive = train_actions(
        hands, {"attention": poses}, first, lambda: ActionLSTM(63, hands.num_actions, attention="logits_relu"), task,
        steps, runs, folder,
    )["attention"]  # fmt: skip
    clock("action nets")
    return Nets(first, other, second, actions["out of fold"], attentive), actions


def numbers(value: Estimate) -> list[float]:
    return [round(one, 4) for one in (value.mean, value.low, value.high)]


def checks(args: argparse.Namespace, report: Report, hands: LoopHands, gain: float) -> dict:
    """What was asked, and what came of it."""
    covered, mm = "mpjpe_covered", report.estimate
    oracle = report.difference("two-pass, uniform action (untrained)", "two-pass, true action (untrained)", covered)
    alone = {
        name: mm(f"second net, {name}", covered).mean for name in ("true action", "partner's action", "uniform action")
    }
    plain, all_joints = mm("chain (untrained)", covered).mean, mm("chain (untrained)", "mpjpe").mean
    uniform = mm("second net, uniform action", "mpjpe").mean
    found = {
        "j_second_net_alone_mm": alone,
        "j_plain_net_mm": plain,
        "j_share_of_expected_gain": (alone["uniform action"] - alone["true action"]) / gain,
        "j_uniform_minus_plain_all_joints_mm": uniform - all_joints,
        "j_two_pass_oracle_gain_mm": numbers(oracle),
        "k_chain_minus_untrained": {
            name: numbers(report.difference("chain", "chain (untrained)", name)) for name in ("mpjpe", "top1", "nll")
        },
    }
    for note in ("", " (untrained)"):
        found[f"l_two_pass_minus_uniform{note}"] = {
            name: numbers(report.difference(f"two-pass{note}", f"two-pass, uniform action{note}", name))
            for name in (covered, "mpjpe", "top1")
        }
    found["q_accuracy_of_action_nets"] = {
        name.removeprefix("chain, action net on "): numbers(mm(name, "top1"))
        for name in report.methods
        if name.startswith("chain, action net on ")
    }
    return found


def stopped(args: argparse.Namespace, nets: Nets, hands: LoopHands) -> bool:
    """Whether a two-pass training that is stopped twice has the metrics of one that isn't."""
    folder, lines = args.folder / "stopped", []
    shutil.rmtree(folder, ignore_errors=True)
    for name, stops in (("whole", [6]), ("parts", [2, 3, 6])):
        for steps in stops:
            loop = glue(nets, ["two_pass"])["two-pass"]
            options = config(
                args, "x", steps, 4, schedule="constant", validate_every=3, save_every=1, validation_samples=8
            )
            run = fit(loop, JointTask(), hands.train, hands.validation, options, folder=folder / name)
        lines.append(run.metrics())
    return lines[0] == lines[1] and len(lines[0]) == 8


def lists(args: argparse.Namespace, nets: Nets, hands: LoopHands, task: JointTask, clock: Clock) -> dict:
    """Small runs of settings, as far as the data allow."""
    runs, found = args.folder / "runs", {}
    plain = PoseTask(loss="joints", hidden_weight=args.told_weight, augment=AUGMENT, pca_augment=AUGMENT)
    shape = PoseNet.named("small", size=args.size, dropout=0.0).config
    steps = config(args, "told", args.list_steps, 64)
    table = try_conditionings(hands, tuple(CONDITIONINGS), shape, plain, steps, runs)
    kept = ("conditioning", "true_mm", "uniform_mm", "true_hidden_mm", "uniform_hidden_mm")
    found["conditioning"] = [{name: row[name] for name in kept} for row in table.rows]
    clock("conditionings")
    steps = config(args, "loop", args.tune_list_steps, 4, learning_rate=args.tune_rate)
    for name in ("norm", "trained", "alpha"):
        maker = loop_maker(nets, "chain")
        table = run_experiments(
            maker, task, hands.train, hands.validation, loop_lists(name), steps, model={}, runs=runs
        )
        kept = ("run", "validation_mpjpe", "validation_accuracy", "best_joint_score")
        found[name] = [{key: row.get(key) for key in kept} for row in table.rows]
        print(table)
        clock(name)
    return found


def main() -> None:
    """Train, compare, check."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folder", type=Path, default=Path("workspace/bench_hand_loops"))
    parser.add_argument("--store", type=Path, help="of hands; by default made in the folder")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--size", type=int, default=32, help="pixels of a crop")
    parser.add_argument("--step", type=int, default=2, help="every how many frames of a sequence one is taken")
    parser.add_argument("--steps", type=int, default=1200, help="of a plain pose net")
    parser.add_argument("--told-steps", type=int, default=2000, help="of the conditioned one")
    parser.add_argument("--told-weight", type=float, default=0.5, help="of hidden joints in its loss")
    parser.add_argument("--fold-steps", type=int, default=900, help="of the pose net of each fold")
    parser.add_argument("--folds", type=int, default=3)
    parser.add_argument("--action-steps", type=int, default=1000, help="of an action net")
    parser.add_argument("--noise", type=float, default=0.0, help="mm on the poses that action nets learn from")
    parser.add_argument("--offset", type=float, default=4.0, help="mm, alike in all frames")
    parser.add_argument("--tune-steps", type=int, default=432, help="of each loop")
    parser.add_argument("--tune-rate", type=float, default=2e-4)
    parser.add_argument("--hidden-weight", type=float, default=0.5, help="of hidden joints in the loops' loss")
    parser.add_argument("--alpha", type=float, default=0.002)
    parser.add_argument("--validations", type=int, default=6, help="of each training")
    parser.add_argument("--lists", action="store_true")
    parser.add_argument("--list-steps", type=int, default=300)
    parser.add_argument("--tune-list-steps", type=int, default=144)
    args = parser.parse_args()
    torch.set_num_threads(1)
    clock, collection = Clock(), find_hands()
    store = args.store or args.folder / "store"
    if args.store is None:
        write_hands(store, collection, progress=True)
    hands = LoopHands.open(store, CropConfig(size=args.size), step=args.step, unpacked=True)
    clock("store")
    nets, actions = train_nets(args, hands, clock)
    task = JointTask(alpha=args.alpha, hidden_weight=args.hidden_weight, augment=AUGMENT)
    weights = weigh_passes(glue(nets, ["two_pass"])["two-pass"], task, hands.validation)
    print(weights)
    untrained = glue(nets, eta=weights.eta, zeta=weights.zeta)
    clock("shares of both passes")
    steps = config(args, "loop", args.tune_steps, 4, learning_rate=args.tune_rate)
    trained = fine_tune(untrained, task, hands, steps, args.folder / "runs")
    clock("fine-tuning")
    second = Chain(nets.second, nets.action)
    methods = with_controls(trained) | with_controls(untrained, note=" (untrained)")
    tellings = {"true": "true action", "wrong": "partner's action", "uniform": "uniform action"}
    methods |= {f"second net, {text}": Told(second, telling) for telling, text in tellings.items()}
    methods |= {f"chain, action net on {name} poses": Chain(nets.first, net) for name, net in actions.items()}
    methods["action net on true poses, true poses"] = OnTruePoses(actions["true"])
    folder = args.folder / "report"
    report = evaluate(methods, task, hands.test, folder=folder)
    report.save(folder)
    clock("evaluation")
    heads = [task.metric(name) for name in SHOWN]
    print("| method |", " | ".join(f"{head.label} {head.unit}" for head in heads), "|")
    for name in report.methods:
        cells = [report.estimate(name, head.name) for head in heads]
        shown = [f"{h.show(c.mean)} [{h.show(c.low)}, {h.show(c.high)}]" for h, c in zip(heads, cells)]
        print("|", name, "|", " | ".join(shown), "|")
    print(paired_table(report))
    assert isinstance(collection, SyntheticHands)
    gain = collection.expected_gain("test")
    result = {"expected_gain_mm": gain.gain, "eta": weights.eta, "zeta": weights.zeta}
    result |= checks(args, report, hands, gain.gain)
    again = evaluate(methods, task, hands.test, folder=args.folder / "again", pictures=False)
    result["o_bit_equal"] = all(
        a.scores == b.scores for name in report.rows for a, b in zip(report.rows[name], again.rows[name], strict=True)
    )
    shutil.rmtree(args.folder / "again", ignore_errors=True)
    result["p_same_metrics_after_a_stop"] = stopped(args, nets, hands)
    clock("second evaluation, stopped training")
    if args.lists:
        result["lists"] = lists(args, nets, hands, task, clock)
    for name, value in result.items():
        print(name, value)
    about = {
        "seed": args.seed,
        "size": args.size,
        "steps": [args.steps, args.told_steps, args.tune_steps],
        "threads": 1,
    }
    about |= {"load": os.getloadavg()[0], "machine": platform.machine(), "torch": torch.__version__}
    print(json.dumps({"bench": "hand_loops", **about, "cpu_s": clock.seconds, "result": result}))


if __name__ == "__main__":
    main()
