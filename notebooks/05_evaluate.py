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
# # 5 · Evaluate: is it any good?
#
# To open it in Colab, upload it there; the next cell says where flowlib comes from.
#
# **In:** a checkpoint and videos it has not seen. **Out:** a table, a report as a page, and pictures: the model beside
# predictors that need no training. With one video only there is none left to test on: label a second one in 02, or see
# how well the first was learned with `split = "train"` and `allow_leak = True`, which says nothing of other videos.
#
# - *zero motion*: nothing moves. On calm videos hard to beat.
# - *mean motion*: what moved on average in the training videos; *nearest clip*: what moved in the one most alike.
# - *constant velocity*: optical flow between the two input frames, carried on; with *gains* fitted to the training
#   videos, one for each frame ahead.
# - *flowlib's, two frames* and *one frame*: the predictors that come with flowlib, trained on 77 other videos.
# - *the tracks themselves*: the labels; how good a rebuilt frame can get. That they are some hundredths of a pixel off is
#   quantisation: they are spread over whole pixels and read back between them.

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
run: str = "two_frames"  # name of the run that 04 trained
runs: str = ""  # several runs to compare, divided by commas, the first one in front; "" for run alone
checkpoint: str = ""  # a file instead of the run's best.pt
split: str = "test"  # which videos: test, val, train or all
second_labels: str = ""  # a dataset of the same videos by another tracker: what both agree on within 2 px is the truth
regions: float = 0.9  # share of points that regions are to hold; needs videos that 02 kept for calibration; 0: none
report: str = "two_frames"  # name of the report's folder
input_frames: str = "0,3"  # frames that constant velocity sees
raft_weights: str = "none"  # for constant velocity by RAFT, too: "" for the published ones, a path, URL or Drive id
lpips_weights: str = "none"  # AlexNet for LPIPS, a likeness learned from people: "" for torchvision's, path, URL, id
pictures: str = ""  # your own picture or video, or two pictures divided by a comma, to predict on at the end
allow_leak: bool = False  # evaluate on videos the checkpoint was trained on, and say so in the report
device: str = "auto"  # auto, cpu or cuda

# %%
from flowlib.notebook import check_parameters
from flowlib.own_pictures import check_pictures

check_parameters(globals())
own_paths = check_pictures(pictures)

# %% [markdown]
# ## The methods

# %%
from IPython.display import Markdown

from flowlib.contents import write_contents
from flowlib.dataset import TrajectoryDataset
from flowlib.dataset.consensus import describe_labels, open_calibration, open_labels
from flowlib.evaluation import evaluate
from flowlib.models.baselines import all_baselines
from flowlib.models.futures import futures_of
from flowlib.models.guided import default_methods
from flowlib.notebook import parse_frames
from flowlib.notebook_views import (
    error_figure,
    highest_motion,
    of_the_clip,
    prediction_figure,
    predictors_viewer,
    save_viewer,
    spread_figure,
)  # fmt: skip
from flowlib.own_pictures import own_sample, predict_clip
from flowlib.tasks.futures import task_for
from flowlib.tasks.trajectories import ScoringConfig
from flowlib.tasks.trajectories.regions import with_regions
from flowlib.training.checkpoints import describe_runs, load_runs
from flowlib.workspace import Workspace

workspace = Workspace(root).writable()
train = TrajectoryDataset(workspace.dataset(dataset), split="train")
test = open_labels(workspace.dataset(dataset), split, second_labels and workspace.dataset(second_labels))
models, about = load_runs(workspace.runs, runs or run, checkpoint, device=device)
model, *_ = models.values()
richest = max(models.values(), key=futures_of)
calibration = (regions or None) and open_calibration(
    workspace.dataset(dataset), second_labels and workspace.dataset(second_labels)
)
baselines = all_baselines(
    train, num_frames=test.num_frames, input_frames=parse_frames(input_frames), raft_weights=raft_weights,
    futures=futures_of(richest),
)  # fmt: skip
shipped = default_methods(test.num_frames, parse_frames(input_frames))
methods, promise = with_regions(
    models | shipped | baselines, calibration, regions, folder=workspace.report(report), about=about
)
shown = highest_motion(test)
own = own_sample(own_paths, model, test[shown])
print(describe_runs(about), describe_labels(test), promise, sep="\n")

# %% [markdown]
# ## Side by side
#
# Every number is a mean over videos, with its interval where there are enough of them. Killed and run again, it goes on
# where it was.

# %%
result = evaluate(
    methods,
    task_for(richest, scoring=ScoringConfig(lpips_weights=lpips_weights)),
    test,
    folder=workspace.report(report),
    train=train,
    calibration=calibration,
    about=about,
    allow_leak=allow_leak,
)
links = {"play it in the viewer": "viewer.html", "notebooks, pictures and all the rest": "../../index.html"}
page = result.save(workspace.report(report), links=links)
Markdown(result.markdown())

# %% [markdown]
# ## Error against frames ahead

# %%
error_figure(result);

# %% [markdown]
# ## What can't be known
#
# How far off a point may be in the last frame, as each method says that can say so: the radius of its region where
# videos were kept for calibration (the report's "Inside" then says how many points lie inside), else what it expects
# itself. From one picture nobody can know which way things go; right, how much of that doubt a second picture takes away.

# %%
spread_figure(methods, test, shown);

# %% [markdown]
# ## Where it does well, and where it fails
#
# One viewer of the clip that moves most, and of those with the first model's least, middle and largest error. Choose
# among the clips, and which predictors are shown beside the labels: models, constant velocity, the labels moved like a
# prediction. "rebuilt" and "difference" among the backgrounds show the frames made from a prediction. With regions: select
# a point to see its own, and colour by "Left its region" to see where the labels did. Of a model with several futures,
# "futures" plays one of them, or draws all, or the likelier ones stronger.

# %%
clips = {"Most motion": shown} | result.extreme_samples()
viewer = predictors_viewer(of_the_clip(methods), test, clips)
viewer

# %%
save_viewer(viewer, workspace.report(report), "viewer");

# %% [markdown]
# ## The clip that moves most
#
# Of those that can be judged: in focus, and most points stay in sight. On top what happened; below what each method says:
# its points orange, the labels blue (hidden ones faint), the last frame rebuilt by moving frame 0, and how far that is off.
# The last row is the ceiling: the labels themselves, moved like a prediction.

# %%
prediction_figure(methods, test, shown);

# %% [markdown]
# ## On your own picture
#
# Or on two, divided by a comma, for a model that sees two frames, or on a video; one picture alone is taken as two frames
# of a video in which nothing moves. Without any, the clip above, as if it had no labels. Colours mean the same in every
# such picture: where to, and how far, full at 20 px.

# %%
prediction = predict_clip(model, own)
prediction.figure();

# %%
prediction.viewer

# %%
print(*prediction.save(workspace.report(f"{report}_pictures")), sep="\n")

# %%
print(f"Table, figures and a page to read: {workspace.report(report)}")
print(f"One page that opens everything: {write_contents(workspace)}")
print("Next: more videos in 02, more steps in 04, or another model; the report compares them all.")
print("Or hands: 06_hand_pose finds their joints in depth videos.")
