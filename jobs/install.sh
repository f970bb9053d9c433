#!/bin/sh
# Brings the worker's packages onto this machine, into ./env:   sh jobs/install.sh [PYTHON] [PACKAGE...]
#
# With uv, in the versions of constraints.txt. torch comes in the build for this machine's GPU (CUDA, ROCm or none), or
# in the one that TUNEPLAN_TORCH names as uv does; `default` is that of the index.
# Heeds PIP_INDEX_URL, PIP_EXTRA_INDEX_URL, PIP_FIND_LINKS, every UV_* and the proxies' variables. An environment made
# before for the same requirements is used again: ./env, or the one of a prebuilt image. The seconds it took stand in
# env/seconds.
set -eu
python=${1:-3.11}
[ $# -eq 0 ] || shift
built=${TUNEPLAN_IMAGE_ENV:-/opt/tuneplan/env}
start=$(date +%s)
wanted=$(cat requirements.txt constraints.txt | cksum)-$*

is_made() { [ -x "$1/bin/python" ] && [ "$(cat "$1/wanted" 2>/dev/null)" = "$wanted" ]; }

if is_made env; then echo 0 > env/seconds; exit 0; fi
if is_made "$built"; then rm -rf env; ln -s "$built" env; exit 0; fi

PATH="$HOME/.local/bin:$PATH"
if ! command -v uv > /dev/null; then
  # a Python that belongs to the system, or to an environment, takes only one of these
  python3 -m pip install --quiet uv 2> /dev/null ||
    python3 -m pip install --quiet --user uv 2> /dev/null ||
    python3 -m pip install --quiet --user --break-system-packages uv
fi
uv=uv
command -v uv > /dev/null || uv="python3 -m uv"

export UV_LINK_MODE="${UV_LINK_MODE:-copy}" UV_HTTP_TIMEOUT="${UV_HTTP_TIMEOUT:-120}"
if [ -n "${PIP_INDEX_URL:-}" ]; then export UV_DEFAULT_INDEX="${UV_DEFAULT_INDEX:-$PIP_INDEX_URL}"; fi
if [ -n "${PIP_EXTRA_INDEX_URL:-}" ]; then export UV_INDEX="${UV_INDEX:-$PIP_EXTRA_INDEX_URL}"; fi
if [ -n "${PIP_FIND_LINKS:-}" ]; then
  export UV_FIND_LINKS="${UV_FIND_LINKS:-$(printf %s "$PIP_FIND_LINKS" | tr ' ' ',')}"
fi
# an index of the user's has its own builds of torch, and the public ones may be out of reach
torch=${TUNEPLAN_TORCH:-auto}
if [ "$torch" != default ] && [ -z "${UV_DEFAULT_INDEX:-}${UV_NO_INDEX:-}${UV_FIND_LINKS:-}" ]; then
  export UV_TORCH_BACKEND="${UV_TORCH_BACKEND:-$torch}"
fi

rm -rf env
$uv venv --quiet --python "$python" env
$uv pip install --quiet --python env/bin/python --constraint constraints.txt --requirement requirements.txt "$@"
echo $(($(date +%s) - start)) > env/seconds
echo "$wanted" > env/wanted # last: an environment without it is not complete
