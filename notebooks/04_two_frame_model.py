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
# # 4 · The two-frame model: train on everything
#
# To open it in Colab, upload it there; the next cell says where flowlib comes from.
#
# **In:** labelled clips. **Out:** a checkpoint. One frame says what can move; a second one says what does.
#
# Train for as many sessions as you like: run the notebook again and it goes on, step for step as if nothing had
# happened.

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
dataset: str = "default"  # name of the dataset that 02 made
run: str = "two_frames"  # name of the run; other settings want another name
unpacked: bool = False  # read clips from an unpacked cache: the same, many times as fast, 6 MB a clip of 360×640
clips: int = 0  # train on so many of the clips with the highest motion; 0: on all
steps: int = 2000  # optimiser steps in all
batch_size: int = 4  # clips a step
validate_every: int = 100  # steps
session_minutes: float = 0.0  # stop after so long, to go on another time; 0: no limit
input_frames: str = "0,3"  # frames the network sees
input_size: str = ""  # the network works at, height x width like "120x240"; "" for the clips' own
model: str = "fcn"  # fcn (fully convolutional), or guided (optical flow, corrected; learning_rate 0.001 suits it)
backbone: str = "fcn_resnet50"  # of fcn; also deeplabv3_resnet50, lraspp_mobilenet_v3_large, or timm/…
weights: str = "auto"  # to start from: auto (ImageNet if it can be had), none, imagenet, coco, a path, URL or Drive id
stride_in: str = "3x3"  # of these weights: 3x3 as torchvision's, or 1x1 as the first ResNets'
flow: str = "dis refined"  # of guided: this, dis (faster), dis wide (slower, finds far motion), or raft (needs weights)
flow_weights: str = ""  # of RAFT: "" for torchvision's, else a path, URL or Drive id
design: str = "unet"  # of guided: unet, local (little to learn, for few videos), recurrent, or pretrained (by weights)
futures: int = 1  # whole futures that the network gives, each with its weight, up to 8; 1 for one answer
conv1: str = "difference"  # of fcn: how the first layer's weights serve two frames: difference, duplicate, mean or zero
head: str = "fine"  # of fcn: fine, or torchvision (stride 8: smooth and grid-like)
batch_norm: str = "train"  # of fcn: train, frozen or group
trained: str = "all"  # which layers: last, first+last, first+second+last or all
flip_x: float = 0.0  # probability of mirroring a clip left and right
flip_y: float = 0.0  # probability of mirroring it top and bottom
reverse: float = 0.0  # probability of playing it backwards
largest_scale: float = 1.0  # it is enlarged at random by 1 to so many times
colour: float = 0.0  # how far brightness, contrast and saturation may leave 1
crop: str = ""  # train on pieces, height x width like "192x320"; "" for whole frames
loss: str = "auto"  # l1, mse, huber, charbonnier; for guided laplace_2d, relative (clips count alike); auto: what suits
learning_rate: float = 0.0003  # of the optimiser, at its highest
schedule: str = "cosine"  # of the learning rate: constant (steps may be raised later), cosine or one_cycle
schedule_over: str = "steps"  # or minutes: a cosine over as many of the steps as fit into session_minutes
precision: str = "no"  # no (float32), bf16 (about half the time where CPU or GPU has it) or fp16 (GPU)
second_frame_steps: int = 0  # of five short trainings that say what a second frame is worth; 0: none, 300 is a start
check_steps: int = 3  # of the two short trainings that compare one frame with two
seed: int = 0  # decides the first weights, the order of clips and what else is drawn at random
device: str = "auto"  # auto or cpu

# %%
from flowlib.notebook import check_parameters

check_parameters(globals())

# %% [markdown]
# ## The data

# %%
import torch

from flowlib.augmentation import AugmentConfig
from flowlib.dataset import describe_splits, open_splits
from flowlib.models.networks import NetworkConfig
from flowlib.notebook import parse_frames, parse_size
from flowlib.notebook_views import (
    curves,
    highest_motion,
    highest_motion_clips,
    prediction_figure,
    prediction_viewer,
    try_second_frame,
)
from flowlib.tasks.futures import task_for
from flowlib.tasks.trajectories import TrajectoryTask
from flowlib.training import TrainConfig, fit
from flowlib.training.diagnostics import compare_trainings
from flowlib.training.runs import run_folder
from flowlib.workspace import Workspace

workspace = Workspace(root).writable()
splits = open_splits(workspace.dataset(dataset), unpacked=unpacked)
train = highest_motion_clips(splits["train"], clips or len(splits["train"]))
print(describe_splits(splits))

# %% [markdown]
# ## Two frames, one network
#
# `fcn`: the first convolution is widened for the second frame. Start with sums of the frames (`duplicate`, `mean`) or with
# the first alone (`zero`), and the network must find out by itself that the order matters; with every other filter
# starting as a `difference` it sees which way things move from the first step on. `guided` starts from the optical flow
# between the frames, that is from constant velocity, and learns where that goes wrong.

# %%
torch.manual_seed(seed)  # of the weights that start from random numbers
chosen = NetworkConfig(
    model=model, backbone=backbone, weights=weights, stride_in=stride_in, conv1=conv1, head=head, batch_norm=batch_norm,
    flow=flow, flow_weights=flow_weights, design=design, futures=futures, input_frames=parse_frames(input_frames),
    working_size=parse_size(input_size),
)  # fmt: skip
network = chosen.make(splits["train"].num_frames)
print(chosen.describe(network))

# %% [markdown]
# ### Is the second frame wired up right?
#
# If the new half of the first convolution is zero and held there, the two-frame network must be the one-frame network:
# the same outputs, and step for step the same losses. (`guided` has no such half; it is trained twice, which must be
# the same, too.)

# %%
check = TrainConfig(name=run, steps=check_steps, batch_size=2, seed=seed, device=device, num_workers=0)
twins = chosen.twins(splits["train"].num_frames)
compare_trainings(twins, TrajectoryTask(), train, check, workspace.check(run))

# %% [markdown]
# ## Training
#
# The run's folder has the curves (metrics.jsonl, TensorBoard) and the checkpoints: `last.pt`, and `best.pt` by the
# validation videos where there are any. Where `session_minutes` end it early, the learning rate is still high and the
# model not yet what it will be: run it again, or plan it over the minutes.

# %%
augment = AugmentConfig(
    flip_x=flip_x, flip_y=flip_y, reverse=reverse, scale=(1.0, largest_scale), colour=colour, crop=parse_size(crop)
)
task = task_for(network, loss=chosen.loss(loss), augment=augment.or_none())
config = TrainConfig(
    name=run, steps=steps, batch_size=batch_size, validate_every=validate_every, session_minutes=session_minutes,
    trained=trained, learning_rate=learning_rate, schedule=schedule, schedule_over=schedule_over, precision=precision,
    seed=seed, device=device,
)  # fmt: skip
result = fit(network, task, train, splits.get("val"), config, folder=run_folder(run, workspace.runs))
print(result)

# %% [markdown]
# Faint: single steps, each on other clips. Dashed: the error of saying that nothing moves, which a network has to beat.

# %%
held_out = splits.get("val", splits["train"])
curves(result.folder, compared=held_out);

# %% [markdown]
# ## What it predicts
#
# On the validation videos if there are any, else on what it was trained on; the clip that moves most of those that can be
# judged. On top what happened, below what the network says: its points orange, the labels blue (hidden ones faint).

# %%
shown = highest_motion(held_out)
prediction_figure({"two frames": network}, held_out, shown);

# %%
prediction_viewer(network, held_out, shown, name="two frames")

# %% [markdown]
# ## What is a second frame worth?
#
# The same short training for frame 0 alone, for 0 and 1, 0 and 3, 0 and half the clip, and 0, 1 and 3: the error on the
# validation videos against frames ahead, and of points that rest, follow the camera, or move on their own. Every run is
# kept, so a list that was stopped goes on.

# %%
try_second_frame(
    splits, config, second_frame_steps, runs=workspace.runs, folder=workspace.report(f"{run}_second_frame"),
    model={"weights": weights, "stride_in": stride_in},
);  # fmt: skip

# %%
print(f"Checkpoint: {result.best}")
print("Next: 05_evaluate says how good it is, on videos it has not seen and against what needs no training.")
