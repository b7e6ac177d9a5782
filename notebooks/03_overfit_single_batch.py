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
# # 3 · Overfit a single batch: can the network learn at all?
#
# To open it in Colab, upload it there; the next cell says where flowlib comes from.
#
# **In:** labelled clips. **Out:** a summary: the network can fit a few clips to under the asked error, or it can't, and
# what to look at then. Do this before you train for days: what fails here fails everywhere.
#
# Every choice is a parameter, so that you can see what each of them does.

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
run: str = "overfit"  # name of the run; other settings want another name
clips: int = 2  # of the batch: those of the training set with the highest motion
target: float = 1.0  # pixels of mean error (ADE) on visible points to get below
steps: int = 300  # optimiser steps at most
look_every: int = 20  # steps between two looks at the error
input_frames: str = "0"  # frames the network sees: "0", or two like "0,3"
input_size: str = ""  # the network works at, height x width like "120x240"; "" for the clips' own
model: str = "fcn"  # fcn (fully convolutional), or guided (optical flow, corrected)
backbone: str = "fcn_resnet50"  # of fcn; also deeplabv3_resnet50, lraspp_mobilenet_v3_large, or timm/…
weights: str = "auto"  # to start from: auto (ImageNet if it can be had), none, imagenet, coco, a path, URL or Drive id
stride_in: str = "3x3"  # of these weights: 3x3 as torchvision's, or 1x1 as the first ResNets'
flow: str = "dis refined"  # of guided, between two frames: this or dis (faster), or raft (needs weights)
flow_weights: str = ""  # of RAFT: "" for torchvision's, else a path, URL or Drive id
head: str = "fine"  # of fcn: fine, or torchvision (stride 8: smooth and grid-like)
batch_norm: str = "train"  # of fcn: train, frozen or group
trained: str = "all"  # which layers: last, first+last, first+second+last or all
loss: str = "auto"  # l1, mse, huber, charbonnier; laplace_2d for guided; auto: as suits the model
masked: bool = True  # count visible points only
optimizer: str = "adamw"  # sgd, adam or adamw
learning_rate: float = 0.001  # of the optimiser, at its highest
clip: str = "norm"  # of gradients: none, norm or value
precision: str = "no"  # no (float32), bf16 (about half the time where CPU or GPU has it) or fp16 (GPU)
seed: int = 0  # decides the first weights, the order of clips and what else is drawn at random
device: str = "auto"  # auto or cpu

# %%
from flowlib.notebook import check_parameters

check_parameters(globals())

# %% [markdown]
# ## The batch
#
# The labelled clips in which most moves, of those that can be judged: in focus, and most points stay in sight.

# %%
import torch

from flowlib.dataset import describe_splits, open_splits
from flowlib.models.networks import NetworkConfig
from flowlib.notebook import parse_frames, parse_size
from flowlib.notebook_views import curves, highest_motion_clips, prediction_figure, prediction_viewer
from flowlib.tasks.trajectories import TrajectoryTask
from flowlib.training import TrainConfig, overfit
from flowlib.training.runs import run_folder
from flowlib.workspace import Workspace

workspace = Workspace(root).writable()
splits = open_splits(workspace.dataset(dataset))
batch = highest_motion_clips(splits["train"], clips)
print(describe_splits(splits))

# %% [markdown]
# ## The network
#
# `fcn`: torchvision's FCN-ResNet50, or another backbone, with a head that says for every pixel and frame where it goes
# and whether it is seen. `guided`: optical flow and a small network that says where it goes wrong; with one frame, a
# network that says what will move.

# %%
torch.manual_seed(seed)  # of the weights that start from random numbers
chosen = NetworkConfig(
    model=model, backbone=backbone, weights=weights, stride_in=stride_in, head=head, batch_norm=batch_norm, flow=flow,
    flow_weights=flow_weights, input_frames=parse_frames(input_frames), working_size=parse_size(input_size),
)  # fmt: skip
network = chosen.make(splits["train"].num_frames)
print(chosen.describe(network))

# %% [markdown]
# ## Training on the same clips, again and again
#
# Stop it and run it again: it goes on where it was. A finished run is found done. Nothing is augmented: the clips are
# the same in every step.

# %%
task = TrajectoryTask(loss=chosen.loss(loss), masked=masked)
config = TrainConfig(
    name=run, steps=steps, validate_every=look_every, save_every=look_every, trained=trained, optimizer=optimizer,
    learning_rate=learning_rate, warmup_steps=10, clip=clip, precision=precision, seed=seed, device=device,
    num_workers=0,
)  # fmt: skip
result = overfit(network, task, batch, config, samples=clips, target=target, folder=run_folder(run, workspace.runs))
print(result)

# %% [markdown]
# ## The curve
#
# "Validation" is the same batch in evaluation mode. If it stays above "training", batch norm is why: try
# `batch_norm = "frozen"` or `"group"`. Dashed: the error of saying that nothing moves.

# %%
curves(result.run.folder, compared=batch);

# %% [markdown]
# ## The prediction over the labels
#
# The first clip of the batch. On top what happened: the labels, from blue on the left to yellow on the right. Below what
# the network says: its points orange, the labels blue (hidden ones faint), and the last frame, rebuilt by moving frame 0.

# %%
prediction_figure({"overfitted": network}, batch, 0);

# %%
prediction_viewer(network, batch, 0, name="overfitted")

# %%
print(result.summary)
print(f"Curves and checkpoints: {result.run.folder}")
print("Next: 04_two_frame_model trains on the whole training set.")
