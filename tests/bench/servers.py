#!/usr/bin/env python3
"""Our server beside the Python one: the same client, the same run. The client does as little as it
can, since what it needs for itself is counted too.

    python3 servers.py OURS [PYTHON]      programs: swerex-remote of this project, and of the package

Prints a table of medians, and requests per second with wrk where it is installed.
"""

import json
import os
import re
import shutil
import socket
import subprocess
import sys
import threading
import time

BIG = ("x" * 79 + "\n") * 131072  # 10 MiB
MEMORY = "/dev/shm" if os.access("/dev/shm", os.W_OK) else "/tmp"  # files there are not the disk's
FOLDER = f"{MEMORY}/swerex-bench-{os.getpid()}"


def receive(connection):
    """The body of an answer, whose length the head must tell."""
    text = b""
    while b"\r\n\r\n" not in text:
        more = connection.recv(1 << 16)
        if not more:
            raise ConnectionError("closed before an answer")
        text += more
    head, _, body = text.partition(b"\r\n\r\n")
    assert b" 200 " in head[:16], text[:500]
    size, at = int(re.search(rb"(?i)content-length: *(\d+)", head)[1]), len(body)
    whole = memoryview(bytearray(size))
    whole[:at] = body
    while at < size:
        n = connection.recv_into(whole[at:])
        if n == 0:
            raise ConnectionError("closed in the middle of an answer")
        at += n
    return whole


class Server:
    """A server that runs, and connections to it."""

    def __init__(self, program):
        with socket.socket() as s:
            s.bind(("127.0.0.1", 0))
            self.port = s.getsockname()[1]
        env = {**os.environ, "HOME": "/nonexistent", "TERM": "dumb"}
        start = time.perf_counter()
        self.process = subprocess.Popen(
            [program, "--host", "127.0.0.1", "--port", str(self.port), "--auth-token", "t"],
            env=env, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        while True:
            try:
                self.call("GET", "/is_alive")
                break
            except OSError:
                time.sleep(0.001)
        self.start_time = time.perf_counter() - start

    def connect(self):
        connection = socket.create_connection(("127.0.0.1", self.port), timeout=120)
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        return connection

    def call(self, method, path, body=b"", connection=None):
        own = connection or self.connect()
        data = body if isinstance(body, bytes) else json.dumps(body).encode()
        head = (f"{method} {path} HTTP/1.1\r\nHost: 127.0.0.1\r\nX-API-Key: t\r\n"
                f"Content-Type: application/json\r\nContent-Length: {len(data)}\r\n\r\n").encode()
        if len(data) < 1 << 16:
            own.sendall(head + data)
        else:
            own.sendall(head)
            own.sendall(data)
        answer = receive(own)
        if connection is None:
            own.close()
        return answer

    def create(self, name):
        self.call("POST", "/create_session", {"session": name, "session_type": "bash", "startup_timeout": 30})

    def run(self, name, command, connection=None):
        action = {"session": name, "command": command, "action_type": "bash", "timeout": 600}
        return self.call("POST", "/run_in_session", action, connection)

    def memory(self):
        """Resident KiB of the server and its helpers."""
        pids, total = [self.process.pid], 0
        while pids:
            pid = pids.pop()
            try:
                with open(f"/proc/{pid}/smaps_rollup") as f:
                    total += int(re.search(r"^Pss: +(\d+)", f.read(), re.M)[1])
                with open(f"/proc/{pid}/task/{pid}/children") as f:
                    pids += map(int, f.read().split())
            except OSError:
                pass
        return total

    def stop(self):
        self.process.terminate()
        self.process.wait(30)


def median(function, times):
    spent = []
    for _ in range(times):
        start = time.perf_counter()
        function()
        spent.append(time.perf_counter() - start)
    return sorted(spent)[times // 2] * 1e3


def once(function):
    start = time.perf_counter()
    function()
    return (time.perf_counter() - start) * 1e3


def together(functions):
    threads = [threading.Thread(target=f) for f in functions]
    for t in threads:
        t.start()
    for t in threads:
        t.join()


def sleepers(server):
    """8 sessions x sleep 1; returns the time of all, and the slowest /is_alive meanwhile."""
    names = [f"sleep{i}" for i in range(8)]
    for name in names:
        server.create(name)
    slowest = [0.0]
    over = threading.Event()

    def watch():
        while not over.is_set():
            slowest[0] = max(slowest[0], once(lambda: server.call("GET", "/is_alive")))
            time.sleep(0.02)

    watcher = threading.Thread(target=watch)
    watcher.start()
    spent = once(lambda: together([lambda n=n: server.run(n, "sleep 1") for n in names]))
    over.set()
    watcher.join()
    return spent, slowest[0]


def measure(server, ours):
    """All rows of one server: name -> value. Each row of calls shares one connection."""
    rows, more = {}, 9 if ours else 3
    rows["start"] = server.start_time * 1e3
    time.sleep(0.2)
    rows["memory"] = server.memory() / 1024
    names = iter(range(1000))
    rows["create"] = median(lambda: server.create(f"c{next(names)}"), more)
    server.create("s")

    def calls(call, times):
        connection = server.connect()
        spent = median(lambda: call(connection), times)
        connection.close()
        return spent

    def post(route, **body):
        data = json.dumps(body).encode()
        return lambda connection: server.call("POST", route, data, connection)

    rows["true"] = calls(lambda c: server.run("s", "true", c), 300 if ours else 9)
    rows["echo"] = calls(lambda c: server.run("s", "echo hi", c), 300 if ours else 9)
    rows["execute"] = calls(post("/execute", command=["true"]), 200 if ours else 50)
    rows["sleep"], rows["alive"] = sleepers(server)
    for size in (1, 10):
        command = f"head -c {size}000000 {FOLDER}/big"
        rows[f"out{size}"] = once(lambda: server.run("s", command))
    rows["write"] = calls(post("/write_file", path=f"{FOLDER}/file", content=BIG), 5)
    rows["read"] = calls(post("/read_file", path=f"{FOLDER}/file"), 5)
    return rows


def loopback():
    """What 10 MiB through a local connection take."""
    listener = socket.create_server(("127.0.0.1", 0))
    data = BIG.encode()

    def swallow():
        peer, _ = listener.accept()
        left = len(data)
        while left:
            left -= len(peer.recv(1 << 16))
        peer.sendall(b"x")

    def send():
        thread = threading.Thread(target=swallow)
        thread.start()
        with socket.create_connection(listener.getsockname()) as s:
            s.sendall(data)
            s.recv(1)
        thread.join()

    return median(send, 5)


def spawn():
    """A bare posix_spawn and wait, from a small process such as this."""
    path = shutil.which("true")
    return median(lambda: os.waitpid(os.posix_spawn(path, ["true"], os.environ), 0), 200)


ROWS = [  # key, what, unit, target, what limits it
    ("start", "server start to first answer", "ms", "under 10", None),
    ("memory", "memory of the idle server (PSS)", "MB", "under 2", None),
    ("size", "size of what goes into an image", "KB", "under 500", None),
    ("create", "create_session", "ms", "under 10", None),
    ("true", "run_in_session `true`", "ms", "under 0.5", None),
    ("echo", "run_in_session `echo hi`", "ms", "under 0.5", None),
    ("execute", "execute `true`", "ms", "under 1.3 x limit", "spawn"),
    ("sleep", "8 sessions x `sleep 1`", "ms", "1.0x s", None),
    ("alive", "slowest /is_alive meanwhile", "ms", "under 5", None),
    ("out1", "1 MB of session output", "ms", "linear", None),
    ("out10", "10 MB of session output", "ms", "linear", None),
    ("write", "write a 10 MiB file", "ms", "under 15", "loopback"),
    ("read", "read a 10 MiB file", "ms", "under 10", "loopback"),
]


def requests_per_second(server):
    for connections in (1, 16, 256):
        text = subprocess.run(
            ["wrk", "-t", "1", "-c", str(connections), "-d", "3s", "-H", "X-API-Key: t",
             f"http://127.0.0.1:{server.port}/is_alive"], capture_output=True, text=True).stdout
        rate = re.search(r"Requests/sec: +([\d.]+)", text)
        yield connections, float(rate[1]) if rate else 0


def thousand(server):
    """1,000 live sessions: the time to open them, and to have an answer from each."""
    names = [f"k{i}" for i in range(1000)]

    def each(function):
        together([lambda part=names[i::8]: [function(n) for n in part] for i in range(8)])

    return once(lambda: each(server.create)), once(lambda: each(lambda n: server.run(n, "echo hi")))


def main():
    programs = sys.argv[1:3]
    os.makedirs(FOLDER)
    with open(f"{FOLDER}/big", "w") as f:
        f.write(BIG)
    limits = {"loopback": loopback(), "spawn": spawn()}
    results, rates = [], []
    for number, program in enumerate(programs):
        server = Server(program)
        results.append(measure(server, number == 0))
        rates.append(dict(requests_per_second(server)) if shutil.which("wrk") else {})
        if number == 0:
            opened, answered = thousand(server)
        server.stop()
    results[0]["size"] = os.path.getsize(programs[0]) / 1000
    shutil.rmtree(FOLDER)
    print("| what (median, over HTTP) | unit | ours | original | ratio | wanted | limit |")
    print("| --- | --- | --- | --- | --- | --- | --- |")
    for key, what, unit, target, limit in ROWS:
        ours = results[0][key]
        theirs = results[1].get(key) if len(results) > 1 else None
        print(f"| {what} | {unit} | {ours:.2f} | {'' if theirs is None else f'{theirs:.1f}'} | "
              f"{'' if theirs is None else f'{theirs / ours:.1f}x'} | {target} | "
              f"{f'{limits[limit]:.2f}' if limit else ''} |")
    print(f"1,000 live sessions: open {opened:.0f} ms, `echo hi` in all {answered:.0f} ms, by 8 clients")
    for connections in rates[0]:
        both = [f"{r[connections]:.0f}" for r in rates if r]
        print(f"/is_alive with {connections} connections: {' and '.join(both)} requests per second")


if __name__ == "__main__":
    main()
