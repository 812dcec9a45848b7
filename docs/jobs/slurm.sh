#!/usr/bin/env bash
# Two nodes of eight GPUs with SLURM. In the repository's directory, on the shared file system:
#     sbatch docs/jobs/slurm.sh
# JAX expects one task for each GPU. What to change, also for a bucket: docs/scale.md.
#SBATCH --job-name=mbv3
#SBATCH --nodes=2
#SBATCH --ntasks-per-node=8
#SBATCH --gpus-per-node=8
#SBATCH --cpus-per-task=8
#SBATCH --time=24:00:00
#SBATCH --output=%x-%j.log
#SBATCH --open-mode=append
#SBATCH --requeue
# This shell gets SIGUSR1 so many seconds before the time limit. Not SIGTERM: that is what scancel
# sends, and a cancelled job is not to start again.
#SBATCH --signal=B:USR1@300

restarts=100

again() {
    if [ "${SLURM_RESTART_COUNT:-0}" -ge "$restarts" ]; then
        echo "restarted $restarts times already: sbatch starts it again" >&2
        exit 1
    fi
    scontrol requeue "$SLURM_JOB_ID"
}

# SIGTERM to the tasks, by scancel: srun would kill them at once if it got the signal itself.
# Stages that save nothing do not end by it, and start again all the same.
stop() {
    stopping=yes
    scancel --signal=TERM "$SLURM_JOB_ID"
    { sleep 240 && again; } &
    late=$!
}
trap stop USR1

# Not killed on a bad exit: the others may still be saving.
srun --cpus-per-task="$SLURM_CPUS_PER_TASK" --kill-on-bad-exit=0 python main.py \
    --config=configs/imagenet_mbv3.py --workdir=/shared/runs/mbv3 \
    --config.data.data_dir=/shared/tfds --config.data.workers=8 &
tasks=$!
wait "$tasks"
code=$?
if [ -n "${stopping:-}" ]; then  # the signal, not the end of the tasks, ended that wait
    wait "$tasks"
    code=$?
    kill "$late"
fi

# srun gives the highest code of its tasks: 75 stopped and saved, 69 a process was lost, 134 JAX
# says so, 137 it was killed. Any other is the end, or what only the user can fix (docs/faults.md).
case $code in
    69 | 75 | 134 | 137) again ;;
    *) exit "$code" ;;
esac
