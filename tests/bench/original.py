"""Times the Python original's local runtime, for bench.c; prints "name value" lines."""
import asyncio
import logging
import statistics
import time

logging.disable(logging.CRITICAL)
from swerex.runtime.abstract import BashAction, CloseBashSessionRequest, Command, CreateBashSessionRequest
from swerex.runtime.local import LocalRuntime


async def median(count, call, after=None):
    times = []
    for _ in range(count):
        start = time.perf_counter()
        await call()
        times.append((time.perf_counter() - start) * 1e3)
        if after:
            await after()
    return statistics.median(times)


async def main():
    runtime = LocalRuntime()
    run = lambda command: lambda: runtime.run_in_session(BashAction(command=command))
    print("create_session", await median(5, lambda: runtime.create_session(CreateBashSessionRequest()),
                                         lambda: runtime.close_session(CloseBashSessionRequest())))
    await runtime.create_session(CreateBashSessionRequest())
    print("true", await median(10, run("true")))
    print("echo", await median(10, run("echo hi")))
    print("ls", await median(10, run("cd / && ls")))
    print("execute", await median(100, lambda: runtime.execute(Command(command=["true"]))))
    start = time.perf_counter()
    await runtime.run_in_session(BashAction(command="head -c 2000000 /dev/zero | tr '\\0' x | fold -w 70"))
    print("output", 2.0 / (time.perf_counter() - start))
    await runtime.close()


asyncio.run(main())
