#!/usr/bin/env bash
# A slice of TPU VMs.   tpu_vm.sh create | state | setup | start | watch | stop | delete | keep      (see README.md)
set -euo pipefail
cd "$(dirname "$0")/../.."
: "${PROJECT:?Google Cloud project}" "${ZONE:?zone, such as us-west4-a}"
NAME=${NAME:-byol}
TYPE=${TYPE:-v5litepod-256}
RUNTIME=${RUNTIME:-v2-alpha-tpuv5-lite}
SPOT=${SPOT-yes} # SPOT= asks for machines that are not taken away
CONFIG=${CONFIG:-configs/imagenet.py:e300}

request() { gcloud compute tpus queued-resources "$@" --zone="$ZONE" --project="$PROJECT"; }
on() { gcloud compute tpus tpu-vm ssh "$NAME" --zone="$ZONE" --project="$PROJECT" --worker="$1" --command="$2"; }

create() {
    request create "$NAME" --node-id="$NAME" --accelerator-type="$TYPE" --runtime-version="$RUNTIME" ${SPOT:+--spot}
}

state() { request describe "$NAME" --format='value(state.state)'; }

setup() { # the commit that is checked out here; Python 3.12 from uv, since the images' own may be older than 3.11
    local archive
    archive=$(mktemp --suffix=.tar.gz)
    git archive --format=tar.gz --output="$archive" HEAD
    gcloud compute tpus tpu-vm scp "$archive" "$NAME:byol_jax.tar.gz" --zone="$ZONE" --project="$PROJECT" --worker=all
    rm "$archive"
    on all 'mkdir -p byol_jax && tar -xzf byol_jax.tar.gz -C byol_jax && cd byol_jax &&
        curl -LsSf https://astral.sh/uv/install.sh | sh &&
        ~/.local/bin/uv venv --python 3.12 --clear .venv && ~/.local/bin/uv pip install --python .venv/bin/python -e ".[tpu,gcs]"'
}

start() {
    on all "cd byol_jax && export PATH=\$PWD/.venv/bin:\$PATH ${DATA:+TFDS_DATA_DIR='$DATA'} && { nohup experiments/launch/run.py \
        pretrain --config '$CONFIG' --config.encoder.dtype=bfloat16 --workdir '${WORKDIR:?gs://bucket/run, or a folder that all hosts see}' \
        >> launch.log 2>&1 < /dev/null & } && echo \$! > launch.pid"
}

keep() { # until the run ends; a slice that has been taken away is asked for again
    while :; do
        case $(state || echo UNKNOWN) in
            ACTIVE)
                if [[ $(on 0 'kill -0 "$(cat byol_jax/launch.pid)" 2> /dev/null && echo runs || echo ended') == ended ]]; then
                    on 0 'tail -n 20 byol_jax/launch.log'
                    return
                fi
                ;;
            SUSPENDED | FAILED)
                request delete "$NAME" --force --quiet
                create
                until [[ $(state) == ACTIVE ]]; do sleep "${PAUSE:-60}"; done
                setup
                start
                ;;
        esac
        sleep "${PAUSE:-60}"
    done
}

case ${1:-} in
    create | state | setup | start | keep) "$1" ;;
    watch) on 0 'tail -n 50 -F byol_jax/launch.log' ;;
    stop) on 0 'kill -TERM "$(cat byol_jax/launch.pid)"' ;; # one is enough: all save the same step and stop
    delete) request delete "$NAME" --force --quiet ;;
    *)
        echo "usage: tpu_vm.sh create | state | setup | start | watch | stop | delete | keep" >&2
        exit 2
        ;;
esac
