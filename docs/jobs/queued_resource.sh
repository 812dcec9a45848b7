#!/usr/bin/env bash
# A preemptible TPU slice by queued resources, created again after each preemption. On a machine
# that stays on, in the repository's directory:
#     bash docs/jobs/queued_resource.sh
# What to change, also for a bucket: docs/scale.md.
set -uo pipefail

name=mbv3
zone=us-central1-a
accelerator=v5litepod-16
runtime=v2-alpha-tpuv5-lite
nfs=10.0.0.2:/share  # the file server: address and exported directory
restarts=100

tpus() {
    gcloud compute tpus "$@" --zone="$zone" --quiet
}

on_all_hosts() {
    tpus tpu-vm ssh "$name" --worker=all --command="$1"
}

# ACTIVE: there is a slice. SUSPENDING, SUSPENDED: it was preempted. Empty: nothing was asked for.
state() {
    tpus queued-resources describe "$name" --format='value(state.state)' 2>/dev/null
}

# Waits in the queue for a slice.
obtain() {
    until [ "$(state)" = ACTIVE ]; do
        case $(state) in
            SUSPENDED) tpus queued-resources delete "$name" --force || return ;;
            FAILED) tpus queued-resources delete "$name" --force; return 1 ;;
            "") tpus queued-resources create "$name" --node-id="$name" --spot --async \
                --accelerator-type="$accelerator" --runtime-version="$runtime" || return ;;
        esac
        sleep 30
    done
}

# The image's Python may be older than what is needed; uv brings one.
prepare() {
    on_all_hosts "sudo mkdir -p /shared && (mountpoint -q /shared ||
            (sudo apt-get install -qq nfs-common && sudo mount -t nfs $nfs /shared))" &&
        tpus tpu-vm scp --recurse . "$name:ofa_jax" --worker=all &&
        on_all_hosts "python3 -m pip install -q --user uv &&
            python3 -m uv venv -q --allow-existing --python 3.13 env &&
            python3 -m uv pip install -q --python env -e './ofa_jax[tpu]'"
}

# What still runs after a lost connection ends first. SIGTERM, then SIGKILL: neither harms a run.
# shellcheck disable=SC2016  # expanded on the hosts
run() {
    on_all_hosts '(pkill -x -u "$USER" python && sleep 60 && pkill -KILL -x -u "$USER" python)
        . env/bin/activate && cd ofa_jax && python main.py \
            --config=configs/imagenet_mbv3.py --workdir=/shared/runs/mbv3 \
            --config.data.data_dir=/shared/tfds'
}

# Codes: 0 the end; 75 stopped and saved, 69 a process was lost, 255 the hosts are gone: again. 2 is
# the user's to fix (docs/faults.md), but also a lock that the last slice left for a moment.
wrong=0
for ((try = 0; try <= restarts; try++)); do
    obtain && prepare && run
    code=$?
    [ "$code" -eq 0 ] && break
    [ "$code" -eq 2 ] && wrong=$((wrong + 1)) || wrong=0
    [ "$wrong" -eq 3 ] && break
    echo "exit code $code: again in a minute" >&2
    sleep 60
done
if [ "$code" -eq 0 ]; then
    tpus queued-resources delete "$name" --force
else
    echo "given up, exit code $code: the slice is still there, and costs" >&2
fi
exit "$code"
