#!/usr/bin/env python3
"""The unchanged Python DockerDeployment with our server: python_docker.py BINARY IMAGE

An image with bash and without Python; the static server is mounted by docker_args, as the README
says. Ends in `N passed, N failed`.
"""
import asyncio
import sys
import tempfile
from pathlib import Path

from swerex.deployment.docker import DockerDeployment
from swerex.exceptions import CommandTimeoutError, NonZeroExitCodeError
from swerex.runtime.abstract import (
    BashAction,
    BashInterruptAction,
    CloseBashSessionRequest,
    Command,
    CreateBashSessionRequest,
    ReadFileRequest,
    UploadRequest,
    WriteFileRequest,
)

passed = failed = 0


def eq(what, got, want):
    global passed, failed
    if got == want:
        passed += 1
    else:
        failed += 1
        print(f"not ok: {what}: got {got!r}, not {want!r}")


async def use(runtime):
    await runtime.create_session(CreateBashSessionRequest())
    got = await runtime.run_in_session(BashAction(command="x=5; cd /tmp; pwd"))
    eq("output", (got.output.strip(), got.exit_code), ("/tmp", 0))
    got = await runtime.run_in_session(BashAction(command="echo $x"))
    eq("state", got.output.strip(), "5")
    try:
        await runtime.run_in_session(BashAction(command="false"))
        eq("non-zero exit code", "no exception", "NonZeroExitCodeError")
    except NonZeroExitCodeError:
        eq("non-zero exit code", 1, 1)
    try:
        await runtime.run_in_session(BashAction(command="sleep 30", timeout=0.5))
        eq("timeout", "no exception", "CommandTimeoutError")
    except CommandTimeoutError:
        eq("timeout", 1, 1)
    await runtime.run_in_session(BashInterruptAction())
    got = await runtime.execute(Command(command=["echo", "hi"]))
    eq("execute", (got.stdout, got.exit_code), ("hi\n", 0))
    await runtime.write_file(WriteFileRequest(path="/tmp/a/b.txt", content="text\n"))
    eq("files", (await runtime.read_file(ReadFileRequest(path="/tmp/a/b.txt"))).content, "text\n")
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "sub").mkdir()
        (Path(folder) / "sub" / "file").write_text("uploaded")
        await runtime.upload(UploadRequest(source_path=folder, target_path="/tmp/up"))
    got = await runtime.read_file(ReadFileRequest(path="/tmp/up/sub/file"))
    eq("upload", got.content, "uploaded")
    await runtime.close_session(CloseBashSessionRequest())


async def main(binary, image):
    deployment = DockerDeployment(
        image=image, pull="never", startup_timeout=30,
        docker_args=["-v", f"{binary}:/usr/local/bin/swerex-remote:ro"],
    )
    await deployment.start()
    try:
        eq("is_alive", (await deployment.is_alive(timeout=5)).is_alive, True)
        await use(deployment.runtime)
    finally:
        await deployment.stop()


asyncio.run(main(*sys.argv[1:3]))
print(f"{passed} passed, {failed} failed")
sys.exit(failed > 0)
