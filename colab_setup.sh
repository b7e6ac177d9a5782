#!/usr/bin/env bash
# Sets flowlib up and, if asked, runs the demo or the tests. Run it as often as you like: it does only what is missing.
#
#   bash colab_setup.sh          in Colab, add to the running Python what it lacks; elsewhere, make .venv in the clone
#   bash colab_setup.sh demo     ... then run notebooks 01 to 05 on the sample and say where the results are
#   bash colab_setup.sh demo hands   ... then run notebooks 06 and 07 on synthetic hands, likewise
#   bash colab_setup.sh docs     ... then build the documentation into site/
#   bash colab_setup.sh test     ... then run the tests; what follows "test" goes to pytest
#
# Written for bash 3.2 and later, with nothing else but a Python, df, tee, grep and the like.
set -euo pipefail

CLONE="$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd -P)"
VENV="$CLONE/.venv"
EXTRAS="docs,notebooks,parquet,ray,test,timm"
CANDIDATES="python3.13 python3.12 python3.11 python3"
TELL_EVERY=10 # seconds between two lines while pip is silent
NEEDED_GB=10 # on Linux: 6.6 for .venv with the CUDA libraries that PyTorch brings, 2.7 for downloads while unpacking
# Colab's running kernel has these loaded, or speaks to the browser through them: another version asks for a restart.
KEEP_IN_COLAB="torch torchvision torchaudio numpy ipywidgets ipykernel"
IMPORTS="torch torchvision av cv2 h5py papermill flowlib" # what must work once everything is installed

# The demo, notebook by notebook: small enough for ten minutes on two cores. Its dataset, runs and report have names of
# their own, so that what you do next with the notebooks' own settings doesn't meet them.
demo() {
  run_notebook 01_frames
  run_notebook 02_pips_dataset -p dataset demo -p tracker lucas_kanade -p grid 48 -p max_clips 12
  run_notebook 03_overfit_single_batch -p dataset demo -p run demo_overfit -p steps 80 -p look_every 10 -p input_size 96x192 \
    -p batch_norm group -p target 1.5
  run_notebook 04_two_frame_model -p dataset demo -p run demo_two_frames -p steps 32 -p batch_size 2 -p input_size 96x192 \
    -p check_steps 2
  run_notebook 05_evaluate -p dataset demo -p run demo_two_frames -p report demo
}

# The hands' demo: six people who do each of twelve actions twice.
demo_hands() {
  run_notebook 06_hand_pose -p dataset demo_hands -p run demo_hand_pose -p report demo_hands -p subjects 6 -p takes 2 \
    -p steps 600 -p validate_every 100
  run_notebook 07_action -p dataset demo_hands -p run demo_action -p report demo_action -p steps 400 -p drift_epochs 2
  run_notebook 08_pose_and_action -p dataset demo_hands -p run demo_loops -p report demo_loops -p frame_step 3 -p steps 200 \
    -p told_steps 300 -p folds 2 -p fold_steps 150 -p action_steps 200 -p attention none -p loops chain,two_pass -p tune_steps 40
}

main() {
  local job="${1:-setup}"
  [ $# -eq 0 ] || shift
  case "$job" in
    setup) [ $# -eq 0 ] || die "expected nothing after \"$job\", got: $*" ;;
    demo) [ "${*:-hands}" = hands ] || die "expected nothing or hands after \"$job\", got: $*" ;;
    docs) [ $# -eq 0 ] || die "expected nothing after docs, got: $*" ;;
    test) ;;
    -h | --help) usage && return ;;
    *) die "expected nothing, demo, docs or test, got: $job" ;;
  esac
  set_up "$job"
  cd "$CLONE"
  case "$job" in
    demo) run_demo "demo${1:+_$1}" ;;
    docs) build_docs ;;
    # Two processes, a file's tests in one of them, in the files' order: the long files lie in its middle.
    test) "$PYTHON" -m pytest --numprocesses=2 --dist=loadfile --no-loadscope-reorder "$@" ;;
  esac
}

usage() {
  sed -n 's/^#   //p' "$CLONE/colab_setup.sh"
}

say() { printf 'flowlib: %s\n' "$*"; }

die() {
  printf 'colab_setup.sh: %s\n' "$*" >&2
  exit 1
}

# ---------------------------------------------------------------------------------------------------- setting up

set_up() {
  export PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_NO_INPUT=1 PIP_ROOT_USER_ACTION=ignore PIP_USER=0
  if in_colab; then
    PYTHON=python3
    case "$1" in
      test) ;;
      docs) EXTRAS="docs,notebooks" ;;
      *) EXTRAS=notebooks ;; # JupyterLab, Ray and a browser's driver are for the tests alone
    esac
    stamped colab || install_in_colab
  else
    PYTHON="$VENV/bin/python"
    { usable_venv && stamped venv; } || install_in_venv
  fi
}

in_colab() {
  [ -n "${COLAB_RELEASE_TAG:-}${COLAB_GPU:-}" ] &&
    python3 -c 'import importlib.util as u, sys; sys.exit(not (u.find_spec("google") and u.find_spec("google.colab")))'
}

# What the installation follows from. In Colab that includes the sources, since what is installed is a copy of them.
fingerprint() {
  "$PYTHON" - "$1" "$CLONE" "$EXTRAS" <<'EOP'
import hashlib, pathlib, sys

kind, clone, extras = sys.argv[1:]
digest = hashlib.sha256(repr((kind, clone, extras, sys.version)).encode())
folders = ["flowlib", "notebooks"] if kind == "colab" else []
sources = [path for folder in folders for path in pathlib.Path(clone, folder).rglob("*")]
for path in [pathlib.Path(clone, "pyproject.toml"), *sorted(sources)]:
    if path.is_file() and "__pycache__" not in path.parts:
        digest.update(path.as_posix().encode() + path.read_bytes())
print(digest.hexdigest())
EOP
}

# The stamp lies among the installed packages: it goes when they go.
stamp_file() {
  "$PYTHON" -c 'import sysconfig; print(sysconfig.get_path("purelib") + "/flowlib_setup.stamp")'
}

stamped() {
  local file
  file="$(stamp_file)"
  [ -f "$file" ] && [ "$(cat "$file")" = "$(fingerprint "$1")" ]
}

install_in_venv() {
  local log
  if has_torch; then
    say "installing what is missing"
  else
    check_space
    say "installing the libraries, PyTorch with CUDA among them: about 6 GB, some minutes"
  fi
  if ! usable_venv; then
    find_python
    [ ! -e "$VENV" ] || say "making .venv anew: the old one is incomplete, too old or from another place"
    say "making .venv with Python $FOUND_VERSION"
    log="$(mktemp)"
    "$FOUND" -m venv --clear "$VENV" >"$log" 2>&1 || explain_failure "$log"
    rm -f "$log"
  fi
  WORK="$VENV/setup"
  rm -rf "$WORK" && mkdir -p "$WORK/tmp"
  drop_half_installed
  # Temporary files beside the environment: one disk to check, and /tmp is small on many machines.
  TMPDIR="$WORK/tmp" install_packages --editable "${CLONE}[$EXTRAS]"
  finish venv
  say "ready: $VENV"
}

install_in_colab() {
  "$PYTHON" -c 'import sys; sys.exit(sys.version_info < (3, 11))' ||
    die "expected Python 3.11 or later, got $("$PYTHON" -V): choose a newer runtime version in the Runtime menu"
  WORK="$(mktemp -d)"
  # From a copy: building in the clone leaves build/, and files deleted since would come back from it.
  cp -R "$CLONE/flowlib" "$CLONE/notebooks" "$CLONE/pyproject.toml" "$CLONE/README.md" "$CLONE/LICENSE" "$WORK"
  freeze_kept >"$WORK/keep.txt"
  say "adding to Colab's Python what it lacks"
  install_packages --constraint "$WORK/keep.txt" "${WORK}[$EXTRAS]"
  finish colab
  say "ready"
}

# Sets FOUND and FOUND_VERSION. A name on the PATH may be a shim of a version that is not there, so each is tried.
find_python() {
  local candidate answer old="" bare=""
  for candidate in $CANDIDATES; do
    answer="$("$candidate" -c '
import sys
verdict = "fine" if sys.version_info >= (3, 11) else "old"
try:
    import ensurepip, venv
except ImportError:
    verdict = verdict.replace("fine", "bare")
print(verdict, "%d.%d.%d" % sys.version_info[:3])' 2>/dev/null)" || continue
    FOUND="$candidate" FOUND_VERSION="${answer#* }"
    case "$answer" in
      fine*) return ;;
      bare*) bare="${bare:-$FOUND_VERSION}" ;;
      *) old="${old:-$FOUND_VERSION}" ;;
    esac
  done
  [ -z "$bare" ] || die "Python $bare has no venv module; on Debian and Ubuntu: apt-get install python${bare%.*}-venv"
  [ -z "$old" ] || die "expected Python 3.11 or later, found only Python $old"
  die "expected Python 3.11 or later, found none of: $CANDIDATES"
}

# It runs, is new enough, has pip, and its scripts point here: a clone that was moved takes its .venv along, broken.
usable_venv() {
  [ -x "$VENV/bin/python" ] && [ -f "$VENV/bin/pip" ] && grep -qF "$VENV/bin/python" "$VENV/bin/pip" &&
    "$VENV/bin/python" -c 'import pip, sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null
}

has_torch() {
  local folder
  for folder in "$VENV"/lib/python*/site-packages/torch; do
    [ ! -d "$folder" ] || return 0
  done
  return 1
}

check_space() {
  local kilobytes
  [ "$(uname)" = Linux ] || return 0 # PyTorch comes without CUDA there
  kilobytes="$(df -Pk "$CLONE" 2>/dev/null | awk 'NR == 2 { print $4 }')"
  case "$kilobytes" in
    "" | *[!0-9]*) return 0 ;; # a df that says something else; pip will notice
  esac
  [ "$kilobytes" -ge $((NEEDED_GB * 1000 * 1000)) ] ||
    die "expected about $NEEDED_GB GB of free space in $CLONE, got $((kilobytes / 1000000)) GB"
}

# pip writes INSTALLER last, so a package without it was being unpacked when an earlier run was killed, and pip would
# take it for whole. Without its metadata it is installed again, over what is there.
drop_half_installed() {
  local info
  for info in "$VENV"/lib/python*/site-packages/*.dist-info; do
    [ ! -d "$info" ] || [ -f "$info/INSTALLER" ] || rm -rf "$info"
  done
}

freeze_kept() {
  # shellcheck disable=SC2086 # a list of names
  "$PYTHON" - $KEEP_IN_COLAB <<'EOP'
import sys
from importlib.metadata import PackageNotFoundError, version

for name in sys.argv[1:]:
    try:
        print(f"{name}=={version(name)}")
    except PackageNotFoundError:
        pass
EOP
}

install_packages() {
  "$PYTHON" -m pip install "$@" 2>&1 | tee "$WORK/log" | show_progress || explain_failure "$WORK/log"
}

# Of pip's hundreds of lines those on which it stays for a while; while it unpacks, which is silent, what is there so far.
show_progress() {
  local line status packages before total
  packages="$("$PYTHON" -c 'import sysconfig; print(sysconfig.get_path("purelib"))')"
  while true; do
    status=0
    IFS= read -r -t "$TELL_EVERY" line || status=$?
    if [ "$status" -gt 128 ]; then
      [ -z "${total:-}" ] || printf '  Unpacking: %s of %s packages\n' $(($(count_packages) - before)) "$total"
      continue
    fi
    [ "$status" -eq 0 ] || break
    case "$line" in
      *[Dd]ownloading*" GB)" | *[Dd]ownloading*"("[0-9][0-9][0-9].[0-9]" MB)") printf '  %s\n' "${line#"${line%%[![:space:]]*}"}" ;;
      "Installing collected packages: "*)
        # shellcheck disable=SC2086 # names, divided by commas
        set -- ${line#*: }
        total=$# before="$(count_packages)"
        printf '  Unpacking %s packages\n' "$total"
        ;;
    esac
  done
}

# How many packages are whole among the installed ones, see `drop_half_installed`.
count_packages() {
  set -- "$packages"/*.dist-info/INSTALLER
  [ -e "$1" ] || shift
  printf '%s' $#
}

explain_failure() {
  local status=$? log="$1"
  if [ "$status" -ge 128 ] || grep -q 'Operation cancelled by user' "$log"; then
    die "interrupted; the same command goes on from here"
  elif grep -qE 'No space left on device|Disk quota exceeded' "$log"; then
    die "no space left while installing in ${VENV}: about $NEEDED_GB GB are needed ($log)"
  elif grep -qE 'NewConnectionError|NameResolutionError|ConnectTimeout|ReadTimeout|ProxyError|Max retries exceeded' "$log"; then
    die "no network: the package index can't be reached; once it can, the same command goes on from here ($log)"
  fi
  die "installing failed: $(grep -iE '^ *error' "$log" | grep -v ResolutionImpossible | tail -n 1 || tail -n 1 "$log") (all of it: $log)"
}

# Only what can be imported from elsewhere than the clone counts as installed.
finish() {
  local module error
  for module in $IMPORTS; do
    error="$(cd / && "$PYTHON" -c "import $module" 2>&1)" ||
      die "installed, but \"import $module\" fails: $(printf '%s\n' "$error" | tail -n 1)"
  done
  fingerprint "$1" >"$(stamp_file)"
  rm -rf "$WORK"
}

# ---------------------------------------------------------------------------------------------------- the demo

run_demo() {
  ROOT="$("$PYTHON" -c 'from flowlib.workspace import Workspace; print(Workspace().root)')"
  EXECUTED="$ROOT/notebooks"
  mkdir -p "$EXECUTED"
  export JUPYTER_PREFER_ENV_PATH=1 # else a "python3" kernel of the user's own would be taken before this one
  "$1"
  say "executed notebooks: $EXECUTED"
  [ ! -d "$ROOT/reports" ] || find "$ROOT/reports" -name '*.md' | sort | while IFS= read -r file; do say "table of metrics: $file"; done
  "$PYTHON" -m flowlib contents --root "$ROOT" >/dev/null
  say "all of it, to look at in a browser: $ROOT/index.html"
}

run_notebook() {
  local name="$1"
  shift
  say "notebook $name $*"
  # Tensors of megabytes are taken from memory that is kept, not asked of the kernel page by page at every step.
  export MALLOC_MMAP_THRESHOLD_="${MALLOC_MMAP_THRESHOLD_:-33554432}" MALLOC_TRIM_THRESHOLD_="${MALLOC_TRIM_THRESHOLD_:-4294967296}"
  # A kernel warns that whoever is on this machine could listen: true of every notebook, and nothing to do about here.
  "$PYTHON" -m papermill "notebooks/$name.ipynb" "$EXECUTED/$name.ipynb" -p root "$ROOT" "$@" \
    2> >(grep -v 'running over TCP without encryption' >&2)
}

# ---------------------------------------------------------------------------------------------------- the documentation

build_docs() {
  NO_MKDOCS_2_WARNING=1 "$PYTHON" -m mkdocs build --strict
  say "the documentation, to look at in a browser: $CLONE/site/index.html"
}

main "$@"
