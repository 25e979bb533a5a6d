#!/usr/bin/env bash
# One machine with 8 NVIDIA GPUs; one process drives them all.   box_8gpu.sh start | watch | stop      (see README.md)
set -euo pipefail
cd "$(dirname "$0")/../.."
CONFIG=${CONFIG:-configs/imagenet.py:e300}
WORKDIR=${WORKDIR:-runs/e300}

case ${1:-} in
    start)
        mkdir -p "$WORKDIR"
        nohup experiments/launch/run.py pretrain --config "$CONFIG" --config.encoder.dtype=bfloat16 --workdir "$WORKDIR" \
            >> "$WORKDIR/launch.log" 2>&1 < /dev/null &
        echo $! > "$WORKDIR/launch.pid"
        ;;
    watch) tail -n 50 -F "$WORKDIR/launch.log" ;;
    stop) kill -TERM "$(cat "$WORKDIR/launch.pid")" ;;
    *)
        echo "usage: box_8gpu.sh start | watch | stop" >&2
        exit 2
        ;;
esac
