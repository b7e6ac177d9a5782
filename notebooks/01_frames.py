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
# # 1 · Frames: what is in your videos?
#
# To open it in Colab, upload it there; the next cell says where flowlib comes from.
#
# **In:** a folder of videos, or of frames (`<name>/frames/*.jpg`, or a .zip of that). Or nothing: the sample has two
# clips. **Out:** a list of what can be used and what can't, and why; the frames as pictures, if you ask for them.
#
# In Colab, mount your Drive first (the folder icon on the left), so that the results outlive the session. flowlib finds
# it, and never mounts by itself.

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
height: int = 360  # of the working size, pixels; with auto it has at most height × width pixels
width: int = 640  # of the working size, pixels
fit: str = "auto"  # auto: a size that keeps pictures whole is chosen; crop, pad or stretch to height × width
layout: str = "none"  # write the frames as pictures: none, folder (<name>/frames/*.jpg), zip or both

# %%
from flowlib.notebook import check_parameters

check_parameters(globals())

# %% [markdown]
# ## Every video, decoded to its end
#
# A video that is broken, empty or breaks off is listed with the reason, and the others go on. So is everything else in
# the folder: what is not among the videos is named as left out. A note says what is unusual about a video that is used,
# and what to do: it is interlaced, in HDR, has holes in time, or loses much on the way to the working size.

# %%
from flowlib.progress import Progress
from flowlib.quantities import counted
from flowlib.sources import find_source
from flowlib.video import describe_videos, probe_all, working_size
from flowlib.workspace import Workspace

workspace = Workspace(root).writable()
videos, skipped = probe_all(find_source(source, workspace, progress=Progress), progress=Progress)
size = working_size(videos, (height, width), fit)
print(describe_videos(videos, skipped, size=size, fit=fit))

# %% [markdown]
# ## The frame in the middle of each, at the working size
#
# This is what the tracker and the network will see. With `fit = "auto"` a size in the shape of your videos is chosen, not
# larger than they are, so that pictures stay whole; a video of another shape than most gets black bars, on which no
# points lie. `crop` fills height × width and cuts what sticks out evenly on both sides, `pad` shows the whole frame with
# black bars, `stretch` distorts it. The list above says for each video how it is scaled and what is lost.

# %%
from flowlib.plots import contact_sheet
from flowlib.video import middle_frames

contact_sheet(middle_frames(videos, size, fit), titles=[video.name for video in videos]);

# %% [markdown]
# ## The frames as pictures
#
# The next notebooks decode the videos themselves, so this is for your own use. `layout = "zip"` writes one file a
# video, which a mounted Drive likes better than thousands of small ones. What is there already is kept
# unless the video has changed.

# %%
from flowlib.video import write_frames

written = write_frames(videos, workspace.frames, layout=layout, progress=Progress)

# %%
print(f"{counted(len(videos), 'video')} can be used, {sum(one.is_video for one in skipped)} can't.")
print(f"{len(written)} folders or zips of pictures are in {workspace.frames}.")
print("Next: 02_pips_dataset follows points through them; give it the same source.")
