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
# # 8 · Pose and action: does the loop help?
#
# To open it in Colab, upload it there; the next cell says where flowlib comes from.
#
# **In:** the store of hands of notebook 06 (sequences with actions). **Out:** pose nets, action nets and loops between
# them, trained end to end, and one table in which every loop stands beside its controls.
#
# - *chain*: a pose net, then an action net on its poses. *feedback*: the action after each frame is told to the pose net
#   of the next. *two-pass*: the chain's action is told to a second pose net; both passes are averaged.
# - Two networks averaged are better than one, whatever they are told. So each loop stands beside itself told nothing
#   (*uniform action*: 1/K everywhere), beside *two plain nets* averaged half and half, told the truth (*true action*:
#   what could be gained at most), and told the *partner's action*, which looks the same in most frames.
# - The claim is that a loop is better with the action that it guessed than with none. The table says whether it holds.

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
dataset: str = "hands"  # name of the store of hands, as notebook 06 makes it
unpacked: bool = True  # read depth from an unpacked copy: the same, faster, and some 15 times as large
run: str = "loops"  # begins the names of all runs; other settings want another name
report: str = "loops"  # name of the report's folder
cube: float = 200.0  # side of the cube around the hand, mm
centre: str = "truth"  # of the cube: truth (a joint) or estimated (from the depth alone)
size: int = 32  # side of a crop in pixels; with pose_run, that run's
frame_step: int = 2  # every how many frames of a sequence one is taken
max_frames: int = 0  # longer sequences are cut to so many of these; 0 cuts none
pose_run: str = ""  # the first pose net is taken from this run, such as "hand_pose" of notebook 06; "" trains one
action_run: str = ""  # the action net is taken from this run, such as "action" of notebook 07; "" trains some
net: str = "small"  # small, or deepprior++ (the published plan)
components: int = 30  # of the pose prior
augment: str = "rot 30,scale 0.1,trans"  # changes of training crops, one for each, drawn anew each time; "" for none
film: str = "linear"  # where the second net is told the action, by comma: input, residual, linear, output
condition_dropout: float = 0.25  # share of its training crops that are told 1/K
steps: int = 1200  # optimiser steps of a plain pose net
told_steps: int = 1500  # of the second one
folds: int = 3  # of the people to learn from: action nets learn from poses of people that the pose net hasn't seen
fold_steps: int = 500  # of the pose net of each fold
batch_size: int = 64  # crops a step
learning_rate: float = 0.001  # of pose nets
attention: str = "logits_relu"  # over time, of the action net that is also tried; none for no such
action_steps: int = 1200  # of an action net
loops: str = "chain,feedback,two_pass"  # which, by comma
norm: str = "frozen"  # norms and dropout of loops in training: frozen, norms frozen, no dropout or train
smoothing: float = 0.0  # share of the frame before in the loops' poses
eta: float = -1.0  # share of the second pass in the poses; -1: the best on validation
zeta: float = -1.0  # its share in the action; -1: the best on validation
alpha: float = 0.002  # share of the action in the loops' loss
tune_steps: int = 216  # of each loop, end to end
tune_rate: float = 0.0002  # their learning rate
oracle: bool = True  # compare with loops that are told the true action, and its partner
lists: str = ""  # small runs of settings, by comma: conditioning, norm, trained, alpha, rate; "" for none
list_steps: int = 100  # of each of these
seed: int = 0  # decides first weights, the order of crops and what else is drawn at random
device: str = "auto"  # auto or cpu
threads: int = 1  # of the CPU: networks as small as these are slower on more of them; 0: all

# %%
from flowlib.notebook import check_parameters

check_parameters(globals())

# %%
from IPython.display import Markdown

from flowlib.evaluation import EvalConfig, evaluate
from flowlib.hand_loops import (
    LoopConfig,
    LoopHands,
    compared,
    fine_tune,
    glue,
    loop_viewer,
    over_time_figure,
    paired_table,
    run_of,
    split_words,
    train_nets,
    try_lists,
    weigh_passes,
)
from flowlib.hand_views import hand_sheet, parse_augment
from flowlib.hands.crop import CropConfig
from flowlib.notebook_views import curves, save_viewer
from flowlib.workspace import Workspace

workspace = Workspace(root).writable()
crops = CropConfig(cube=cube, size=size, centre=centre)
hands = LoopHands.open(
    workspace.dataset(dataset), crops, runs=workspace.runs, pose_run=pose_run, step=frame_step, max_frames=max_frames,
    unpacked=unpacked,
)  # fmt: skip
print(hands)
hand_sheet(hands.frames)
# %% [markdown]
# ## The parts
#
# Two plain pose nets, and one that is told the action through FiLM (a scale and a shift for each channel, zero at the
# start, so that at first it is its plain twin). An action net that learned from true poses fails on predicted ones. So
# it learns from predicted ones: *in the fold*, as the pose net has them of people that it has seen, or *out of fold*,
# as nets have them that have not. Which is better on the validation people is taken.

# %%
config = LoopConfig(
    name=run, net=net, size=hands.crop.size, components=components, film=split_words(film),
    condition_dropout=condition_dropout, steps=steps, told_steps=told_steps, folds=folds, fold_steps=fold_steps,
    batch_size=batch_size, learning_rate=learning_rate, attention=attention, action_steps=action_steps,
    tune_steps=tune_steps, tune_rate=tune_rate, alpha=alpha, smoothing=smoothing, norm=norm,
    augment=parse_augment(augment), seed=seed, device=device, threads=threads,
)  # fmt: skip
nets = train_nets(hands, config, workspace.runs, pose_run=pose_run, action_run=action_run)
print(nets)

# %%
curves(run_of(config, "second", workspace.runs), "mpjpe", "mean joint error of the second net, mm")
# %% [markdown]
# ## How much should the second pass count?
#
# The shares η (of its poses) and ζ (of its action) are chosen on validation people. Framed: the best. Where it is at
# 0, the second pass is worth nothing there.

# %%
weights = weigh_passes(nets, config, hands, eta=eta, zeta=zeta)
print(weights)
weights.figure()
# %% [markdown]
# ## Train the loops
#
# From the parts, end to end, pose and action together. Norms and dropout stay as in evaluation: the statistics of four
# sequences are worthless.

# %%
untrained = glue(nets, split_words(loops), eta=weights.eta, zeta=weights.zeta, norm=norm, smoothing=smoothing)
trained = fine_tune(untrained, hands, config, workspace.runs)

# %% [markdown]
# ## The table
#
# On people that nothing was trained or chosen on; intervals are over whole sequences. *Covered* joints are those of
# ring and little finger behind what is held: one frame can't tell how these are bent, the action can.

# %%
methods = compared(trained, untrained, nets, oracle=oracle)
scoring = EvalConfig(threads=threads)
evaluation = evaluate(methods, config.joint_task, hands.test, folder=workspace.report(report), config=scoring)
page = evaluation.save(workspace.report(report))
Markdown("\n\n".join(evaluation.summary()[:1]))

# %%
Markdown(evaluation.table())

# %% [markdown]
# What is behind what: differences of two methods on the same sequences. Bold: the interval excludes 0; of so many
# numbers about one in twenty would by chance alone. Of a loop, the line "− uniform action" is the claim; "two-pass −
# two plain nets" is what is left of it beside an average.

# %%
Markdown(paired_table(evaluation))

# %%
over_time_figure(evaluation)
# %% [markdown]
# ## Look
#
# The sequence in the middle of all, in 3D: chain beside two-pass beside the truth, and what the action net thinks
# after each frame.

# %%
viewer = loop_viewer(trained, hands, evaluation.extreme_samples().get("Median"), config.joint_task)
viewer

# %%
save_viewer(viewer, workspace.report(report), "viewer")
# %% [markdown]
# ## Lists
#
# Ways to tell the action (each told the true one, and 1/K), what is trained, norms, the share of the action in the
# loss, the learning rate: small runs, which tell large effects only.

# %%
try_lists(split_words(lists), nets, hands, config, list_steps, workspace.runs)

# %%
print(f"Table, figures and a page to read: {workspace.report(report)}; runs: {workspace.runs}")
print("Next: more people, the other net, a list of settings, or your own hands (notebook 06 stores them).")
