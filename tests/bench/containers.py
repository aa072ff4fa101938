#!/usr/bin/env python3
"""A container with our server beside the bare engine, in one run: containers.py BENCH ENGINE IMAGE

BENCH is the program of bench/containers.c. Prints medians of ten beside what is wanted, and judges
nothing by the clock: it fails if something does not start or answer.
"""
import statistics
import subprocess
import sys
import time

ROUNDS = 10


def seconds(argv):
    begin = time.perf_counter()
    subprocess.run(argv, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    return time.perf_counter() - begin


def main(bench, engine, image):
    run, start = [], []
    ours = subprocess.Popen([bench, engine, image], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    for _ in range(ROUNDS):  # in turns: the machine is not always equally fast
        run.append(seconds([engine, "run", "--rm", image, "true"]))
        print("start", file=ours.stdin, flush=True)
        start.append(float(ours.stdout.readline()))
    name = ours.stdout.readline().strip()
    exec_, execute = [], []
    for _ in range(ROUNDS):
        exec_.append(seconds([engine, "exec", name, "true"]))
        print("execute", file=ours.stdin, flush=True)
        execute.append(float(ours.stdout.readline()))
    ours.stdin.close()
    if ours.wait() != 0:
        sys.exit(f"{bench} ended with {ours.returncode}")
    a, b = statistics.median(run), statistics.median(start)
    c, d = statistics.median(exec_), statistics.median(execute)
    print(f"{engine}, medians of {ROUNDS} in turns")
    print(f"  {'run --rm IMAGE true':34} {a * 1000:9.1f} ms")
    print(f"  {'our start to the first answer':34} {b * 1000:9.1f} ms   {(b - a) * 1000:+.1f} ms (wanted: +50)")
    print(f"  {'exec CONTAINER true':34} {c * 1000:9.2f} ms")
    print(f"  {'our execute of true':34} {d * 1000:9.2f} ms   {c / d:.0f} x faster (wanted: 20)")


main(*sys.argv[1:4])
