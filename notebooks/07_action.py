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
# # 7 · Actions: what a hand does, from its joints
#
# To open it in Colab, upload it there; the next cell says where flowlib comes from.
#
# **In:** the store of hands of notebook 06, and, if you like, the network that was trained there. **Out:** a network
# that names the action of a sequence, and a report of how well, on people it has not seen.
#
# - Actions of the synthetic hand come in pairs, *partners*: the same two events in either order. No single frame tells
#   them apart by what can be seen; the order does.
# - *majority*: the most frequent action; *last frame*: the actions of the training frames most like the last one;
#   *nearest sequence*: the training sequence that is most alike after time is stretched (dynamic time warping).
# - True joints are easier than those a network finds. Every report says which the input was.
#
# **Or videos:** with `source = "tracks"` the same network tells what happens in videos by the tracks of their points: a
# folder of videos for each action, or ten built-in motions, opposites that look alike in the first picture. Give
# `dataset`, `run` and `report` names of their own, such as `motions`.

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
source: str = "hands"  # what is classified: hands (the store of notebook 06) or tracks (of points in videos)
dataset: str = "hands"  # name of the store of hands, or of tracks; another name for tracks
folder: str = ""  # of videos, a folder for each action; "" for the built-in motions, rendered
scenes: int = 30  # of the built-in motions
tracker: str = "lucas_kanade"  # of points: lucas_kanade, raft, pips, alltracker; exact for the built-in motions
weights: str = ""  # of the tracker: "" for the published ones, else a path, URL or Google Drive id
poses: str = "truth"  # whose joints: truth, or the name of a run of notebook 06, whose joints are taken
partners: bool = True  # whether actions come in pairs, side by side, as those of the synthetic hand do; in a folder never
run: str = "action"  # name of the run; other settings want another name
report: str = "action"  # name of the report's folder
hidden: int = 100  # units of the LSTM
layers: int = 1  # of the LSTM
attention: str = "none"  # or logits_sigmoid, logits_relu, logits_conv, inputs_conv, …: which frames count how much
mode: str = "packed"  # how the LSTM is run: packed, padded or unrolled; the same numbers, faster or slower
features: str = "given"  # what of the joints counts: given, centre or root (as seen from there), or bones (directions alone)
components: int = 0  # of a pose prior that joints go through first; 0: none, 30 as others have it
max_frames: int = 0  # longer sequences are cut to their first frames; 0: none is
train_noise: float = 0.0  # mm, how far joints of training sequences are moved at random
noise: str = "0,5,10,20"  # mm, how far the joints of test sequences are moved at random, by comma
steps: int = 2000  # optimiser steps in all
batch_size: int = 20  # sequences a step
learning_rate: float = 0.003  # of the optimiser, at its highest
schedule: str = "constant"  # of the learning rate: constant (steps may be raised later), cosine or one_cycle
validate_every: int = 100  # steps
drift_epochs: int = 10  # passes that are trained each way, to see how far they drift apart
attentions: str = ""  # a list to compare by runs, such as "none,logits_relu,logits_sigmoid"
seeds: int = 3  # runs of each of these
seed: int = 0  # decides the first weights, the order of sequences and what else is drawn at random
intervals: str = "sequence"  # what means and intervals are over: sequence, or subject where there are five or more
session_minutes: float = 0.0  # stop after so long, to go on another time; 0: no limit
device: str = "auto"  # auto or cpu
threads: int = 1  # of the CPU: networks as small as these are slower on more of them; 0: all

# %%
from flowlib.notebook import check_parameters

check_parameters(globals())

# %% [markdown]
# ## Sequences
#
# Whole sequences of joints, of people who are all in one split; or of tracks, whole videos in one split: each frame is
# told by how points move against the median of all, in cells of the picture.

# %%
import torch
from IPython.display import Markdown

from flowlib.action_views import (
    accuracy_table,
    action_methods,
    action_net,
    noise_of,
    open_sequences,
    three_ways,
    training_drift,
    try_attention,
)  # fmt: skip
from flowlib.evaluation import EvalConfig, evaluate
from flowlib.notebook_views import curves
from flowlib.tasks.action import ActionTask, confusion_figure, observed_figure
from flowlib.training import TrainConfig, fit
from flowlib.training.checkpoints import load_checkpoint
from flowlib.training.runs import run_folder
from flowlib.workspace import Workspace

workspace = Workspace(root).writable()
store = workspace.dataset(dataset)
train, validation, test = open_sequences(
    source, store, poses=poses, runs=workspace.runs, max_frames=max_frames, folder=folder, scenes=scenes,
    tracker=tracker, weights=weights, seed=seed, device=device,
)  # fmt: skip
print(f"{len(train)} sequences to train on, {len(validation)} to choose by, {len(test)} to test on")
print(f"{len(train.actions)} actions:", *train.actions, sep="\n  ")

# %% [markdown]
# ## Fit
#
# `top1` is the share of right actions. Run it again and it goes on, step for step as if nothing had happened.

# %%
torch.manual_seed(seed)  # of the first weights
model = action_net(
    train, hidden=hidden, layers=layers, attention=attention, mode=mode, features=features, components=components
)
task = ActionTask(
    actions=tuple(train.actions), partners=partners and not folder, noise=train_noise, intervals=intervals
)
config = TrainConfig(
    name=run, steps=steps, batch_size=batch_size, optimizer="amsgrad", weight_decay=0.0, clip="none",
    learning_rate=learning_rate, schedule=schedule, validate_every=validate_every, save_every=validate_every,
    session_minutes=session_minutes, seed=seed, device=device, threads=threads, num_workers=0,
)  # fmt: skip
result = fit(model, task, train, validation, config, folder=run_folder(run, workspace.runs))
print(f"{result.step} of {steps} steps; {(result.finished and 'done') or 'run it again to go on'}")

# %%
curves(result.folder, "top1", "share right", log=False);

# %% [markdown]
# ## Evaluate
#
# On people that neither training nor the choice of the checkpoint has seen.

# %%
best, about = load_checkpoint(result.best, device=device)
methods = action_methods(best, task, train)
evaluation = evaluate(
    methods, task, test, folder=workspace.report(report), config=EvalConfig(threads=threads), about={"model": about}
)
page = evaluation.save(workspace.report(report))
Markdown("\n\n".join(evaluation.summary()))

# %%
Markdown(evaluation.table())

# %% [markdown]
# The same with intervals for shares of independent sequences, and each baseline against the network on the same ones:
# `p` says how likely a difference as large is by chance (McNemar's test).

# %%
Markdown(accuracy_table(evaluation))

# %% [markdown]
# What is taken for what: rows are true actions, and partners are neighbours.

# %%
confusion_figure(evaluation, task.actions);

# %% [markdown]
# ## How much has to be seen?
#
# Only the beginning of each sequence is shown.

# %%
observed_figure(evaluation);

# %% [markdown]
# ## How exact must the joints be?
#
# True joints of hands, each moved at random: in every frame anew, or in all frames of a sequence alike, as the errors of
# a network last. Beside it what others found with several pose networks on other hands and 45 actions.

# %%
falling = noise_of(best, task, test, noise, workspace.report(report), seed)
falling

# %%
falling and falling.figure();

# %% [markdown]
# ## The same numbers three ways
#
# An LSTM may be run over packed sequences, over padded ones, or one frame at a time. It is one function.

# %%
three_ways(best, task, test)

# %% [markdown]
# Rounding differs, and training makes more of it with every step: how far do networks of one start drift apart?

# %%
training_drift(
    best, task, train, test, TrainConfig(**config.to_json() | {"name": f"{run}_drift", "device": "cpu"}), drift_epochs,
    runs=workspace.runs,
)  # fmt: skip

# %% [markdown]
# ## Attention
#
# Does it help to weigh frames? Runs of each kind with several seeds; kinds whose ranges overlap are not told apart.

# %%
table = try_attention(
    best, task, train, validation, TrainConfig(**config.to_json() | {"name": f"{run}_attention"}), attentions, seeds,
    runs=workspace.runs,
)  # fmt: skip
table

# %%
print(f"Table, figures and a page to read: {workspace.report(report)}; checkpoint: {result.best}")
print("Next: 08_pose_and_action lets pose and action help each other. Or poses = the run of notebook 06, to see what a network's joints cost; more noise; another attention.")
