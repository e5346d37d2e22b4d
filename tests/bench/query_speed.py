"""Times `cacheon query` against DuckDB on the same files, in one run on one machine.

    cargo build --release --example make_rounds --bin cacheon
    target/release/examples/make_rounds DIRECTORY ROUNDS ROWS        (for each directory)
    pip install duckdb
    python tests/bench/query_speed.py target/release/cacheon DIRECTORY [DIRECTORY ...]

Each question is asked once to warm up (cacheon takes the digests of the files then) and REPEATS times after that, the
two programs in turn, each in a process of its own. Of cacheon the whole process is timed; of DuckDB only the query,
without the start of Python. Memory is the largest resident set of the process, which counts pages of the files that are
mapped. Answers are compared, so that both did the same work. Prints a table in Markdown.
"""

import json
import os
import statistics
import subprocess
import sys
import tempfile
import time

REPEATS = int(os.environ.get("REPEATS", "5"))
QUESTIONS = [
    ("count", "SELECT COUNT(*) AS n FROM tokens"),
    ("mean of one column", "SELECT AVG(server_logprob) AS mean FROM tokens"),
    (
        "means by round",
        "SELECT round_id, COUNT(*) AS n, AVG(scorer_logprob) AS mean, MAX(arrival_ns) AS last FROM tokens "
        "GROUP BY round_id ORDER BY round_id",
    ),
    (
        "filter, group by read",
        "SELECT read_key, COUNT(*) AS n, MIN(scorer_logprob) AS worst FROM tokens WHERE scorer_rank > 3 "
        "GROUP BY read_key ORDER BY read_key",
    ),
    (
        "one read of one round",
        "SELECT COUNT(*) AS n, AVG(arrival_ns) AS mean FROM tokens "
        "WHERE round_id = 'bench-0001' AND read_key = '0003-candidate-5Grwva'",
    ),
    ("ten rows", "SELECT token_id FROM tokens LIMIT 10"),
]
DUCKDB = """
import json, sys, time, duckdb
directory, sql = sys.argv[1:]
connection = duckdb.connect()
# It would go to standard output.
connection.execute("SET enable_progress_bar = false")
start = time.perf_counter()
connection.execute(f"CREATE VIEW tokens AS SELECT * FROM '{directory}/rounds/round=*/results/tokens.parquet'")
answer = connection.execute(sql)
rows = answer.fetchall()
seconds = time.perf_counter() - start
names = [column[0] for column in answer.description]
print(json.dumps({"seconds": seconds, "rows": [dict(zip(names, row)) for row in rows]}))
"""


def run(command):
    """Wall time in s, peak resident set in bytes, and standard output of a command."""
    with tempfile.TemporaryFile() as out:
        start = time.perf_counter()
        process = subprocess.Popen(command, stdout=out)
        _, status, usage = os.wait4(process.pid, 0)
        seconds = time.perf_counter() - start
        process.returncode = os.waitstatus_to_exitcode(status)
        if process.returncode != 0:
            sys.exit(f"{command}: exit code {process.returncode}")
        out.seek(0)
        return seconds, usage.ru_maxrss * 1024, out.read()


def ask_cacheon(program, directory, sql):
    seconds, memory, out = run([program, "--data", directory, "query", "--json", sql])
    return seconds, memory, json.loads(out)


def ask_duckdb(directory, sql):
    _, memory, out = run([sys.executable, "-c", DUCKDB, directory, sql])
    answer = json.loads(out)
    return answer["seconds"], memory, answer["rows"]


def check_same(sql, ours, theirs):
    if "LIMIT" in sql:
        ours, theirs = len(ours), len(theirs)
    else:
        rounded = lambda rows: [
            {name: float(f"{value:.9g}") if isinstance(value, (int, float)) else value for name, value in row.items()}
            for row in rows
        ]
        ours, theirs = rounded(ours), rounded(theirs)
    if ours != theirs:
        sys.exit(f"{sql}: the answers differ: {str(ours)[:300]} and {str(theirs)[:300]}")


def machine():
    model = "unknown processor"
    with open("/proc/cpuinfo") as lines:
        for line in lines:
            if line.startswith("model name"):
                model = line.split(":", 1)[1].strip()
    gib = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    load = os.getloadavg()[0]
    return f"{os.cpu_count()} logical processors ({model}), {gib:.0f} GiB; load {load:.1f} at the start"


def main():
    import duckdb

    program, directories = sys.argv[1], sys.argv[2:]
    print(f"{machine()}; DuckDB {duckdb.__version__}; median of {REPEATS}\n")
    print("| rounds | rows | question | cacheon s | DuckDB s | ratio | cacheon MiB | DuckDB MiB |")
    print("|---:|---:|---|---:|---:|---:|---:|---:|")
    for directory in directories:
        rounds = len(os.listdir(os.path.join(directory, "rounds")))
        _, _, counted = ask_cacheon(program, directory, QUESTIONS[0][1])
        for name, sql in QUESTIONS:
            check_same(sql, ask_cacheon(program, directory, sql)[2], ask_duckdb(directory, sql)[2])
            ours, theirs = [], []
            for _ in range(REPEATS):
                ours.append(ask_cacheon(program, directory, sql)[:2])
                theirs.append(ask_duckdb(directory, sql)[:2])
            times = [statistics.median(run[0] for run in runs) for runs in (ours, theirs)]
            peaks = [max(run[1] for run in runs) / 2**20 for runs in (ours, theirs)]
            print(
                f"| {rounds} | {counted[0]['n']:,} | {name} | {times[0]:.2f} | {times[1]:.2f} | "
                f"{times[0] / times[1]:.2f} | {peaks[0]:.0f} | {peaks[1]:.0f} |",
                flush=True,
            )


main()
