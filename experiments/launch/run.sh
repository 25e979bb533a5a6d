#!/usr/bin/env bash
# Runs `byol-jax ARGUMENTS`, passes SIGTERM on to it, and starts it again when it fails; the other scripts start this one.
#
#   TRIES=5 PAUSE=60 SAVED=0 experiments/launch/run.sh pretrain --config FILE.py --workdir DIR
#
# Exit code: that of byol-jax; but SAVED if it was told to stop and did so with code 0, for schedulers that take 0 for the end.
# Not tried again: code 2 (a mistake in the command) and anything after a signal to this script.
set -uo pipefail
stopped=0 child=
trap 'stopped=1; [[ -z $child ]] || kill -TERM "$child" 2> /dev/null' TERM INT HUP

for ((try = 1; ; try++)); do
    byol-jax "$@" &
    child=$!
    while kill -0 "$child" 2> /dev/null; do wait "$child"; done # a trap ends `wait` early
    wait "$child" # bash keeps the code of a child that has ended
    code=$?
    child=
    if ((code == 0 && stopped)); then exit "${SAVED:-0}"; fi
    if ((code == 0 || code == 2 || stopped || try >= ${TRIES:-5})); then exit "$code"; fi
    echo "byol-jax ended with code $code; attempt $((try + 1)) of ${TRIES:-5} in ${PAUSE:-60} s" >&2
    sleep "${PAUSE:-60}"
    if ((stopped)); then exit "$code"; fi
done
