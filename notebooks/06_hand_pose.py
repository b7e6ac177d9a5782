# ---
# jupyter:
#   jupytext:
#     formats: ipynb,py:percent
#     text_representation:
#       extension: .py
#       format_name: percent
#   kernelspec:
#     display_name: Python 3
#     language: python
#     name: python3
# ---

# %% [markdown]
# # 6 · Hand pose: 21 joints from depth
#
# To open it in Colab, upload it there; the next cell says where flowlib comes from.
#
# **In:** depth videos of hands: a synthetic hand with exact truth, made here, or FPHA, MSRA15, ICVL or NYU on your own
# disk (they ask you to register, and may not be passed on). **Out:** a network that finds the joints of a hand in
# millimetres, and a report of how well, on people it has not seen.
#
# - *mean pose*: the same pose for every picture; *nearest crop*: the pose of the training crop that looks most alike.
# - A joint is *hidden* where the camera doesn't see it. Behind a held thing nobody can know how fingers are bent; what
#   a network says of them is a guess between what is possible.
# - Every table says what truth the network's *input* contains: a crop around the true hand is easier than one around a
#   hand that was found.

# %% tags=["setup"]
# In Colab: fetch flowlib and add what the runtime lacks. Anywhere else this cell does nothing.
repository = ""  # its address, or a folder or .zip of it on your Drive; "" for $FLOWLIB_REPO, or what is found
ref = ""  # branch, tag or commit; "" for $FLOWLIB_REF, or the newest
import sys

if "google.colab" in sys.modules:
    import subprocess

    class NotSetUp(Exception):
        def _render_traceback_(self):
            return [f"flowlib is not set up: {self}"]

    script = r"""
    from="${FLOWLIB_REPO:-$1}" ref="${FLOWLIB_REF:-$2}" clone=/content/flowlib
    die() { echo "$*" >&2; exit 1; }
    if [ -z "$from" ]; then
      for from in . .. /content/flowlib* /content/drive/MyDrive/flowlib* ""; do
        case "$from" in *.zip) grep -q colab_setup.sh "$from" && break ;; *) [ ! -f "$from/colab_setup.sh" ] || break ;; esac
      done
    fi
    case "$from" in
      "") die "set repository in this cell to the address of flowlib's repository, or put its folder or .zip, named flowlib…, on your Drive" ;;
      *://* | git@*)
        said=$(git init -q "$clone" 2>&1 && cd "$clone" && GIT_TERMINAL_PROMPT=0 git fetch -q --depth 1 "$from" "${ref:-HEAD}" 2>&1 &&
          git checkout -qf FETCH_HEAD 2>&1) || die "$from${ref:+, $ref,} can't be fetched ($said)" ;;
      *.zip)
        rm -rf "$clone.zip.d" && python3 -m zipfile -e "$from" "$clone.zip.d" 2>/dev/null || die "there is no .zip at $from; is your Drive mounted?"
        for clone in "$clone.zip.d" "$clone.zip.d"/*; do [ ! -f "$clone/colab_setup.sh" ] || break; done ;;
      *) clone="$from" ;;
    esac
    [ -f "$clone/colab_setup.sh" ] || die "expected flowlib at $from, found no colab_setup.sh there; is your Drive mounted?"
    echo "flowlib comes from $from"
    exec bash "$clone/colab_setup.sh"
    """
    running = subprocess.Popen(["bash", "-c", script, "set-up", repository, ref], stdout=-1, stderr=-1, text=True)
    for line in running.stdout:
        print(line, end="")
    if running.wait():
        raise NotSetUp(" ".join(running.stderr.read().split()))

# %% tags=["parameters"]
root: str = ""  # the workspace; "" finds it: $FLOWLIB_ROOT, the mounted Drive, or workspace/ in the clone
source: str = "synthetic"  # where the hands come from: synthetic, fpha, msra15, icvl or nyu
folder: str = ""  # where the published data set lies; "" for the synthetic hand
dataset: str = "hands"  # name of the store that is made of them; other hands want another name
protocol: str = ""  # what is tested: synthetic cross-subject or within; fpha 1:1, cross-subject or cross-object; msra15 P0 to P8
subjects: int = 10  # people of the synthetic hand
takes: int = 4  # of each of its actions by each of them
families: int = 6  # of its actions, two each
unpacked: bool = False  # read depth from an unpacked copy: the same, faster, and some 15 times as large
run: str = "hand_pose"  # name of the run; other settings want another name
report: str = "hand_pose"  # name of the report's folder
crop: str = "virtual"  # virtual (a camera that looks at the hand), cube, or padded_box (takes its window from the truth)
cube: float = 200.0  # side of the cube around the hand, mm
centre: str = "truth"  # of the cube: truth (a joint) or estimated (from the depth alone)
augment: str = "rot 30,scale 0.1,trans"  # changes of training crops, one for each, drawn anew each time; "" for none
net: str = "small"  # small, or deepprior++ (the published plan)
size: int = 64  # side of a crop in pixels
components: int = 30  # of the pose prior
dropout: float = 0.0  # in the network's head; 0.3 as published
loss: str = "joints"  # squared error of joints, or of coefficients (as published, all joints alike)
hidden_weight: float = 0.1  # of hidden joints in the joints' loss; 1 with coefficients
steps: int = 2000  # optimiser steps in all
batch_size: int = 64  # crops a step
learning_rate: float = 0.001  # of the optimiser, at its highest
schedule: str = "cosine"  # of the learning rate: constant (steps may be raised later), cosine or one_cycle
validate_every: int = 200  # steps
cubes: str = ""  # a list to compare by small runs, such as "180,190,200,210,220"
augments: str = ""  # another, such as "none;rot;rot 30;rot 30,scale 0.1,trans"
list_steps: int = 300  # steps of each of these runs
seeds: int = 3  # runs of each setting
seed: int = 0  # decides the synthetic hand, the first weights, the order of crops and what else is drawn at random
intervals: str = "sequence"  # what means and intervals are over: sequence, or subject where there are five or more
session_minutes: float = 0.0  # stop after so long, to go on another time; 0: no limit
device: str = "auto"  # auto or cpu
threads: int = 1  # of the CPU: networks as small as these are slower on more of them; 0: all

# %%
from flowlib.notebook import check_parameters

check_parameters(globals())

# %% [markdown]
# ## Collect
#
# The depth around every hand goes into a store: closed files that are read many times as fast as the pictures. Killed
# and run again, it goes on where it was.

# %%
import torch
from IPython.display import Markdown

from flowlib.evaluation import EvalConfig, evaluate
from flowlib.hand_views import (
    centre_cost,
    hand_sheet,
    hand_viewer,
    hidden_limit,
    open_hands,
    outside_table,
    parse_augment,
    pose_methods,
    prior_figure,
    try_settings,
)  # fmt: skip
from flowlib.hands.crop import CropConfig
from flowlib.hands.published import published_table
from flowlib.hands.sources import describe_hands, find_hands
from flowlib.hands.store import write_hands
from flowlib.models.pose import PoseNet
from flowlib.notebook_views import curves, save_viewer
from flowlib.tasks.hand_pose import PoseTask, error_bars, success_figure
from flowlib.training import TrainConfig, fit
from flowlib.training.checkpoints import load_checkpoint
from flowlib.training.runs import run_folder
from flowlib.workspace import Workspace

workspace = Workspace(root).writable()
store = workspace.dataset(dataset)
made = {"subjects": subjects, "takes": takes, "families": families, "seed": seed}
collection = find_hands(source, folder, protocol=protocol, **made)
skipped = write_hands(store, collection, progress=True)
print(describe_hands(collection, skipped))

# %% [markdown]
# ## Look
#
# What the network sees, and what it has to say. Near is bright; hollow joints are hidden.

# %%
crops = CropConfig(method=crop, cube=cube, size=size, centre=centre)
train, validation, test = open_hands(store, crops, unpacked=unpacked)
print(f"{len(train)} crops to train on, {len(test)} sequences to test on; what the input knows: {crops.truth}")
hand_sheet(train);

# %% [markdown]
# A joint outside the cube is not in the picture; a larger cube has fewer of these, and fewer pixels for the hand.

# %%
Markdown(outside_table(train, (cube, 180.0, 200.0, 220.0, 250.0)))

# %% [markdown]
# ## The pose prior
#
# Hands can't take every pose: a few coefficients of a principal component analysis hold nearly all that is possible,
# and the network learns these.

# %%
prior_figure(train, components, parse_augment(augment));

# %% [markdown]
# ## Fit
#
# `rms_mm` is the loss in millimetres, `mpjpe` the mean distance of a joint from its true place. What is hidden can't be
# learned from one frame, and would be most of the loss: hidden joints count a tenth. Run it again and it goes on, step
# for step as if nothing had happened.

# %%
torch.manual_seed(seed)  # of the first weights
model = PoseNet.named(net, size=size, components=components, joints=train.skeleton.num_joints, dropout=dropout)
task = PoseTask(
    loss=loss, hidden_weight=hidden_weight, augment=parse_augment(augment), pca_augment=parse_augment(augment),
    skeleton=train.skeleton.name, intervals=intervals,
)  # fmt: skip
config = TrainConfig(
    name=run, steps=steps, batch_size=batch_size, optimizer="adam", weight_decay=0.0, learning_rate=learning_rate,
    schedule=schedule, validate_every=validate_every, save_every=validate_every, session_minutes=session_minutes,
    seed=seed, device=device, threads=threads,
)  # fmt: skip
result = fit(model, task, train, validation, config, folder=run_folder(run, workspace.runs))
print(result)

# %%
curves(result.folder, "mpjpe", "mean joint error, mm");

# %% [markdown]
# ## Evaluate
#
# On people that neither training nor the choice of the checkpoint has seen. Intervals are over whole sequences, or
# people: frames of one take are too much alike to count as many.

# %%
best, about = load_checkpoint(result.best, device=device)
methods = pose_methods(best, train)
evaluation = evaluate(
    methods, task, test, folder=workspace.report(report), config=EvalConfig(threads=threads), about={"model": about}
)
page = evaluation.save(workspace.report(report))
Markdown("\n\n".join(evaluation.summary()))

# %%
Markdown(evaluation.table())

# %%
print(hidden_limit(collection))

# %%
Markdown(published_table(source, {"model": evaluation.estimate("model", "mpjpe").mean}))

# %%
success_figure(evaluation, task.one_series("pck"));

# %%
error_bars(evaluation, task.one_series("joint"));

# %% [markdown]
# ## Look again
#
# The sequences with the least, the middle and the largest error, in 3D: drag to turn, wheel to zoom, play.

# %%
hand_viewer(methods, test, evaluation.extreme_samples().get("Best"), task)

# %%
hand_viewer(methods, test, evaluation.extreme_samples().get("Median"), task)

# %%
viewer = hand_viewer(methods, test, evaluation.extreme_samples().get("Worst"), task)
viewer

# %%
save_viewer(viewer, workspace.report(report), "viewer");

# %% [markdown]
# ## Without truth in the input
#
# The same network on crops around the true centre, and around one that was found in the depth alone.

# %%
centre_cost(best, task, store, crops, workspace.report(report))

# %% [markdown]
# ## Lists
#
# How large a cube, which augmentation? Small runs of each setting with several seeds; settings whose ranges overlap
# are not told apart.

# %%
table = try_settings(
    store, crops, model.config, task, TrainConfig(**config.to_json() | {"steps": list_steps, "name": f"{run}_list"}),
    cubes=cubes, augments=augments, seeds=seeds, unpacked=unpacked, runs=workspace.runs,
)  # fmt: skip
table

# %%
table and table.spread("cube", "augment")

# %%
print(f"Table, figures and a page to read: {workspace.report(report)}; checkpoint: {result.best}")
print("Next: 07_action names what these hands do. Or the other net, a list of settings, your own hands.")
