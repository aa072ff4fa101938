"""Modal's own Python client does what JavaScript's cannot, against the Modal of fake_modal.mjs: files
that are mounted into a sandbox, and a Dockerfile with its folder. Ends in `N passed, N failed`.

    python modal_python.py PORT SERVER [CONFIG]

SERVER is a swerex-remote, which is mounted and started. With CONFIG (JSON, as for
modal_official.mjs) only the steps of a deployment are done, for modal_compare.mjs.
"""

import json
import os
import pathlib
import sys
import tempfile
import time
import traceback
import urllib.request

PORT, SERVER = sys.argv[1], sys.argv[2]
os.environ.update(MODAL_SERVER_URL=f"http://127.0.0.1:{PORT}", MODAL_CONFIG_PATH="/nonexistent")
os.environ.setdefault("MODAL_TOKEN_ID", "ak-fake")
os.environ.setdefault("MODAL_TOKEN_SECRET", "as-fake")
os.environ.setdefault("MODAL_ENVIRONMENT", "main")
os.environ["NO_PROXY"] = "*"

import modal  # noqa: E402  it reads the environment

PLACE = "/opt/swerex/swerex-remote"
results = {True: 0, False: 0}


def step(what):
    try:
        what()
        results[True] += 1
    except Exception:
        traceback.print_exc(file=sys.stdout)
        print(f"FAILED: {what.__name__}")
        results[False] += 1


def alive(tunnel):
    host, port = tunnel.unencrypted_host, tunnel.unencrypted_port
    request = urllib.request.Request(f"http://{host}:{port}/is_alive", headers={"X-API-Key": "T"})
    for _ in range(100):
        try:
            return json.load(urllib.request.urlopen(request))["is_alive"]
        except OSError:
            time.sleep(0.1)
    return False


def deploy(config):
    kwargs = dict(config.get("modal_sandbox_kwargs", {}))
    app = modal.App.lookup(config.get("app_name", "swe-rex"), create_if_missing=True)
    secret = modal.Secret.from_dict(config["registry"]) if "registry" in config else None
    image = modal.Image.from_registry(config["image"], secret=secret)
    image = image.add_local_file(SERVER, PLACE)
    secrets = kwargs.pop("secrets", [])
    kwargs["secrets"] = [modal.Secret.from_name(s) if isinstance(s, str) else modal.Secret.from_dict(s["env"]) for s in secrets]
    names = kwargs.pop("volumes", {})
    kwargs["volumes"] = {place: modal.Volume.from_name(name) for place, name in names.items()}
    command = config.get("command", [PLACE, "--port", "8880", "--auth-token", "T"])
    sandbox = modal.Sandbox.create(
        *command,
        app=app,
        image=image,
        timeout=int(config.get("deployment_timeout", 3600)),
        unencrypted_ports=[8880],
        **kwargs,
    )
    tunnel = sandbox.tunnels()[8880]
    assert "command" in config or alive(tunnel)
    assert sandbox.poll() is None
    assert sandbox.poll() is None
    sandbox.terminate()
    return sandbox


def a_mounted_server():
    sandbox = deploy({"image": "debian:12", "deployment_timeout": 60})
    assert sandbox.poll() == 137, sandbox.poll()


def a_dockerfile_with_its_folder():
    with tempfile.TemporaryDirectory() as name:
        folder = pathlib.Path(name)
        (folder / "data").mkdir()
        (folder / "data" / "a.txt").write_text("a")
        (folder / "b.txt").write_text("b")
        dockerfile = folder / "Dockerfile"
        dockerfile.write_text("FROM debian:12\nCOPY data /data\nCOPY b.txt /b\nRUN true\n")
        app = modal.App.lookup("swe-rex", create_if_missing=True)
        image = modal.Image.from_dockerfile(dockerfile, context_dir=folder)
        sandbox = modal.Sandbox.create("sh", "-c", "echo out; exit 3", app=app, image=image, timeout=60)
        sandbox.wait(raise_on_termination=False)
        assert sandbox.returncode == 3
        assert sandbox.stdout.read() == "out\n"


def a_large_file_through_the_blob_store():
    with tempfile.TemporaryDirectory() as name:
        large = pathlib.Path(name) / "large"
        large.write_bytes(os.urandom(5 << 20))
        app = modal.App.lookup("swe-rex", create_if_missing=True)
        image = modal.Image.from_registry("debian:12").add_local_file(large, "/opt/large")
        sandbox = modal.Sandbox.create("wc", "-c", "/opt/large", app=app, image=image, timeout=60)
        sandbox.wait()
        assert sandbox.stdout.read().split()[0] == str(5 << 20)


def a_build_that_fails():
    app = modal.App.lookup("swe-rex", create_if_missing=True)
    try:
        modal.Sandbox.create("true", app=app, image=modal.Image.from_registry("nosuch"), timeout=60)
    except modal.exception.Error as error:
        assert "nosuch" in str(error) or "failed" in str(error), error
        return
    raise AssertionError("it was built")


def streams_and_puts_that_break():
    """A log of a build that breaks twice goes on after what was read; the third time is an error."""
    for times in (2, 3):
        faults = f"ak-fake/reset:ImageJoinStreaming:{times}/unavailable:MountPutFile:2/throttle:MountGetOrCreate:1"
        client = modal.Client.from_credentials(faults, "as-fake")
        app = modal.App.lookup("swe-rex", create_if_missing=True, client=client)
        image = modal.Image.from_registry(f"debian:broken-{times}").add_local_file(__file__, "/opt/file")
        try:
            sandbox = modal.Sandbox.create("cat", "/opt/file", app=app, image=image, timeout=60, client=client)
        except Exception as error:
            assert times == 3, repr(error)
            continue
        assert times == 2
        sandbox.wait()
        assert sandbox.stdout.read() == pathlib.Path(__file__).read_text()


if len(sys.argv) > 3:
    config = json.loads(pathlib.Path(sys.argv[3]).read_text())
    step(lambda: deploy(config))
else:
    step(a_mounted_server)
    step(a_dockerfile_with_its_folder)
    step(a_large_file_through_the_blob_store)
    step(a_build_that_fails)
    step(streams_and_puts_that_break)
print(f"{results[True]} passed, {results[False]} failed")
sys.exit(1 if results[False] else 0)
