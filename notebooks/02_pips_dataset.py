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
# # 2 · Labels: where does every point go?
#
# To open it in Colab, upload it there; the next cell says where flowlib comes from.
#
# **In:** videos. **Out:** a dataset: clips of a few frames, and for a grid of points in each where they go and when
# they can be seen, as a tracker sees it.
#
# The job can be cut into chunks that any number of machines or sessions work off in any order:
# `papermill notebooks/02_pips_dataset.ipynb out.ipynb -p chunk 3 -p num_chunks 10`. Stop it at any moment and run it
# again: what is done stays done.

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
source: str = "sample"  # sample, synthetic, a folder or a video; "" for videos/ in the workspace
root: str = ""  # the workspace; "" finds it: $FLOWLIB_ROOT, the mounted Drive, or workspace/ in the clone
dataset: str = "default"  # name of the dataset; other settings want another name
chunk: int = 0  # the part of the job to do here, 0 to num_chunks - 1
num_chunks: int = 1  # how many parts the job is cut into
tracker: str = "lucas_kanade"  # lucas_kanade (no weights), raft, pips, alltracker, alltracker-full; exact (synthetic)
weights: str = ""  # of the tracker: "" for the published ones, else a path, URL or Google Drive id
frames: int = 8  # of a clip; pips was trained on 8
frame_step: int = 1  # frames of the video from one frame of a clip to the next
clip_step: int = 0  # frames from one clip's start to the next; 0: clips follow on one another
max_clips: int = 0  # of a video, spread evenly over it; 0: all
grid: int = 64  # grid × grid points a clip
spacing: int = 0  # pixels from point to point instead; 0: grid decides
jitter: bool = False  # move each point at random within its cell, differently in every clip
split_shots: bool = True  # no clip straddles a scene cut
skip_still: bool = True  # leave out clips that are black or frozen
height: int = 360  # of the working size, pixels; with auto it has at most height × width pixels
width: int = 640  # of the working size, pixels
fit: str = "auto"  # auto: a size that keeps pictures whole is chosen; crop, pad or stretch to height × width
seed: int = 0  # decides which videos are for training, validation and test, and the jitter
device: str = "auto"  # auto, cpu, cuda
engine: str = "local"  # local, or ray for several GPUs or machines at once
workers: int = 0  # with ray: how many; 0: one a GPU, or where there is none one for two cores
calibration: int = 0  # videos kept apart, for regions in 05 that hold what they promise: 90 % needs 9, better 20
verify: bool = False  # read what is labelled already to the last byte, and do again what is damaged
strict: bool = False  # fail at the end if a video had to be skipped

# %%
from flowlib.notebook import check_parameters

check_parameters(globals())

# %% [markdown]
# ## The plan
#
# Decided by the videos and the parameters alone, so every machine comes to the same. Each video is decoded once to its
# end: broken ones are listed with a reason, clips keep to one shot, and those that are black or frozen are skipped. A
# dataset that is there already keeps its working size.

# %%
from flowlib.labelling import LabelConfig, estimate, label, make_plan
from flowlib.labelling.plan import check_chunk
from flowlib.progress import Progress
from flowlib.quantities import counted
from flowlib.sources import find_source
from flowlib.splits import reserve_calibration
from flowlib.workspace import Workspace

workspace = Workspace(root).writable()
config = LabelConfig(
    frames=frames, frame_step=frame_step, clip_step=clip_step, max_clips=max_clips, split_shots=split_shots,
    skip_still=skip_still, grid=grid, spacing=spacing, jitter=jitter, height=height, width=width, fit=fit,
    tracker=tracker, weights=weights, seed=seed,
)  # fmt: skip
found = find_source(source, workspace, progress=Progress)
check_chunk(chunk, num_chunks)
plan = make_plan(found, config, cache=workspace.scans, progress=True).into(workspace.dataset(dataset))
print(plan)
print(f"{counted(len(plan.chunk(chunk, num_chunks)), 'clip')} of them in chunk {chunk} of {num_chunks}.")

# %% [markdown]
# ## How long it will take
#
# From a few clips, labelled for timing and thrown away: hours, sessions, room on the disk, and what the time goes to.

# %%
print(estimate(plan, device=device, chunk=chunk, num_chunks=num_chunks))

# %% [markdown]
# ## Labelling
#
# Each finished clip is safe at once. A second run finds the work done; shards that can't be read are quarantined and done
# again, and with `verify` those too that can be but have a bit wrong.

# %%
report = label(
    plan, workspace, dataset=dataset, chunk=chunk, num_chunks=num_chunks, device=device, engine=engine,
    workers=workers, verify=verify, strict=strict,
)  # fmt: skip
print(report)
kept = reserve_calibration(workspace.dataset(dataset), calibration)
print(f"{counted(len(kept), 'video')} kept for calibration.")

# %% [markdown]
# ## Look at the labels
#
# Do the points follow what moves? They turn hollow where the tracker thinks they are hidden.

# %%
from flowlib.notebook_views import label_sheet, label_viewer

label_viewer(report.folder)

# %% [markdown]
# The same, over the whole dataset: for clips spread over it the last frame, the way that each point came, and in colours
# how far that was.

# %%
label_sheet(report.folder);

# %%
print(f"Labelled clips are in {report.folder}; splits.json there says which videos are for what, and may be edited.")
print("Next: 03_overfit_single_batch shows whether the network can learn from them.")
