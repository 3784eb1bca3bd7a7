"""Calls of every function where memory has a limit: a MemoryError or the right answer, never the
end of the process. `python tests/exhaustion.py` prints how many calls ended which way.
"""

import inspect
import os
import resource
import sys

import numpy as np

import crossent
import crossent.functional as F

ROOM = [0, 64, 512, 8192]  # KiB above what the process has.
SHAPES = [(250, 1000), (80_000, 3), (1, 270_000)]
# Contiguous, or so that rows have to be staged.
LAYOUTS = {
    "float32": lambda x: x,
    "strided float16": lambda x: np.repeat(x.astype(np.float16), 2, axis=-1)[..., ::2],
    "Fortran": np.asfortranarray,
}
WANTS = ("return_grad", "return_hess")


def calls(shape, layout):
    """Each function with everything that it can be asked for."""
    x = LAYOUTS[layout](np.full(shape, 0.25, np.float32))
    y = np.zeros(shape[0], np.int16)
    for name in F.__all__:
        if not inspect.isfunction(getattr(F, name)):
            continue
        parameters = inspect.signature(getattr(F, name)).parameters
        given = {}
        for argument in parameters:
            if argument in ("input", "inputs", "logits", "p", "q", "p_logits", "q_logits"):
                given[argument] = x
            elif argument in ("target", "targets"):
                of_classes = name in ("cross_entropy", "nll_loss", "token_log_prob")
                given[argument] = y if of_classes else x
        if "softmax" in name or name == "logsumexp":
            given["axis"] = 1
        wanted = dict.fromkeys(set(WANTS) & parameters.keys(), True)
        if name.startswith(("kl_divergence", "js_divergence")):
            wanted["return_grad"] = "both"
        yield name, given
        if wanted:
            yield name, {**given, **wanted}
        if "reduction" in parameters:
            yield name, {**given, **wanted, "reduction": "none"}
        if "softcap" in parameters:
            yield name, {**given, **wanted, "softcap": 5.0, "class_mask": np.ones(shape[1], bool)}
        if "weight" in parameters:
            weight = np.ones(shape[1])
            yield name, {**given, **wanted, "weight": weight}


def size():
    """Bytes of address space in use."""
    with open("/proc/self/statm") as file:
        return int(file.read().split()[0]) * resource.getpagesize()


def digest(answer):
    """What there is of an answer, in a few numbers."""
    leaves = answer if isinstance(answer, tuple) else (answer,)
    return [np.asarray(leaf).ravel()[:: max(1, np.size(leaf) // 50)].tobytes() for leaf in leaves]


def limited(call, room):
    """The answer, or None where memory was not enough."""
    _, hard = resource.getrlimit(resource.RLIMIT_AS)
    resource.setrlimit(resource.RLIMIT_AS, (size() + 1024 * room, hard))
    try:
        return call()
    except MemoryError:
        return None
    finally:
        resource.setrlimit(resource.RLIMIT_AS, (hard, hard))


def main(layout, threads):
    crossent.set_num_threads(threads)
    ended = {}
    for shape in SHAPES:
        for name, arguments in calls(shape, layout):

            def call(name=name, arguments=arguments):
                return getattr(F, name)(**arguments)

            want = digest(call())
            for room in ROOM:
                got = limited(call, room)
                counts = ended.setdefault(name, [0, 0])
                counts[got is None] += 1
                if got is not None:
                    assert digest(got) == want, name
                del got
            assert digest(call()) == want, name
    for name, (right, refused) in ended.items():
        print(f"{name:34} {right:4} right {refused:4} refused")


if __name__ == "__main__":
    if "MALLOC_MMAP_THRESHOLD_" not in os.environ:
        # What was freed goes back to the system, where glibc would keep it for the next call.
        os.environ["MALLOC_MMAP_THRESHOLD_"] = "65536"
        os.execv(sys.executable, [sys.executable, *sys.argv])
    main(sys.argv[1], int(sys.argv[2]))
