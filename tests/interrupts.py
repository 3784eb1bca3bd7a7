"""How long a call goes on after Ctrl-C: `python tests/interrupts.py` prints it for each engine.

Inputs whose rows are one in memory make calls of a minute or so without the memory for it.
"""

import os
import signal
import threading
import time

import numpy as np

import crossent
import crossent.functional as F

CALL = 15  # Seconds that a call takes at least.
DELAY = 0.2


def rows(dtype, classes, n):
    return np.broadcast_to(np.linspace(-1, 1, classes, dtype=dtype), (n, classes))


def calls():
    """A call of each engine, by what it does."""
    wide, narrow = rows(np.float32, 1000, 2 * 10**8), rows(np.float32, 3, 10**10)
    few = np.broadcast_to(np.zeros(1, np.uint8), len(wide))
    many = np.broadcast_to(np.zeros(1, np.int64), len(narrow))
    p = np.broadcast_to(np.full(1, 0.5, np.float32), (10**9, 100))
    half = rows(np.float16, 1000, len(wide))
    one_row = np.broadcast_to(np.zeros(1, np.float32), 10**11)
    return {
        "along classes": lambda: F.cross_entropy(wide, few),
        "across rows": lambda: F.cross_entropy(narrow, many),
        "soft targets": lambda: F.cross_entropy(wide, wide),
        "float16, warped": lambda: F.cross_entropy(half, few, softcap=3.0),
        "a row of parts": lambda: F.cross_entropy(one_row, 0),
        "negative log-likelihood": lambda: F.nll_loss(wide, few),
        "elements": lambda: F.binary_cross_entropy(p, p),
        "elements by rows": lambda: F.entropy(p),
        "pairs of rows": lambda: F.kl_divergence_with_logits(wide, wide),
    }


def long_rows():
    """Calls of one row, by what they do: they take seconds, for which the row must be in memory."""
    x = np.zeros(10**8, np.float32)
    x[::7] = 1
    grad = np.empty_like(x)
    return {
        "one row along": lambda: F.entropy_with_logits(x, softcap=3.0),
        "one row, gradient": lambda: F.cross_entropy(x, 0, softcap=3.0, grad_out=grad),
        "one pair of rows": lambda: F.js_divergence_with_logits(x, x),
        "one pair, gradient": lambda: F.kl_divergence_with_logits(x, x, grad_out=grad),
        "one row of elements": lambda: F.js_divergence(x, x),
    }


def interrupted(call, delay=DELAY):
    """Seconds from the signal to the exception."""
    sent = []

    def send():
        time.sleep(delay)
        sent.append(time.monotonic())
        os.kill(os.getpid(), signal.SIGINT)

    thread = threading.Thread(target=send)
    thread.start()
    try:
        call()
    except KeyboardInterrupt:
        return time.monotonic() - sent[0]
    finally:
        thread.join()
    raise AssertionError("the call ended before it was interrupted")


def report(name, threads, seconds):
    print(f"{name:24} {threads} threads: {1000 * seconds:6.0f} ms", flush=True)


def main():
    signal.signal(signal.SIGINT, signal.default_int_handler)
    x = rows(np.float32, 1000, 1000)
    target = np.zeros(len(x), np.uint8)
    want = F.cross_entropy(x, target)
    before = crossent.get_num_threads()
    for threads in sorted({1, max(2, before)}):
        crossent.set_num_threads(threads)
        for name, call in calls().items():
            if threads == 1 and name == "a row of parts":
                continue  # One thread does not share rows.
            seconds = interrupted(call)
            assert F.cross_entropy(x, target) == want
            report(name, threads, seconds)
            assert seconds < CALL / 3
        for name, call in long_rows().items():
            start = time.monotonic()
            call()
            whole = time.monotonic() - start
            seconds = interrupted(call, whole / 8)
            report(name, threads, seconds)
            assert seconds < whole / 2


if __name__ == "__main__":
    main()
