#!/usr/bin/env bash
# One study on a host with several GPUs, with one worker per GPU.
#
#   ./several_gpus.sh --env CartPole-v1 --trials 100
#
# The study is stored in a journal file in its folder; no database is needed.

set -euo pipefail

if command -v nvidia-smi > /dev/null; then
    workers=$(nvidia-smi --list-gpus | wc -l)
else
    workers=2 # Without GPUs the workers share the cores.
fi
exec python -m tune.run --workers "$workers" "$@"
