"""Measures the reference server's variants: python3 tests/bench/reference_speed.py target/release/cacheon

For each set of flags it starts a server, sends the same greedy requests one after the other (streamed, no logprobs)
and prints medians: time to first token, end to end, and decoding speed (tokens after the first over the time after
the first); and the processor time a request takes, which says more than the clock on a busy machine. It then has a plain server score the answers (teacher forcing) and prints how far the logprobs differ.
Standard library only.
"""

import http.client
import json
import math
import os
import pathlib
import statistics
import subprocess
import sys
import time

PROMPTS = 24
WARM_UP = 4
VARIANTS = [
    ("--prefill token", "prompt token by token"),
    ("", "prefill block"),
    ("--speculate 5", "prompt lookup"),
    ("--speculate 5 --history 2048", "and lookup in earlier answers"),
    ("--threads 2", "two threads"),
    ("--decode recompute", "no cache of keys and values"),
    ("--summation blocked", "blocked sums"),
    ("--dtype f16", "f16"),
    ("--dtype bf16", "bf16"),
    ("--cheat int8-weights", "8-bit weights"),
    ("--cheat int4-weights", "4-bit weights"),
    ("--cheat other-weights", "the draft model"),
]


class Server:
    def __init__(self, program, flags):
        command = [program, "reference", "serve", "--port", "0", *flags.split()]
        self.process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
        for line in self.process.stderr:
            if "listening on " in line:
                digits = line.split("listening on ")[1].split(":")[1]
                port = int("".join(c for c in digits.split()[0].split("\x1b")[0] if c.isdigit()))
                break
        self.connection = http.client.HTTPConnection("127.0.0.1", port)
        while self.call("GET", "/health")[0] != 200:
            time.sleep(0.01)

    def call(self, method, path, body=None):
        self.connection.request(method, path, json.dumps(body) if body else None)
        response = self.connection.getresponse()
        text = response.read()
        return response.status, json.loads(text) if text else None

    def cpu_seconds(self):
        fields = pathlib.Path(f"/proc/{self.process.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    def stop(self):
        self.process.terminate()
        self.process.wait()


def timed(server, prompt):
    body = {"messages": [{"role": "user", "content": prompt}], "stream": True,
            "stream_options": {"include_usage": True}, "max_tokens": 200}
    start = time.perf_counter()
    server.connection.request("POST", "/v1/chat/completions", json.dumps(body))
    response = server.connection.getresponse()
    first = last = usage = None
    for line in response:
        if line.startswith(b"data: {"):
            event = json.loads(line[6:])
            if event.get("usage"):
                usage = event["usage"]
            elif event["choices"][0]["delta"].get("content") or event["choices"][0]["finish_reason"]:
                last = time.perf_counter()
                first = first or last
    return first - start, last - start, usage


def scored(server, scorer, prompt):
    body = {"messages": [{"role": "user", "content": prompt}]}
    _, head = server.call("POST", "/tokenize", body)
    body |= {"logprobs": True, "return_tokens_as_token_ids": True, "max_tokens": 200}
    _, answer = server.call("POST", "/v1/chat/completions", body)
    own = answer["choices"][0]["logprobs"]["content"]
    ids = [int(entry["token"].removeprefix("token_id:")) for entry in own]
    body = {"prompt": head["tokens"] + ids, "max_tokens": 0, "prompt_logprobs": 1}
    _, answer = scorer.call("POST", "/v1/completions", body)
    forced = answer["choices"][0]["prompt_logprobs"][len(head["tokens"]):]
    for mine, entry, token in zip(own, forced, ids):
        found = entry[str(token)]
        best = max(value["logprob"] for value in entry.values())
        yield mine["logprob"] - found["logprob"], best - found["logprob"], found["rank"]


def main():
    program = sys.argv[1]
    corpus = [program, "reference", "corpus", "--seed", "77", "--count", str(PROMPTS)]
    lines = subprocess.run(corpus, capture_output=True, text=True, check=True).stdout.splitlines()
    prompts = [json.loads(line)["prompt"] for line in lines]
    scorer = Server(program, "")
    print(f"{'flags':30} {'TTFT ms':>8} {'E2E ms':>8} {'CPU ms':>7} {'tok/s':>7} {'rms dlp':>9} {'max dlp':>9} {'flips':>7} {'max gap':>8}")
    for flags, _ in VARIANTS:
        server = Server(program, flags)
        for prompt in prompts[:WARM_UP]:
            timed(server, prompt)
        before = server.cpu_seconds()
        runs = [timed(server, prompt) for prompt in prompts]
        work = (server.cpu_seconds() - before) / PROMPTS
        tokens = [list(scored(server, scorer, prompt)) for prompt in prompts]
        server.stop()
        speed = [(usage["completion_tokens"] - 1) / (last - first) for first, last, usage in runs]
        flat = [token for answer in tokens for token in answer]
        rms = math.sqrt(sum(difference**2 for difference, _, _ in flat) / len(flat))
        print(
            f"{flags or '(none)':30} {1e3 * statistics.median(run[0] for run in runs):8.2f} "
            f"{1e3 * statistics.median(run[1] for run in runs):8.2f} {1e3 * work:7.1f} "
            f"{statistics.median(speed):7.0f} {rms:9.2e} "
            f"{max(abs(difference) for difference, _, _ in flat):9.2e} "
            f"{sum(rank > 1 for _, _, rank in flat) / len(flat):7.4f} {max(gap for _, gap, _ in flat):8.3f}",
            flush=True,
        )
    usages = [usage for _, _, usage in runs]
    print("chat prompt tokens", *quartiles([usage["prompt_tokens"] for usage in usages]))
    scorer.stop()


def quartiles(values):
    return min(values), statistics.median(values), max(values)


if __name__ == "__main__":
    main()
