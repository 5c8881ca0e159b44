#!/bin/bash
# Two nodes of one GPU each, by Slurm.
#
#   sbatch slurm.sh
#
# srun sets the variables from which the workers find each other, on port 8888 of each node. Run so
# far on one node with two tasks and no GPU: docs/several_machines.md.
#SBATCH --job-name=cnnrnn
#SBATCH --nodes=2
#SBATCH --ntasks-per-node=1
#SBATCH --gpus-per-task=1
#SBATCH --cpus-per-task=8
#SBATCH --time=24:00:00
#SBATCH --signal=TERM@120    # to the workers, 120 seconds before the time is over: they save and end
#SBATCH --requeue            # after the failure of a node, from the last checkpoint
#SBATCH --open-mode=append
set -u

# If a worker fails, the others end, too. All start again, at most 20 times in a job. srun must not end them
# before they have ended by themselves, since its exit code would be that of a stop, 143.
for attempt in $(seq 20); do
  srun --kill-on-bad-exit=0 --wait=120 cnnrnn train \
    --dataset="$HOME/images" --runs_dir="$HOME/runs" --run=first --batch_size=64,32
  code=$?
  case $code in
    0 | 2) exit $code ;;  # done; wrong flags
    130 | 143) exit $code ;;  # stopped: submit the job again to resume
  esac
  echo "attempt $attempt ended with exit code $code" >&2
  sleep 10
done
exit 1
