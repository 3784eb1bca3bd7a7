"""Processes that fork and spawn, threads that meet in one call, limits of a container, memory that
runs out, Ctrl-C: each in a process of its own where it could end one.
"""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from subprocesses import printed

import crossent.functional as F

LINUX = pytest.mark.skipif(sys.platform != "linux", reason="what Linux offers")


WORK = """
import multiprocessing, os, sys, threading, time
import numpy as np
import crossent, crossent.functional as F

def work():
    "What several threads share, with an answer that is known: log 1000 for every row."
    x = np.zeros((2000, 1000), np.float32)
    loss, grad = F.cross_entropy(x, np.arange(2000) % 1000, return_grad=True)
    assert abs(loss / np.log(1000) - 1) < 3e-7, loss
    assert grad[3, 3] < 0 < grad[3, 4], grad[3, :5]
    return float(loss)

def workers(due=0):
    "How many threads there are of crossent's own. One that is due has its name when it has run."
    for _ in range(1000):
        tasks = [f"/proc/self/task/{task}/comm" for task in os.listdir("/proc/self/task")]
        count = sum(open(task).read().startswith("crossent-") for task in tasks)
        if count >= due:
            break
        time.sleep(0.01)
    return count
"""


CHILDREN = (
    WORK
    + """
def answer(connection):
    connection.send(work())
    connection.close()

def main(method, before):
    crossent.set_num_threads(3)
    context = multiprocessing.get_context(method)
    stop = threading.Event()
    if before != "no call":
        work()
    busy = threading.Thread(target=lambda: [work() for _ in iter(stop.is_set, True)])
    if before == "a call going on":
        busy.start()
    for _ in range(3):
        ours, theirs = context.Pipe()
        child = context.Process(target=answer, args=(theirs,))
        child.start()
        theirs.close()
        answered = ours.poll(120)
        there = ours.recv() if answered else None
        if not answered:
            child.kill()
        child.join(120)
        assert answered, "the child hangs"
        assert child.exitcode == 0
        assert there == work()
    stop.set()
    if before == "a call going on":
        busy.join()
    print("done")

if __name__ == "__main__":
    main(*sys.argv[1:])
"""
)


@pytest.mark.parametrize("before", ["no call", "a call", "a call going on"])
@pytest.mark.parametrize("method", ["fork", "spawn", "forkserver"])
def test_child_processes(method, before, tmp_path):
    """A pool of threads does not survive a fork: the child must not wait for it."""
    script = tmp_path / "parent.py"
    script.write_text(CHILDREN)
    assert printed(str(script), method, before).split() == ["done"]


@LINUX
def test_a_child_has_threads_of_its_own():
    script = WORK + (
        "crossent.set_num_threads(3)\n"
        "work()\n"
        "assert workers(2) == 2, workers()\n"
        "child = os.fork()\n"
        "if child == 0:\n"
        "    assert workers() == 0, workers()\n"
        "    work()\n"
        "    os._exit(workers(2))\n"
        "print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), workers(2))\n"
    )
    assert printed(script).split() == ["2", "2"]


RACE = (
    WORK
    + """
import math
from guarded import Guarded

crossent.set_num_threads(2)
ROWS, CLASSES, GUARD = 3000, 100, 4096

def strips(dtype, fill):
    "An array between two strips of memory that nobody may write to."
    memory = np.full(2 * GUARD + ROWS * CLASSES, fill, dtype)
    return memory, memory[GUARD:-GUARD].reshape(ROWS, CLASSES)

def fenced(dtype, *shape):
    "An array that ends at a page which nobody may read."
    count = np.dtype(dtype).itemsize * math.prod(shape)
    return Guarded(count).bytes(count, "end").view(dtype).reshape(shape)

def intact(memory, fill):
    return np.all(memory[:GUARD] == fill) and np.all(memory[-GUARD:] == fill)

def race(dtype, calls):
    bounds = np.iinfo(dtype)
    # The last is within the page behind the last row, and behind the weights.
    wrong = [bounds.max, bounds.min, CLASSES, min(bounds.max, CLASSES + 500)]
    x, weight = fenced(np.float32, ROWS, CLASSES), fenced(np.float64, CLASSES)
    x[:], weight[:] = 3, 1
    grad_memory, grad = strips(np.float32, 7)
    rng = np.random.default_rng(bounds.bits)
    right = rng.integers(0, CLASSES, ROWS).astype(dtype)
    target = right.copy()
    stop = threading.Event()

    def write():
        places = np.append(rng.integers(0, ROWS, 64), [0, ROWS - 1])
        while not stop.is_set():
            for value in wrong:
                target[places] = value
                x[places] = np.float32(np.inf)
            target[places] = right[places]
            x[places] = 1

    outcomes, ones = set(), np.ones(ROWS)

    def call(i):
        for repeat in range(calls):
            door = (i + repeat) % 5
            try:
                if door == 0:
                    F.cross_entropy(x, target, reduction="none")
                elif door == 1:
                    F.cross_entropy(x, target, weight, grad_out=grad)
                elif door == 2:
                    F.nll_loss(x, target, weight, grad_out=grad)
                elif door == 3:
                    F.token_log_prob(x, target, grad_out=grad)
                else:
                    F.cross_entropy(x.T, target, axis=0, sample_weight=ones, return_grad=True)
                outcomes.add("answered")
            except IndexError as error:
                assert str(error).startswith("target["), error
                outcomes.add("refused")

    writer = threading.Thread(target=write)
    callers = [threading.Thread(target=call, args=(i,)) for i in range(6)]
    failures = []
    threading.excepthook = lambda info: failures.append(info.exc_value)
    for thread in (writer, *callers):
        thread.start()
    for thread in callers:
        thread.join()
    stop.set()
    writer.join()
    assert not failures, failures
    assert intact(grad_memory, 7)
    return outcomes

outcomes = set()
for bits in (8, 16, 32, 64):
    for sign in ("", "u"):
        outcomes |= race(np.dtype(f"{sign}int{bits}"), 40)
print(*sorted(outcomes))
"""
)


@LINUX
def test_targets_that_another_thread_changes():
    """A class index is copied, checked and used: one that changes meanwhile is never an address."""
    outcomes = printed(RACE).split()
    assert set(outcomes) <= {"answered", "refused"}
    assert "refused" in outcomes


@LINUX
def test_threads_that_cannot_be_started():
    """Then the calling thread does the work alone; once threads can be had, they are."""
    script = WORK + (
        "import resource\n"
        "want = work()\n"
        "child = os.fork()\n"
        "if child == 0:\n"
        # For root there is no such limit: another user has it.
        "    if os.getuid() == 0:\n"
        "        os.setgid(54321)\n"
        "        os.setuid(54321)\n"
        "    _, hard = resource.getrlimit(resource.RLIMIT_NPROC)\n"
        "    resource.setrlimit(resource.RLIMIT_NPROC, (1, hard))\n"
        "    try:\n"
        "        threading.Thread(target=print).start()\n"
        "        os._exit(1)\n"
        "    except RuntimeError:\n"
        "        pass\n"
        "    crossent.set_num_threads(4)\n"
        "    assert work() == want\n"
        "    assert workers() == 0\n"
        "    resource.setrlimit(resource.RLIMIT_NPROC, (hard, hard))\n"
        "    assert work() == want\n"
        "    os._exit(workers(3))\n"
        "print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))\n"
    )
    assert printed(script).split() == ["3"]


def cpus_of_quota(text):
    """The CPUs that the contents of a `cpu.max` allow, or None for any number."""
    quota, period = text.split()
    return None if quota == "max" else max(1, int(quota) // int(period))


def allowed_cpus():
    """What this system's own files say: affinity, and the quotas from our cgroup up to the root."""
    cpus = len(os.sched_getaffinity(0))
    found = re.search(r"^0::(.*)$", Path("/proc/self/cgroup").read_text(), re.M)
    group = Path("/sys/fs/cgroup") / found[1].strip("/") if found else None
    while group is not None and group.is_relative_to("/sys/fs/cgroup"):
        limit = group / "cpu.max"
        if limit.is_file():
            cpus = min(cpus, cpus_of_quota(limit.read_text()) or cpus)
        group = group.parent
    return cpus


THREADS = "import crossent; print(crossent.get_num_threads())"


@LINUX
def test_as_many_threads_as_cpus_are_allowed(monkeypatch):
    monkeypatch.delenv("CROSSENT_NUM_THREADS", raising=False)
    found = int(printed(THREADS))
    if re.search(r"^\d+:([^:]*,)?cpu(,[^:]*)?:", Path("/proc/self/cgroup").read_text(), re.M):
        assert found <= allowed_cpus()  # The first version's quota lies elsewhere.
    else:
        assert found == allowed_cpus()
    one = "import os; os.sched_setaffinity(0, {min(os.sched_getaffinity(0))}); "
    assert int(printed(one + THREADS)) == 1


# A control group with a quota of one CPU, in a mount namespace of its own, and Python in it.
GROUP = """
set -e
at=$1
shift
if grep -q "^0::" /proc/self/cgroup && mount -t cgroup2 none "$at" 2>/dev/null \\
    && grep -qw cpu "$at/cgroup.controllers"; then
    mount --move "$at" /sys/fs/cgroup
    at=/sys/fs/cgroup
    echo +cpu > "$at/cgroup.subtree_control"
    mkdir "$at/crossent-$$"
    echo "100000 100000" > "$at/crossent-$$/cpu.max"
else
    umount "$at" 2>/dev/null || true
    mount -t cgroup -o cpu none "$at"
    mkdir "$at/crossent-$$"
    echo 100000 > "$at/crossent-$$/cpu.cfs_period_us"
    echo 100000 > "$at/crossent-$$/cpu.cfs_quota_us"
fi
trap 'echo $$ > "$at/cgroup.procs"; rmdir "$at/crossent-$$"' EXIT
echo $$ > "$at/crossent-$$/cgroup.procs"
echo ready
"$@"
"""


def threads_behind_mounts(script, *arguments):
    """How many threads Python has after a script in a mount namespace, which says `ready`."""
    python = [sys.executable, "-c", THREADS]
    done = subprocess.run(
        ["unshare", "--mount", "bash", "-c", script, "bash", *arguments, *python],
        env={key: value for key, value in os.environ.items() if key != "CROSSENT_NUM_THREADS"},
        capture_output=True,
        text=True,
        timeout=120,
    )
    if "ready" not in done.stdout:
        pytest.skip(f"nothing can be mounted here: {done.stderr.strip()}")
    ready, threads = done.stdout.split()
    assert ready == "ready", done.stdout + done.stderr
    return int(threads)


@LINUX
def test_the_quota_of_a_control_group(tmp_path):
    """The kernel's own, where this process may make one."""
    assert threads_behind_mounts(GROUP, tmp_path) == 1


# Files as those of the second version's control groups, in a mount namespace of its own: whatever
# the kernel's own say, these are what Python there reads.
FILES = """
set -e
mount -t tmpfs none /sys/fs/cgroup
mkdir -p /sys/fs/cgroup/outer/inner
echo cpu > /sys/fs/cgroup/outer/inner/cgroup.controllers
echo "$1" > /sys/fs/cgroup/outer/cpu.max
echo "$2" > /sys/fs/cgroup/outer/inner/cpu.max
echo "0::/outer/inner" > "$3"
mount --bind "$3" /proc/$$/cgroup
shift 3
echo ready
exec "$@"
"""


@LINUX
@pytest.mark.parametrize(
    "outer, inner, cpus",
    [
        ("max 100000", "max 100000", None),
        ("max 100000", "100000 100000", 1),
        ("100000 100000", "max 100000", 1),
        ("100000 100000", "900000 100000", 1),
        ("max 100000", "150000 100000", 1),
        ("max 100000", "50000 100000", 1),
        ("200000 100000", "max 100000", 2),
        ("max 100000", "100000 50000", 2),
    ],
)
def test_quotas_of_the_second_version(outer, inner, cpus, tmp_path):
    allowed = len(os.sched_getaffinity(0))
    found = threads_behind_mounts(FILES, outer, inner, tmp_path / "cgroup")
    assert found == min(allowed, cpus or allowed)


def test_ctrl_c_ends_every_kind_of_long_call():
    """Those of many rows would go on for a quarter of a minute at least, those of one row for as
    long as the same call took before; the process computes on after it."""
    report = printed("interrupts.py")
    print(report)
    assert len(report.splitlines()) == 27


@LINUX
@pytest.mark.parametrize(
    "layout, threads", [("float32", 2), ("strided float16", 2), ("Fortran", 1)]
)
def test_memory_that_runs_out(layout, threads):
    """A MemoryError or the right answer, of every function, and the right answer after it."""
    report = printed("exhaustion.py", layout, str(threads))
    print(report)
    assert all(int(line.split()[3]) > 0 for line in report.splitlines())


def test_absurd_sizes():
    """Elements that are one in memory: what no machine holds the results of."""
    script = (
        "import numpy as np, crossent.functional as F\n"
        "x = np.lib.stride_tricks.as_strided(np.zeros(1, np.float16), (2**56, 2**5), (0, 0))\n"
        "y = np.lib.stride_tricks.as_strided(np.zeros(1, np.int8), (2**56,), (0,))\n"
        "calls = dict.fromkeys(('cross_entropy', 'nll_loss', 'token_log_prob'), (x, y))\n"
        "of_one = ('entropy', 'binary_entropy', 'entropy_with_logits', 'sigmoid', 'logsigmoid')\n"
        "calls.update(dict.fromkeys(of_one, (x,)))\n"
        "for name in F.__all__:\n"
        "    if name == 'TokenLogProb':\n"
        "        continue\n"
        "    given = calls.get(name, (x, x))\n"
        "    if name in ('softmax', 'log_softmax', 'logsumexp'):\n"
        "        given = (x, 1)\n"
        "    try:\n"
        "        getattr(F, name)(*given)\n"
        "    except MemoryError as error:\n"
        "        print(name)\n"
    )
    assert set(printed(script).split()) == set(F.__all__) - {"TokenLogProb"}
