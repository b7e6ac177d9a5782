"""Loops between pose and action on the synthetic hand, people unseen: each beside its controls, and what it cost.

    python bench/hand_loops.py                     # everything: nets, out-of-fold poses, loops, table, checks
    python bench/hand_loops.py --lists             # and small runs of ways to tell, norms, parts, alphas, rates

The store of hands (10 people, 12 actions, 4 takes each) is made in `--folder` when it is first asked for. Every
training is a run there and goes on where it was. Checked, each with its figures:

    (j) told the true action, the second pass gains at least half of what it could on covered joints; told the partner's
        it loses; told 1/K it is within 1 mm of the plain net
    (k) the trained chain is better than the untrained one in both numbers
    (l) two passes with the predicted action beat two with 1/K on covered joints, paired by sequence
    (o) two evaluations of the trained loops are bit-equal (every eighth sequence)
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
from dataclasses import fields
from pathlib import Path

import torch
from torch.utils.data import Subset

from flowlib.evaluation import Report, evaluate
from flowlib.hand_loops import (
    LoopConfig,
    LoopHands,
    Nets,
    compared,
    fine_tune,
    glue,
    paired_table,
    train_nets,
    try_lists,
    weigh_passes,
)
from flowlib.hand_views import parse_augment
from flowlib.hands.crop import CropConfig
from flowlib.hands.sources import find_hands
from flowlib.hands.store import write_hands
from flowlib.hands.synthetic import SyntheticHands
from flowlib.tasks.pose_and_action import JointTask
from flowlib.tasks.protocol import Estimate
from flowlib.training import fit

AUGMENT = parse_augment("rot 30,scale 0.1,trans")
SETTINGS = ("size", "steps", "told_steps", "fold_steps", "folds", "action_steps", "tune_steps", "tune_rate", "alpha")
SHOWN = ("mpjpe", "mpjpe_covered", "mpjpe_seen", "top1", "nll")


class Clock:
    """CPU seconds of the parts of a call."""

    def __init__(self) -> None:
        self.began, self.seconds = time.process_time(), {}

    def __call__(self, part: str) -> None:
        now = time.process_time()
        self.seconds[part], self.began = round(now - self.began), now
        print(f"[{time.strftime('%H:%M:%S')}] {part}: {self.seconds[part]} CPU s", flush=True)


def config_of(args: argparse.Namespace) -> LoopConfig:
    names = {field.name for field in fields(LoopConfig)} & set(vars(args))
    return LoopConfig(**{name: getattr(args, name) for name in names}, augment=AUGMENT, device="cpu")


def numbers(value: Estimate) -> list[float]:
    return [round(one, 4) for one in (value.mean, value.low, value.high)]


def checks(report: Report, nets: Nets, gain: float) -> dict:
    """What was asked, and what came of it."""
    covered, mm = "mpjpe_covered", report.estimate
    oracle = report.difference("two-pass, uniform action", "two-pass, true action", covered)
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
    } | {f"{nets.learned_from} poses": numbers(mm("chain (untrained)", "top1"))}
    found["q_validation_accuracy"] = dict(nets.accuracy)
    return found


def stopped(args: argparse.Namespace, nets: Nets, hands: LoopHands) -> bool:
    """Whether a two-pass training that is stopped twice has the metrics of one that isn't."""
    folder, lines, config = args.folder / "stopped", [], config_of(args)
    often = {"validate_every": 3, "save_every": 1, "validation_samples": 8}
    shutil.rmtree(folder, ignore_errors=True)
    for name, stops in (("whole", [6]), ("parts", [2, 3, 6])):
        for steps in stops:
            loop = glue(nets, ["two_pass"])["two-pass"]
            options = config.training("x", steps, 4, schedule="constant", **often)
            run = fit(loop, JointTask(), hands.train, hands.validation, options, folder=folder / name)
        lines.append([line for line in run.metrics() if "grad_norm" in line] + run.metrics()[-1:])
    return lines[0] == lines[1] and len(lines[0]) == 7


def main() -> None:
    """Train, compare, check."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folder", type=Path, default=Path("workspace/bench_hand_loops"))
    parser.add_argument("--store", type=Path, help="of hands; by default made in the folder")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--step", type=int, default=2, help="every how many frames of a sequence one is taken")
    for name in SETTINGS:
        value = getattr(LoopConfig, name)
        parser.add_argument(f"--{name.replace('_', '-')}", type=type(value), default=value)
    parser.add_argument("--lists", action="store_true")
    parser.add_argument("--list-steps", type=int, default=200)
    parser.add_argument("--tune-list-steps", type=int, default=48)
    args = parser.parse_args()
    torch.set_num_threads(1)
    clock, collection = Clock(), find_hands()
    store = args.store or args.folder / "store"
    if args.store is None:
        write_hands(store, collection, progress=True)
    hands = LoopHands.open(store, CropConfig(size=args.size), step=args.step, unpacked=True)
    clock("store")
    config, runs = config_of(args), args.folder / "runs"
    nets, task = train_nets(hands, config, runs), config.joint_task
    clock("pose nets, nets of the folds, action nets")
    weights = weigh_passes(nets, config, hands)
    print(weights)
    untrained = glue(nets, eta=weights.eta, zeta=weights.zeta)
    clock("shares of both passes")
    trained = fine_tune(untrained, hands, config, runs)
    clock("fine-tuning")
    methods = compared(trained, untrained, nets)
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
    result |= checks(report, nets, gain.gain)
    some = Subset(hands.test, range(0, len(hands.test), 8))
    mine = {name: methods[name] for name in trained}
    again = evaluate(mine, task, some, folder=args.folder / "again", pictures=False)
    known = {(name, row.name): row.scores for name in mine for row in report.rows[name]}
    # As text, in which a number that isn't there (NaN) equals itself.
    pairs = [(row.scores, known[name, row.name]) for name in mine for row in again.rows[name]]
    result["o_bit_equal"] = all(json.dumps(one) == json.dumps(other) for one, other in pairs)
    shutil.rmtree(args.folder / "again", ignore_errors=True)
    result["p_same_metrics_after_a_stop"] = stopped(args, nets, hands)
    clock("second evaluation, stopped training")
    if args.lists:
        for kind in ("conditioning", "norm", "trained", "alpha", "rate"):
            steps = args.list_steps if kind == "conditioning" else args.tune_list_steps
            table = try_lists([kind], nets, hands, config, steps, runs)
            result[kind] = table.rows if table else []
            print(table)
            clock(kind)
    for name, value in result.items():
        print(name, value)
    about = {
        "seed": args.seed,
        "size": args.size,
        "steps": [config.steps, config.told_steps, config.tune_steps],
        "threads": 1,
    }
    about |= {"load": os.getloadavg()[0], "machine": platform.machine(), "torch": torch.__version__}
    print(json.dumps({"bench": "hand_loops", **about, "cpu_s": clock.seconds, "result": result}))


if __name__ == "__main__":
    main()
