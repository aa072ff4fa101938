"""The steps of STEPS by our command line, against the Modal of fake_modal.mjs, for modal_compare.mjs.
Ends in `N passed, N failed`.

    python modal_ours.py PORT SWEREX SERVER LOG STEPS

SWEREX is a command line with libcurl, SERVER a static swerex-remote, LOG the record of the fake.
"""

import json
import os
import subprocess
import sys

PORT, SWEREX, SERVER, LOG, STEPS = sys.argv[1:]
ENV = {
    "PATH": os.environ["PATH"],
    "HOME": "/nonexistent",
    "MODAL_SERVER_URL": f"http://127.0.0.1:{PORT}",
    "MODAL_CONFIG_PATH": "/nonexistent",
    "MODAL_TOKEN_ID": "ak-fake",
    "MODAL_TOKEN_SECRET": "as-fake",
    "MODAL_ENVIRONMENT": "main",
    "MODAL_SANDBOX_V2": os.environ.get("MODAL_SANDBOX_V2", "0"),
}
passed = failed = 0


def check(name, good, text):
    global passed, failed
    passed, failed = passed + bool(good), failed + (not good)
    if not good:
        print(f"FAILED: {name}: {text}")


def swerex(config, env):
    config = {"type": "modal", "remote_binary": SERVER, **config}
    args = [SWEREX, "--config", json.dumps(config), "run", "echo $((6 * 7)) $FOO $E1"]
    done = subprocess.run(args, env={**ENV, **env}, capture_output=True, text=True, timeout=120)
    return done.returncode, done.stdout, done.stderr


def left():
    """The sandboxes that have started and not ended."""
    events = [json.loads(line) for line in open(LOG)]
    ended = {e["sandbox"] for e in events if e.get("event") == "ended"}
    return [e["sandbox"] for e in events if e.get("event") == "started" and e["sandbox"] not in ended]


def steps(path):
    config = json.load(open(path))
    registry = config.pop("registry")
    login = {"DOCKER_USERNAME": registry["REGISTRY_USERNAME"], "DOCKER_PASSWORD": registry["REGISTRY_PASSWORD"]}
    code, out, err = swerex(config, login)
    check("the steps", code == 0 and out == "42 bar v1\n", (code, out, err))
    check("the steps: nothing is left", not left(), left())


steps(STEPS)
print(f"{passed} passed, {failed} failed")
sys.exit(1 if failed else 0)
