#!/usr/bin/env bash
# GKE with xpk.   gke_xpk.sh start | list | watch | stop; `inside` is what every pod runs      (see README.md)
set -euo pipefail
cd "$(dirname "$0")/../.."
CONFIG=${CONFIG:-configs/imagenet.py:e300}
WORKLOAD=${WORKLOAD:-byol-e300}
read -ra DEVICES <<< "${DEVICES:---tpu-type=v5litepod-256 --num-slices=1}" # GPUs: --device-type=h100-mega-80gb-8 --num-nodes=4

where() { echo --cluster="${CLUSTER:?}" --project="${PROJECT:?}" --zone="${ZONE:?}"; }

case ${1:-} in
    start)
        # `exec`: xpk sends SIGTERM to the shell that runs this command and to nothing below it
        read -ra place <<< "$(where)"
        xpk workload create "${place[@]}" --workload="$WORKLOAD" --docker-image="${IMAGE:?}" "${DEVICES[@]}" \
            --max-restarts=50 --restart-on-exit-codes=1 --termination-grace-period-seconds=300 \
            --env=CONFIG="$CONFIG" --env=WORKDIR="${WORKDIR:?gs://bucket/run, or a folder that all pods see}" \
            --env=TFDS_DATA_DIR="${DATA:?where the pods find the data}" \
            --command="exec bash experiments/launch/gke_xpk.sh inside"
        ;;
    list)
        read -ra place <<< "$(where)"
        xpk workload list "${place[@]}"
        ;;
    watch) kubectl logs --follow --tail=50 --selector="xpk.google.com/workload=$WORKLOAD,batch.kubernetes.io/job-completion-index=0" ;;
    stop)
        read -ra place <<< "$(where)"
        xpk workload delete "${place[@]}" --workload="$WORKLOAD"
        ;;
    inside)
        if [[ -n ${NNODES:-} && -n ${JAX_COORDINATOR_ADDRESS:-} ]]; then # xpk's GPU pods; on TPU JAX finds the others by itself
            export BYOL_COORDINATOR=$JAX_COORDINATOR_ADDRESS:$JAX_COORDINATOR_PORT
            export BYOL_PROCESS_COUNT=$NNODES BYOL_PROCESS_INDEX=$NODE_RANK
        fi
        # a pod that ends with 0 has succeeded and is not started again: 42, one of the codes that xpk restarts on, after a signal
        TRIES=1 SAVED=42 exec python3 experiments/launch/run.py \
            pretrain --config "$CONFIG" --config.encoder.dtype=bfloat16 --workdir "${WORKDIR:?}"
        ;;
    *)
        echo "usage: gke_xpk.sh start | list | watch | stop" >&2
        exit 2
        ;;
esac
