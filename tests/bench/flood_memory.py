"""Measures what a flooding server costs the client: python3 tests/bench/flood_memory.py target/debug/cacheon

For each kind of flood it runs a round of one read of 16 answers against a server that sends it (this script again), with
the demo's tokenizer and `max-tokens` of 32, 128 and 4096, and prints the program's peak memory (the children's are not
counted), how much of it is beside the floor, its processor time, the wall time, and how the requests ended. An honest
server, which sends exactly `max-tokens` tokens, stands beside them. The floor is the peak of a run whose server sends
nothing: the program itself, its tokenizer and its prompts. Others may use the machine meanwhile: memory is measured here.
Standard library only.
"""

import hashlib
import http.server
import itertools
import json
import os
import pathlib
import re
import subprocess
import sys
import tempfile
import time

PROMPTS = 16
MAX_TOKENS = [32, 128, 4096]
FLOOR = "nothing"
FLOODS = ["honest", "text", "one-event", "letters", "bytes", "events", "comments", "entries", "line", "within",
          "choices", "calls"]
ROOT = pathlib.Path(__file__).resolve().parents[2]


def event(text, entries=0, **more):
    entry = {"token": "a", "logprob": -0.1234567, "bytes": [97]}
    entry["top_logprobs"] = [entry.copy() for _ in range(2)]
    choice = {"index": 0, "delta": {"content": text}, "logprobs": {"content": [entry] * entries}, "finish_reason": None}
    return b"data: " + json.dumps({"object": "chat.completion.chunk", "choices": [choice | more]}).encode() + b"\n\n"


def pieces(kind, max_tokens):
    """The body's pieces, each written and flushed on its own."""
    end = event("", finish_reason="length") + b"data: [DONE]\n\n"
    if kind == FLOOR:
        return
    if kind == "honest":
        yield from (event("a", 1) for _ in range(max_tokens))
    elif kind == "text":  # 1 MiB of words, 64 bytes an event
        yield from (event("a b c d " * 8) for _ in range(1 << 14))
    elif kind == "one-event":
        yield event("a b c d " * (1 << 17))
    elif kind == "letters":  # a letter an event
        yield from (event("a") for _ in range(1 << 17))
    elif kind == "bytes":
        yield from (b"x" for _ in range(1 << 20))
    elif kind == "events":
        yield from (b"data: {}\n\n" * 1000 for _ in range(1 << 10))
    elif kind == "comments":
        yield from (b":\n" * 1000 for _ in range(1 << 10))
    elif kind == "entries":
        yield from (event("a", 64) for _ in range(1 << 12))
    elif kind == "line":
        yield from (b"x" * (1 << 16) for _ in range(1 << 8))
    elif kind == "within":  # the most text that is let in, in as many tokens as can be
        yield from (event("a " * 32, 1) for _ in range(min(max_tokens, 2000)))
    elif kind == "choices":  # three bytes of JSON for each
        yield b'data: {"choices":[' + b",".join([b"{}"] * (1 << 18)) + b"]}\n\n"
    elif kind == "calls":
        yield b'data: {"choices":[{"delta":{"tool_calls":[' + b",".join([b"{}"] * (1 << 18)) + b"]}}]}\n\n"
    yield end


class Server(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_message(self, *_):
        pass

    def do_GET(self):
        self.send_response(200)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def do_POST(self):
        asked = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        self.send_response(200)
        kind, max_tokens = os.environ["FLOOD"], int(os.environ["FLOOD_TOKENS"])
        self.send_header("Content-Type", "text/event-stream")
        self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()
        self.close_connection = True
        if kind == FLOOR and asked["max_tokens"] == 1:  # whoever does not answer this one is not ready
            kind, max_tokens = "honest", 1
        try:
            for piece in pieces(kind, max_tokens):
                self.wfile.write(b"%x\r\n%s\r\n" % (len(piece), piece))
            self.wfile.write(b"0\r\n\r\n")
        except OSError:
            pass


def files(folder, kind, max_tokens):
    """A round of one read, its runner and image in a folder."""
    (folder / "images").mkdir()
    (folder / "runners").mkdir()
    image = {
        "description": "a flood",
        "command": [sys.executable, str(pathlib.Path(__file__).resolve()), "serve"],
        "env": {"FLOOD": kind, "FLOOD_TOKENS": str(max_tokens), "FLOOD_PORT": "{port}"},
    }
    text = json.dumps(image)
    (folder / "images" / "flood.json").write_text(text)
    digest = "sha256:" + hashlib.sha256(text.encode()).hexdigest()
    (folder / "runners" / "here.yml").write_text(
        f"name: here\nlabels: [local]\nplace: local\nengine: process\nimages: {folder}/images\n"
        f"model-dir: {ROOT}/data/reference\ncapacity: 1\n"
    )
    read = json.dumps({
        "key": "0000-flood", "arm": "candidate", "hotkey": "5GrwvaEF5zXb26Fz9rcQpDWS57CtERHpNehXCPcNoHGKutQY",
        "image": "flood", "digest": digest, "position": 0, "sequence": "here",
    })
    (folder / "pipeline.yml").write_text(f"""name: flood
jobs:
  measure:
    runs-on: here
    steps:
      - id: boot
        uses: boot
        with: {{ image: flood, digest: "{digest}", deadline: 10s }}
      - uses: benchmark
        with:
          endpoint: ${{{{ steps.boot.outputs.endpoint }}}}
          read: {read}
          prompts: {PROMPTS}
          max-tokens: {max_tokens}
          request-deadline: 120s
          max-client-lag: 10s
          max-foreign-cpu: 1.0
          max-stall: 1.0
""")


def programs_of(parent, program):
    """The process and those below it that run the same program: one of them is the job's, and the load client is in it."""
    below = [parent]
    for pid in below:
        for children in pathlib.Path(f"/proc/{pid}/task").glob("*/children"):
            try:
                below += [int(child) for child in children.read_text().split()]
            except OSError:
                pass
    for pid in below:
        try:
            if os.readlink(f"/proc/{pid}/exe") == program:
                yield pid
        except OSError:
            pass


def measured(program, kind, max_tokens):
    with tempfile.TemporaryDirectory() as name:
        folder = pathlib.Path(name)
        files(folder, kind, max_tokens)
        command = [program, "--data", str(folder / "data"), "run", str(folder / "pipeline.yml"),
                   "--runners", str(folder / "runners"), "--round", "r"]
        start = time.perf_counter()
        with open(folder / "said", "w+") as said:
            process = subprocess.Popen(command, cwd=ROOT, stdout=said, stderr=said)
            peaks, times = {}, {}
            while process.poll() is None:
                for pid in programs_of(process.pid, program):
                    try:
                        status = pathlib.Path(f"/proc/{pid}/status").read_text()
                        stat = pathlib.Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
                    except OSError:
                        continue
                    if found := re.search(r"VmHWM:\s*(\d+) kB", status):
                        peaks[pid] = int(found[1]) / 1024
                        times[pid] = (int(stat[11]) + int(stat[12])) / os.sysconf("SC_CLK_TCK")
                time.sleep(0.01)
            said.seek(0)
            words = said.read()
        wall = time.perf_counter() - start
        journal = folder / "data/rounds/round=r/journal.jsonl"
        failed = re.search(r'"failed":(\d+)', journal.read_text() if journal.exists() else "")
        ends = f"{failed[1]} of {PROMPTS} failed" if failed else f"no read: {words.strip()[-300:]}"
        return max(peaks.values(), default=0), sum(times.values()), wall, ends


def main(program):
    program = str(pathlib.Path(program).resolve())
    print(f"{'flood':>10} {'max-tokens':>10} {'peak MiB':>9} {'beside':>6} {'cpu s':>6} {'wall s':>6}  requests")
    floor = None
    for kind, max_tokens in [(FLOOR, MAX_TOKENS[0])] + list(itertools.product(FLOODS, MAX_TOKENS)):
        peak, cpu, wall, ends = measured(program, kind, max_tokens)
        floor = peak if floor is None else floor
        print(f"{kind:>10} {max_tokens:>10} {peak:9.0f} {peak - floor:6.0f} {cpu:6.1f} {wall:6.1f}  {ends}", flush=True)


if __name__ == "__main__":
    if sys.argv[1:] == ["serve"]:
        http.server.ThreadingHTTPServer(("127.0.0.1", int(os.environ["FLOOD_PORT"])), Server).serve_forever()
    elif len(sys.argv) == 2:
        main(sys.argv[1])
    else:
        sys.exit(__doc__)
