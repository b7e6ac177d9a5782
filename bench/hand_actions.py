"""Actions of the synthetic hand from its true joints, people unseen: what the LSTM reaches, beside its controls.

    python bench/hand_actions.py --seeds 0 1 2         # accuracy, three ways, random labels, noise
    python bench/hand_actions.py --seeds 0 --blind     # covered joints replaced by their mean, too
    python bench/hand_actions.py --seeds 0 --attentions none,logits_relu,logits_sigmoid,logits_conv

Each seed is another data set (10 people, 12 actions in partners, 4 takes) and another start of one LSTM of 100 units
(amsgrad, 3e-3, batches of 20, gradients not clipped), whose checkpoint is chosen on validation people. Beside it stand
the most frequent action, the 15 frames nearest to the last one, and the nearest sequence by dynamic time warping. "one
frame" is the best that these 15 frames tell a member from its partner at any tenth of a sequence, and what
`expected_gain` says of true visible joints where fingers are covered. The control learns labels drawn at random by the
sequences' names. No depth is rendered. Runs are kept in `--folder`, and go on when it is called again. Seconds are CPU
seconds. The last line is JSON.
"""

import argparse
import json
import os
import platform
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from flowlib.action_views import accuracy_table, action_methods, noise_curve, three_ways, training_drift, try_attention
from flowlib.evaluation import evaluate
from flowlib.hands.actions import ActionConfig
from flowlib.hands.dataset import TruePoses
from flowlib.hands.synthetic import HIDDEN_JOINTS, SyntheticConfig, SyntheticHands
from flowlib.models.actions import MODES, ActionLSTM
from flowlib.tasks.action import ActionTask
from flowlib.tasks.action.metrics import SHARES, wilson
from flowlib.tasks.pose_and_action import PosedSequences
from flowlib.training import TrainConfig, fit, load_checkpoint

BATCHES = {"ties": [4, 6, 4, 6, 4], "equal": [5, 5, 5], "length 1": [1, 1], "unsorted": [3, 45, 1, 20, 45]}


def learn(args: argparse.Namespace, name: str, task: ActionTask, train: Any, validation: Any, seed: int) -> tuple:
    """The chosen network of a run, its checkpoint's word, and CPU seconds of this call."""
    began = time.process_time()
    torch.manual_seed(seed)
    model = ActionLSTM(63, len(task.actions))
    config = replace(args.config, name=name, seed=seed)
    run = fit(model, task, train, validation, config, folder=args.folder / "runs" / name)
    return *load_checkpoint(run.best or run.last), time.process_time() - began


def accuracy(args: argparse.Namespace, hands: SyntheticHands, seed: int) -> tuple[dict, ActionLSTM, ActionTask]:
    """The network beside the baselines, on test people; what one frame tells of members."""
    train, validation, test = (TruePoses(hands, split) for split in ("train", "val", "test"))
    task = ActionTask(actions=hands.actions, partners=True)
    model, about, seconds = learn(args, f"seed{seed}", task, train, validation, seed)
    folder = args.folder / "reports" / f"seed{seed}"
    methods = action_methods(model, task, train)
    report = evaluate(methods, task, test, folder=folder, about={"model": about}, progress=False)
    report.save(folder)
    print(f"seed {seed}: {seconds:.0f} CPU s of training, step {about['step']}", *report.summary(), sep="\n")
    print(report.table(), accuracy_table(report), sep="\n\n")
    names = ("top1", "top3", "family", "partner", "nll", "observed_50")
    found: dict[str, Any] = {m: {name: report.estimate(m, name).mean for name in names} for m in report.methods}
    moments = {share: report.estimate("last frame", f"observed_partner_{share}").mean for share in SHARES}
    best = max(moments, key=lambda share: moments[share])
    gain = hands.expected_gain("test")
    found["one frame"] = {
        "true joints, best": moments[best],
        "at %": best,
        "last": moments[100],
        "visible": gain.member,
    }
    print("one frame tells members:", {name: round(float(value), 3) for name, value in found["one frame"].items()})
    return found | {"train_cpu_s": seconds, "step": about["step"]}, model, task


def random_labels(args: argparse.Namespace, hands: SyntheticHands, seed: int) -> dict:
    """A network that has learned labels drawn at random: how well it knows them, and the test people's true ones."""
    train, test = TruePoses(hands, "train"), TruePoses(hands, "test")
    task = ActionTask(actions=hands.actions, partners=True)
    drawn = replace(task, labels="random")
    model, _, _ = learn(args, f"random_labels_seed{seed}", drawn, train, None, seed)
    counts = {}
    for name, asked, data in (("learned", drawn, train), ("test", task, test), ("test, random", drawn, test)):
        answers = [asked.case(data[index]) for index in range(len(data))]
        right = sum(int(asked.predict(model, case, name)[-1].argmax() == case.action) for case in answers)
        counts[name] = [right, len(data), *(round(end, 3) for end in wilson(right, len(data)))]
        chance = 1 / len(task.actions)
        print(f"random labels, {name}: {right} of {len(data)}, Wilson {counts[name][2:]}, chance {chance:.3f}")
    return counts


@torch.inference_mode()
def odd_batches(model: ActionLSTM, test: TruePoses) -> dict[str, float]:
    """Largest difference of a logit of any way from packed, by number type, on batches of odd lengths."""
    poses, found = [test[index]["pose"].flatten(1) for index in range(len(test))], {}
    long = [pose for pose in poses if len(pose) >= 45] or sorted(poses, key=len)[-3:]
    for dtype in (torch.float32, torch.float64):
        twin = ActionLSTM(**model.config)
        twin.load_state_dict(model.state_dict())
        twin, worst = twin.to(dtype).eval(), 0.0
        for lengths in BATCHES.values():
            parts = [long[index % len(long)][:length] for index, length in enumerate(lengths)]
            sizes = torch.tensor([len(part) for part in parts])
            joints = torch.nn.utils.rnn.pad_sequence(parts, batch_first=True).to(dtype)
            logits = [twin(joints, sizes, mode).logits for mode in MODES]
            worst = max(worst, *(float((other - logits[0]).abs().max()) for other in logits[1:]))
        found[str(dtype).removeprefix("torch.")] = worst
    return found


def blind(args: argparse.Namespace, hands: SyntheticHands, seed: int) -> dict:
    """Without what is covered: joints of ring and little finger replaced by their training mean while they are."""
    mean = np.concatenate([sample["pose"].numpy() for sample in TruePoses(hands, "train")]).mean(axis=0)
    parts = []
    for split in ("train", "val", "test"):
        true, poses = TruePoses(hands, split), {}
        for sample in true:
            pose = sample["pose"].numpy().copy()
            for joint in HIDDEN_JOINTS:
                pose[hands.occluded(sample["key"]), joint] = mean[joint]
            poses[sample["key"]] = pose
        parts.append(PosedSequences(true, poses, "true joints, covered ones replaced by their mean"))
    task = ActionTask(actions=hands.actions, partners=True)
    model, about, _ = learn(args, f"blind_seed{seed}", task, parts[0], parts[1], seed)
    folder = args.folder / "reports" / f"blind_seed{seed}"
    report = evaluate(action_methods(model, task, parts[0]), task, parts[2], folder=folder, progress=False)
    print("covered joints unknown:", report.table(), sep="\n")
    return {m: {name: report.estimate(m, name).mean for name in ("top1", "family", "partner")} for m in report.methods}


def main() -> None:
    """Run all of it for every seed; what belongs to one network alone, for the first."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folder", type=Path, default=Path("workspace/bench_hand_actions"))
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--steps", type=int, default=2000)
    parser.add_argument("--noise", default="0,2,5,10,15,20,30", help="mm, of the first seed's network")
    parser.add_argument("--drift-epochs", type=int, default=10)
    parser.add_argument("--blind", action="store_true")
    parser.add_argument("--attentions", default="", help="kinds by comma, compared on the first seed's data")
    parser.add_argument("--actions", default="{}", help="JSON of ActionConfig values that differ from the default")
    args = parser.parse_args()
    torch.set_num_threads(1)
    args.config = TrainConfig(
        steps=args.steps, batch_size=20, optimizer="amsgrad", weight_decay=0.0, learning_rate=3e-3, clip="none",
        schedule="constant", validate_every=100, save_every=500, device="cpu", num_workers=0,
    )  # fmt: skip
    given = json.loads(args.actions).items()
    changes: dict[str, Any] = {name: tuple(value) if isinstance(value, list) else value for name, value in given}
    result: dict[str, Any] = {"accuracy": {}}
    for seed in args.seeds:
        hands = SyntheticHands(SyntheticConfig(seed=seed, actions=ActionConfig(**changes)))
        result["accuracy"][seed], model, task = accuracy(args, hands, seed)
        if args.blind:
            result.setdefault("blind", {})[seed] = blind(args, hands, seed)
        if seed != args.seeds[0]:
            continue
        train, validation, test = (TruePoses(hands, split) for split in ("train", "val", "test"))
        result["random labels"] = random_labels(args, hands, seed)
        ways, odd = three_ways(model, task, test), odd_batches(model, test)
        drift_config = replace(args.config, name="drift", seed=seed)
        drift = training_drift(model, task, train, test, drift_config, args.drift_epochs, runs=args.folder / "runs")
        print(ways._repr_markdown_(), f"odd batches: {odd}", drift._repr_markdown_(), sep="\n\n")
        result |= {"three ways": ways.rows, "h_n": ways.h_n, "odd batches": odd, "drift": drift.rows}
        curve = noise_curve(model, task, test, args.noise, args.folder / "reports" / "noise", seed)
        print(curve._repr_markdown_(), f"falls: {curve.falls}", sep="\n")
        shares = {kind: {mm: right / count for mm, (right, count) in own.items()} for kind, own in curve.levels.items()}
        result |= {"noise": shares, "noise falls": curve.falls}
        if args.attentions:
            config = replace(args.config, name="attention")
            table = try_attention(
                model, task, train, validation, config, args.attentions, 3, runs=args.folder / "runs"
            )  # fmt: skip
            print(table)
            result["attention"] = table.rows if table else []
    about = {
        "machine": platform.machine(),
        "cores": os.cpu_count(),
        "load": os.getloadavg()[0],
        "torch": torch.__version__,
    }
    print(json.dumps({"bench": "hand_actions", "steps": args.steps, "threads": 1, **about, "result": result}))


if __name__ == "__main__":
    main()
