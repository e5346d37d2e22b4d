"""Measures what a step costs beside its shell: python3 tests/bench/step_cost.py target/debug/cacheon

It runs rounds of `run: ":"` steps on the controller, many steps in one job and many legs of one step, and prints for
each the processor time of the program itself (user and system, without the shells it starts), what that is a step
above a round of one step, the wall time, and the flushes to disk (`strace -c`, in a run of its own). Beside it stands
the shell alone: as many `bash -c :` started by this script, and their own processor time.
Standard library only; `strace` if there is one.
"""

import os
import pathlib
import platform
import re
import shutil
import subprocess
import sys
import tempfile
import time

# The grammar takes files of 100,000 nodes and matrices of 10,000 legs.
STEPS = [100, 1_000, 10_000]
LEGS = [100, 1_000, 10_000]
TICK = os.sysconf("SC_CLK_TCK")


def steps(count):
    return "name: cost\njobs:\n  j:\n    runs-on: controller\n    steps:\n" + "      - run: ':'\n" * count


def legs(count):
    numbers = ", ".join(map(str, range(count)))
    return (
        "name: cost\njobs:\n  j:\n    runs-on: controller\n"
        f"    strategy: {{ max-parallel: 2, matrix: {{ n: [{numbers}] }} }}\n    steps: [{{ run: ':' }}]\n"
    )


def command(program, folder, text, round_id):
    (folder / "pipeline.yml").write_text(text)
    (folder / "runners").mkdir(exist_ok=True)
    return [program, "--data", "data", "run", "pipeline.yml", "--runners", "runners", "--round", round_id]


def measured(arguments, folder):
    """Processor seconds of the process, of its children, and wall seconds."""
    start = time.perf_counter()
    process = subprocess.Popen(arguments, cwd=folder, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
    words = process.stderr.read()
    # It has ended and is not reaped yet: only so are its own times and its children's told apart.
    os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)
    wall = time.perf_counter() - start
    fields = pathlib.Path(f"/proc/{process.pid}/stat").read_text().rpartition(")")[2].split()
    if process.wait() != 0:
        sys.exit(f"{' '.join(arguments)} failed:\n{words[-2000:]}")
    own, children = int(fields[11]) + int(fields[12]), int(fields[13]) + int(fields[14])
    return own / TICK, children / TICK, wall


def shells(count):
    """Processor milliseconds of one `bash -c :`, over `count` of them."""
    before = os.times()
    for _ in range(count):
        subprocess.run(["/bin/bash", "--noprofile", "--norc", "-c", ":"], check=True)
    after = os.times()
    used = after.children_user + after.children_system - before.children_user - before.children_system
    return 1e3 * used / count


def flushes(arguments, folder):
    if not shutil.which("strace"):
        return None
    report = folder / "strace.txt"
    calls = "fsync,fdatasync,syncfs"
    traced = ["strace", "-f", "-q", "-c", "-U", "calls,name", "-e", f"trace={calls}", "-o", str(report)]
    subprocess.run([*traced, *arguments], cwd=folder, capture_output=True, check=True)
    rows = re.findall(r"^\s*(\d+)\s+(?:fsync|fdatasync|syncfs)\s*$", report.read_text(), re.MULTILINE)
    return sum(map(int, rows))


def machine():
    model = "unknown processor"
    for line in pathlib.Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            model = line.partition(":")[2].strip()
            break
    return f"{model}, {os.cpu_count()} processors, Linux {platform.release()}"


def main():
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    program = str(pathlib.Path(sys.argv[1]).resolve())
    print(f"machine: {machine()}; load before: {os.getloadavg()[0]:.2f}")
    print(f"program: {pathlib.Path(program).stat().st_size / 1e6:.0f} MB, {sys.argv[1]}")
    # Removed at the end: a file system that has just lost many files makes new ones slowly.
    with tempfile.TemporaryDirectory() as name:
        folder = pathlib.Path(name)
        fixed = min(measured(command(program, folder, steps(1), f"one-{turn}"), folder)[0] for turn in range(3))
        print(f"a round of one step: {1e3 * fixed:.0f} ms of processor time\n")
        columns = ["round", "own CPU s", "wall s", "own CPU ms/step", "children ms/step", "shell alone ms", "own/shell", "flushes"]
        print("| " + " | ".join(columns) + " |")
        print("|" + "---|" * len(columns))
        for kind, make, counts in (("steps of a job", steps, STEPS), ("legs of a step", legs, LEGS)):
            for count in counts:
                label = f"{kind.split()[0]}-{count}"
                own, children, wall = measured(command(program, folder, make(count), label), folder)
                shell = shells(min(count, 1_000))
                counted = flushes(command(program, folder, make(count), f"{label}-flushes"), folder) if count <= 1_000 else None
                each = 1e3 * (own - fixed) / count
                row = [f"{count:,} {kind}", f"{own:.2f}", f"{wall:.2f}", f"{each:.2f}", f"{1e3 * children / count:.2f}",
                       f"{shell:.2f}", f"{each / shell:.2f}", "-" if counted is None else f"{counted:,}"]
                print("| " + " | ".join(row) + " |", flush=True)


if __name__ == "__main__":
    main()
