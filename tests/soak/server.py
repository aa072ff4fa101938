#!/usr/bin/env python3
"""Two hundred clients that disconnect, repeat, time out and send nonsense, at a swerex-remote.

    python3 server.py PROGRAM [SECONDS [SEED]]

Every command leaves a line in a file of its own doing: what was answered must be there once, what
was not answered at most once. Memory and descriptors of the server must not grow.
"""

import asyncio
import collections
import json
import os
import random
import re
import shutil
import subprocess
import sys
import time
import uuid

CLIENTS = 200
program, seconds = sys.argv[1], float(sys.argv[2]) if len(sys.argv) > 2 else 60
seed = int(sys.argv[3]) if len(sys.argv) > 3 else time.time_ns() % 1000000
folder = f"/tmp/swerex-server-soak-{os.getpid()}"
counts = collections.Counter()
answered, begun, problems = set(), set(), []


def problem(text):
    counts["problems"] += 1
    if len(problems) < 20:
        problems.append(text)


class Lost(Exception):
    pass


async def exchange(port, path, body, request_id=None, give_up=None):
    """One request on a connection of its own; give_up: seconds after which we vanish."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        data = json.dumps(body).encode()
        head = f"POST {path} HTTP/1.1\r\nHost: a\r\nX-API-Key: t\r\nConnection: close\r\n"
        head += f"X-Request-ID: {request_id}\r\n" if request_id else ""
        whole = f"{head}Content-Length: {len(data)}\r\n\r\n".encode() + data
        if give_up is not None and give_up < 0:  # in the middle of the request
            writer.write(whole[:random.randrange(len(whole))])
            raise Lost
        writer.write(whole)
        text = await asyncio.wait_for(reader.read(), give_up if give_up is not None else 60)
        head, _, body = text.partition(b"\r\n\r\n")
        if not body:
            problem(f"no answer from {path}: {text[:100]!r}")
            raise Lost
        return int(head.split()[1]), json.loads(body)
    except asyncio.TimeoutError:
        if give_up is None:
            problem(f"{path} takes over a minute")
        raise Lost from None
    finally:
        if random.random() < 0.5:
            writer.transport.abort()
        writer.close()


async def command(port, rng):
    """A command that leaves its mark, asked for again and again until it is answered."""
    mark = uuid.UUID(int=rng.getrandbits(128)).hex
    body = {"command": f"sleep {rng.choice([0, 0, 0.05])}; echo {mark} >>{folder}/marks", "shell": True}
    begun.add(mark)
    for _ in range(20):
        try:
            status, _ = await exchange(port, "/execute", body, mark, rng.choice([None, None, 0.01, 0.03, -1]))
        except (Lost, ConnectionError):
            counts["lost"] += 1
            continue
        if status != 200:
            problem(f"a command was answered {status}")
        answered.add(mark)
        counts["commands"] += 1
        return


async def timeout(port, rng):
    status, body = await exchange(port, "/execute", {"command": ["sleep", "30"], "timeout": 0.05})
    if status != 511 or "CommandTimeoutError" not in body["swerexception"]["class_path"]:
        problem(f"a timeout was answered {status}: {body}")
    counts["timeouts"] += 1


async def session(port, rng):
    name = f"s{rng.getrandbits(64):x}"
    text = f"out{rng.getrandbits(32)}"
    base = {"session": name}
    await exchange(port, "/create_session", {**base, "session_type": "bash", "startup_timeout": 60})
    status, body = await exchange(port, "/run_in_session", {**base, "action_type": "bash", "command": f"echo {text}"})
    if status != 200 or body["output"] != f"{text}\n":
        problem(f"a session said {body} and not {text}")
    if rng.random() < 0.5:
        status, body = await exchange(port, "/run_in_session", {
            **base, "action_type": "bash", "command": "sleep 30", "timeout": 0.05})
        if status != 511:
            problem(f"sleep was answered {status}")
        await exchange(port, "/run_in_session", {**base, "action_type": "bash_interrupt"})
    if rng.random() < 0.3:
        await exchange(port, "/run_in_session", {
            **base, "action_type": "bash", "command": "kill -9 $$", "check": "ignore"})
    await exchange(port, "/close_session", {**base, "session_type": "bash"})
    counts["sessions"] += 1


async def nonsense(port, rng):
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(rng.choice([b"GET / HTTP/1.1\r\n", b"\0\1\2\r\n\r\n", b"POST /execute HTTP/1.1\r\nHost: a\r\n"
                             b"Content-Length: 1000\r\nX-API-Key: t\r\n\r\n{", rng.randbytes(100)]))
    await asyncio.sleep(rng.random() * 0.05)
    writer.transport.abort()
    counts["nonsense"] += 1


async def client(port, number, end):
    rng = random.Random(seed * 1000 + number)
    kinds = [command] * 6 + [timeout, session, nonsense]
    while time.monotonic() < end and len(problems) < 20:
        try:
            await rng.choice(kinds)(port, rng)
        except (Lost, ConnectionError) as error:
            problem(f"{type(error).__name__} {error}")
        await asyncio.sleep(rng.random() * 0.2)


def state(pid):
    """Resident KiB, descriptors and children of a process."""
    with open(f"/proc/{pid}/status") as f:
        memory = int(re.search(r"VmRSS:\s+(\d+)", f.read())[1])
    return memory, len(os.listdir(f"/proc/{pid}/fd"))


async def run(port, pid):
    start = time.monotonic()
    samples = []
    tasks = [asyncio.create_task(client(port, i, start + seconds)) for i in range(CLIENTS)]
    while not all(t.done() for t in tasks):
        await asyncio.sleep(min(5, seconds / 10))
        samples.append(state(pid))
    await asyncio.gather(*tasks)
    await asyncio.sleep(1)
    samples.append(state(pid))
    return samples


def main():
    print(f"# seed {seed}, {seconds:g} seconds, {CLIENTS} clients")
    os.makedirs(folder)
    random.seed(seed)
    server = subprocess.Popen([program, "--host", "127.0.0.1", "--port", "0", "--auth-token", "t"],
                              env={**os.environ, "HOME": "/nonexistent"}, stdin=subprocess.DEVNULL,
                              stdout=subprocess.PIPE, text=True)
    port = int(server.stdout.readline().rsplit(":", 1)[1])
    before = state(server.pid)
    samples = asyncio.run(run(port, server.pid))
    server.terminate()
    if server.wait(30) != 0:
        problem(f"the server ended with {server.returncode}")
    with open(f"{folder}/marks") as f:
        marks = collections.Counter(f.read().split())
    for mark in answered:
        if marks[mark] != 1:
            problem(f"an answered command ran {marks[mark]} times")
    for mark, times in marks.items():
        if times > 1 or mark not in begun:
            problem(f"a command ran {times} times")
    middle, last = samples[len(samples) // 2], samples[-1]
    if last[0] > middle[0] * 1.2 + 4096:
        problem(f"memory grew from {middle[0]} KiB half way to {last[0]} KiB")
    if last[1] > before[1] + 3:
        problem(f"descriptors grew from {before[1]} to {last[1]}")
    shutil.rmtree(folder)
    print(f"# {dict(counts)}, memory {before[0]} -> {middle[0]} -> {last[0]} KiB, "
          f"descriptors {before[1]} -> {last[1]}")
    for text in problems:
        print(f"# {text}")
    print(f"{0 if problems else 1} passed, {1 if problems else 0} failed")
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main())
