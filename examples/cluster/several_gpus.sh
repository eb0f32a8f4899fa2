#!/usr/bin/env bash
# One host with several GPUs: a worker for each, on one study.
#
#   ./several_gpus.sh --env CartPole-v1 --trials 100
#
# The study is kept in a journal file in its folder; a database is not needed.

set -euo pipefail

if command -v nvidia-smi > /dev/null; then
    workers=$(nvidia-smi --list-gpus | wc -l)
else
    workers=2 # No GPU: the cores are divided.
fi
exec python -m tune.run --workers "$workers" "$@"
