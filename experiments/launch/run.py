#!/usr/bin/env python3
"""Runs `byol-jax ARGUMENTS`, passes SIGTERM on to it, and starts it again when it fails; the other scripts start this one.

    TRIES=5 PAUSE=60 SAVED=0 experiments/launch/run.py pretrain --config FILE.py --workdir DIR

Exit code: that of byol-jax (128 + n after signal n); but SAVED if it was told to stop and did so with code 0, for schedulers that take 0
for the end. Not tried again: code 2 (a mistake in the command) and anything after a signal to this script.

Not in bash: its `wait`, interrupted by a signal just as the child ends, loses the child's code.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading

SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)
TRIES, PAUSE, SAVED = int(os.environ.get("TRIES", "5")), float(os.environ.get("PAUSE", "60")), int(os.environ.get("SAVED", "0"))


def main() -> int:
    child: subprocess.Popen[bytes] | None = None
    stopped = threading.Event()

    def stop(*_: object) -> None:
        stopped.set()
        if child is not None:
            child.terminate()  # does nothing to one that has ended

    signals = [name for name in SIGNALS if signal.getsignal(name) is not signal.SIG_IGN]  # nohup ignores SIGHUP
    for name in signals:
        signal.signal(name, stop)
    code, attempt = 1, 0
    while code not in (0, 2) and not stopped.is_set() and attempt < TRIES:
        if attempt:
            print(f"byol-jax ended with code {code}; attempt {attempt + 1} of {TRIES} in {PAUSE:g} s", file=sys.stderr)
            if stopped.wait(PAUSE):
                break
        child = subprocess.Popen(["byol-jax", *sys.argv[1:]])
        if stopped.is_set():
            child.terminate()  # the signal came before there was a child
        ended, attempt = child.wait(), attempt + 1
        code = 128 - ended if ended < 0 else ended
    for name in signals:
        signal.signal(name, signal.SIG_IGN)  # else one that comes while Python shuts down would change the exit code
    return SAVED if code == 0 and stopped.is_set() else code


if __name__ == "__main__":
    sys.exit(main())
