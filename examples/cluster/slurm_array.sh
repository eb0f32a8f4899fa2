#!/usr/bin/env bash
# A Slurm job array on one study: every task is a worker with one GPU.
#
#   export PPO_JAX_TUNE_STORAGE=postgresql://USER:PASSWORD@HOST/DATABASE
#   sbatch slurm_array.sh --env CartPole-v1 --trials 100
#
# All nodes must be able to access the output folder. The last task to run out of trials selects
# and validates the winner. A preempted task releases its trial and is requeued. You can submit
# more tasks at any time with the same options.

#SBATCH --job-name=tune-ppo
#SBATCH --array=0-7
#SBATCH --ntasks=1
#SBATCH --cpus-per-task=8
#SBATCH --gpus-per-task=1
#SBATCH --time=04:00:00
#SBATCH --requeue
#SBATCH --signal=B:TERM@60

set -euo pipefail
: "${PPO_JAX_TUNE_STORAGE:?must hold the address of the storage}"

echo "worker ${SLURM_ARRAY_TASK_ID:-0} on $(hostname)"
# exec, so that Slurm's signals reach the study itself.
exec python -m tune.run --study-name "${STUDY:-array}" --output "${OUTPUT:-runs/${STUDY:-array}}" "$@"
