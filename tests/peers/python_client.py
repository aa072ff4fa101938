#!/usr/bin/env python3
"""Drive a SWE-ReX server with the original Python client and with plain HTTP.

    python3 python_client.py --host http://127.0.0.1 --port 8000 --token T
                             [--python-server] [--only REGEX] [--list]

Needs the packages swe-rex 1.4.0 and aiohttp, which the former's client uses but does not require.
The server must see this machine's files: tests meet it in a temporary folder. Prints TAP, ends in
"N passed, N failed" and exits 1 on a failure. With --python-server, the tests marked only_ours
are skipped: each states which accident of the Python server makes its assertion impossible there.
"""

import argparse
import asyncio
import atexit
import contextlib
import errno
import http.client
import inspect
import io
import json
import logging
import os
import re
import shutil
import socket
import subprocess
import sys
import tempfile
import time
import uuid
import zipfile
from pathlib import Path

from swerex import exceptions as ex
from swerex.deployment.remote import RemoteDeployment
from swerex.runtime.abstract import (
    BashAction,
    BashInterruptAction,
    BashObservation,
    CloseBashSessionRequest,
    CloseResponse,
    Command,
    CommandResponse,
    CreateBashSessionRequest,
    ReadFileRequest,
    ReadFileResponse,
    UploadRequest,
    UploadResponse,
    WriteFileRequest,
    WriteFileResponse,
)
from swerex.runtime.remote import RemoteRuntime

PS1 = "SHELLPS1PREFIX"
PYTHON = os.environ.get("SERVER_PYTHON", sys.executable)  # where the server is
ANY = re.compile("")
TMP = os.path.realpath(tempfile.mkdtemp(prefix="swerex-peer-"))
atexit.register(shutil.rmtree, TMP, ignore_errors=True)


class W:
    """The server under test and what the tests share."""

    host = port = token = None
    python = False  # it is the Python server
    pace = 1.0  # how much longer all may take
    runtime: RemoteRuntime
    shared = None  # name of the session that simple commands share


# ---------------------------------------------------------------------------------------------
# A small test frame
# ---------------------------------------------------------------------------------------------

TESTS = []  # (name, function, reason or None)


def case(name, function, only_ours=None):
    TESTS.append((name, function, only_ours))


def test(function=None, *, only_ours=None):
    """Register a test under its function's name."""
    if function is None:
        return lambda f: test(f, only_ours=only_ours)
    case(function.__name__.replace("_", " "), function, only_ours)
    return function


def eq(got, want, what=""):
    assert got == want, f"{what + ': ' if what else ''}got {got!r:.600}, want {want!r:.600}"


def says(got, want):
    """want: the exact text, a compiled pattern to search, or None for any."""
    if isinstance(want, re.Pattern):
        assert want.search(got), f"got {got!r:.600}, want /{want.pattern}/"
    elif want is not None:
        eq(got, want)


async def raises(kinds, message, awaitable):
    """The call raises exactly the first kind, which is also each of the others."""
    kinds = kinds if isinstance(kinds, tuple) else (kinds,)
    try:
        value = await awaitable
    except Exception as e:
        assert type(e) is kinds[0], f"got {type(e).__name__}({e}), want {kinds[0].__name__}"
        for kind in kinds[1:]:
            assert isinstance(e, kind), f"{type(e).__name__} is no {kind.__name__}"
        says(str(e), message)
        return e
    raise AssertionError(f"no {kinds[0].__name__}, but {value!r:.300}")


def os_error(number, path):
    """The exception class and the text of Python's OSError."""
    error = OSError(number, os.strerror(number), path)
    return type(error), str(error)


async def expect(awaitable, want):
    """want: the answer, or (exception class, message)."""
    if isinstance(want, tuple):
        await raises(*want, awaitable)
    else:
        eq(await awaitable, want)


def put(name, content=b""):
    """Make a file in the test folder; return its path."""
    path = Path(TMP, name)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    return str(path)


def fresh(name="x"):
    """A path that nobody used yet."""
    return f"{TMP}/{uuid.uuid4().hex[:8]}-{name}"


# ---------------------------------------------------------------------------------------------
# Short forms of the client's calls
# ---------------------------------------------------------------------------------------------


async def run(command, session="default", **fields):
    action = BashAction(command=command, session=session, **fields)
    got = await W.runtime.run_in_session(action)
    if W.python and got.expect_string == "UNIQUESTRING29234":
        got.expect_string = PS1  # what it says where bashlex could not split the command
    return got


def interrupt(session, **fields):
    return W.runtime.run_in_session(BashInterruptAction(session=session, **fields))


def create(session, **fields):
    return W.runtime.create_session(CreateBashSessionRequest(session=session, **fields))


def close(session):
    return W.runtime.close_session(CloseBashSessionRequest(session=session))


def execute(command, **fields):
    return W.runtime.execute(Command(command=command, **fields))


def shell(command, **fields):
    return execute(command, shell=True, **fields)


def read(path, **fields):
    return W.runtime.read_file(ReadFileRequest(path=path, **fields))


def write(path, content):
    return W.runtime.write_file(WriteFileRequest(path=path, content=content))


def upload(source, target):
    return W.runtime.upload(UploadRequest(source_path=source, target_path=target))


@contextlib.asynccontextmanager
async def session(**fields):
    """A session of its own for one test."""
    name = "s-" + uuid.uuid4().hex[:8]
    await create(name, **fields)
    try:
        yield name
    finally:
        await close(name)


async def shared():
    """The session for commands that leave nothing behind; replaced after a failure."""
    if W.shared is None:
        name = "shared-" + uuid.uuid4().hex[:8]
        await create(name)
        W.shared = name
    return W.shared


# ---------------------------------------------------------------------------------------------
# Plain HTTP
# ---------------------------------------------------------------------------------------------


class Answer:
    def __init__(self, response):
        self.status = response.status
        self.type = response.getheader("Content-Type")
        self.body = response.read()
        self.closes = response.will_close

    @property
    def json(self):
        return json.loads(self.body)


def connect():
    return http.client.HTTPConnection(W.host, W.port, timeout=20)


def send(connection, method, path, body=None, headers=None, key=True, **options):
    """One request; a dict as body is sent as JSON."""
    headers = dict(headers or {})
    if key:
        headers.setdefault("X-API-Key", W.token)
    if isinstance(body, dict):
        body = json.dumps(body).encode()
    if body is not None:
        headers.setdefault("Content-Type", "application/json")
    connection.request(method, path, body=body, headers=headers, **options)
    return Answer(connection.getresponse())


def http_call(method, path, body=None, **options):
    with contextlib.closing(connect()) as connection:
        return send(connection, method, path, body, **options)


def post(path, body=None, **options):
    return http_call("POST", path, body, **options)


def form(parts, boundary="xyzzy", quote='"'):
    """A multipart body and its content type; parts: (name, filename or None, bytes)."""
    out = b""
    for name, filename, content in parts:
        file = f'; filename="{filename}"' if filename is not None else ""
        kind = "Content-Type: application/octet-stream\r\n" if filename is not None else ""
        head = f'--{boundary}\r\nContent-Disposition: form-data; name="{name}"{file}\r\n{kind}\r\n'
        out += head.encode() + content + b"\r\n"
    kind = f"multipart/form-data; boundary={quote}{boundary}{quote}"
    return out + f"--{boundary}--\r\n".encode(), {"Content-Type": kind}


def post_form(parts, **options):
    body, headers = form(parts, **options)
    return post("/upload", body, headers=headers)


def send_raw(data, expect_close=True, then=None):
    """Send bytes, return all that comes until the server closes; `then` is sent after a 100."""
    with socket.create_connection((W.host, W.port), timeout=10) as s:
        s.sendall(data)
        got = b""
        while chunk := s.recv(65536):
            got += chunk
            if then and b"\r\n\r\n" in got:
                s.sendall(then)
                then = None
            if not expect_close and b"\r\n\r\n" in got:
                break
        return got


# ---------------------------------------------------------------------------------------------
# The answers of the original, field by field (one shared world: the order matters)
# ---------------------------------------------------------------------------------------------

BAD = put("t/bad.txt", b"a\xff")
CRLF = put("t/crlf.txt", b"a\r\nb\rc\r\n")
ZIP = f"{TMP}/t/z.zip"
with zipfile.ZipFile(ZIP, "w", zipfile.ZIP_DEFLATED) as archive:
    archive.write(BAD, "bad.txt")
    archive.write(CRLF, "crlf.txt")


def thrown(class_path, message, **extra):
    fields = {"message": message, "class_path": class_path, "traceback": "", "extra_info": extra}
    return {"swerexception": fields}


def invalid(*errors):
    """A 422 answer; errors: (type, loc, msg, input)."""
    return {"detail": [dict(zip(("type", "loc", "msg", "input"), e)) for e in errors]}


def observation(output="", **fields):
    return BashObservation(output=output, **{"exit_code": 0, "expect_string": PS1, **fields})


def missing(*loc, given=None):
    return invalid(("missing", ["body", *loc], "Field required", given))


NO_FILE = "builtins.FileNotFoundError"
SYNTAX = "bash: line 1: syntax error near unexpected token `a'\nbash: line 1: `echo (a'\n"
NO_ZZ = thrown("swerex.exceptions.SessionDoesNotExistError", "session 'zz' does not exist")
SESSION_FIELDS = {"session_type": "bash"}


def bash(command, session="p1", **fields):
    return {"session": session, "command": command, "action_type": "bash", **fields}


# method, path, body, status, JSON of the answer
ANSWERS = [
    ("GET", "/", None, 200, {"message": "hello world"}),
    ("GET", "/is_alive", None, 200, {"is_alive": True, "message": ""}),
    ("GET", "/nope", None, 404, {"detail": "Not Found"}),
    ("POST", "/nope", {}, 404, {"detail": "Not Found"}),
    ("GET", "/execute", None, 405, {"detail": "Method Not Allowed"}),
    ("POST", "/is_alive", {}, 405, {"detail": "Method Not Allowed"}),
    ("DELETE", "/execute", None, 405, {"detail": "Method Not Allowed"}),
    ("POST", "/execute", None, 422, missing()),
    ("POST", "/execute", b"{bad", 422, {"detail": [{
        "type": "json_invalid", "loc": ["body", 1], "msg": "JSON decode error", "input": {},
        "ctx": {"error": "Expecting property name enclosed in double quotes"}}]}),
    ("POST", "/execute", {}, 422, missing("command", given={})),
    ("POST", "/execute", {"command": 5}, 422, invalid(
        ("string_type", ["body", "command", "str"], "Input should be a valid string", 5),
        ("list_type", ["body", "command", "list[str]"], "Input should be a valid list", 5))),
    ("POST", "/execute", {"command": ["nonexistentcmd"]}, 511,
        thrown(NO_FILE, "[Errno 2] No such file or directory: 'nonexistentcmd'")),
    ("POST", "/execute", {"command": "echo hi"}, 511,
        thrown(NO_FILE, "[Errno 2] No such file or directory: 'echo hi'")),
    ("POST", "/execute", {"command": ["echo", "a", "b"], "shell": True}, 200,
        {"stdout": "\n", "stderr": "", "exit_code": 0}),
    ("POST", "/execute", {"command": "exit 3", "shell": True, "check": True, "error_msg": "ctx"},
        511, thrown("swerex.exceptions.NonZeroExitCodeError",
                    "ctx: Command 'exit 3' failed with exit code 3. Stdout:\n''\nStderr:\n''")),
    ("POST", "/execute", {"command": ["sleep", "5"], "timeout": 0.1}, 511,
        thrown("swerex.exceptions.CommandTimeoutError",
               "Timeout (0.1s) exceeded while running command")),
    ("POST", "/execute", {"command": ["pwd"], "cwd": "/nonexist"}, 511,
        thrown(NO_FILE, "[Errno 2] No such file or directory: '/nonexist'")),
    ("POST", "/execute", {"command": "kill -9 $$", "shell": True}, 200,
        {"stdout": "", "stderr": "", "exit_code": -9}),
    ("POST", "/execute", {"command": ["env"], "env": {"A": "b"}}, 200,
        {"stdout": "A=b\n", "stderr": "", "exit_code": 0}),
    ("POST", "/read_file", {"path": "/nonexist"}, 511,
        thrown(NO_FILE, "[Errno 2] No such file or directory: '/nonexist'")),
    ("POST", "/read_file", {"path": "/tmp"}, 511,
        thrown("builtins.IsADirectoryError", "[Errno 21] Is a directory: '/tmp'")),
    ("POST", "/read_file", {"path": BAD}, 511,
        thrown("builtins.UnicodeDecodeError",
               "'utf-8' codec can't decode byte 0xff in position 1: invalid start byte")),
    ("POST", "/read_file", {"path": BAD, "errors": "backslashreplace"}, 200,
        {"content": "a\\xff"}),
    ("POST", "/read_file", {"path": BAD, "encoding": "latin-1"}, 200, {"content": "a\xff"}),
    ("POST", "/read_file", {"path": BAD, "encoding": "nope"}, 511,
        thrown("builtins.LookupError", "unknown encoding: nope")),
    ("POST", "/read_file", {"path": CRLF}, 200, {"content": "a\nb\nc\n"}),
    ("POST", "/write_file", {"path": "/proc/nope/x", "content": "x"}, 511,
        thrown(NO_FILE, "[Errno 2] No such file or directory: '/proc/nope'")),
    ("POST", "/write_file", {"path": "/tmp", "content": "x"}, 511,
        thrown("builtins.IsADirectoryError", "[Errno 21] Is a directory: '/tmp'")),
    ("POST", "/write_file", {"path": f"{TMP}/w/x", "content": "x"}, 200, {}),
    ("POST", "/create_session", {"session": "p1", **SESSION_FIELDS}, 200,
        {"output": ANY, "session_type": "bash"}),  # here: an old prompt
    ("POST", "/create_session", {"session": "p1", **SESSION_FIELDS}, 511,
        thrown("swerex.exceptions.SessionExistsError", "session p1 already exists")),
    ("POST", "/create_session", {"session": "p2", **SESSION_FIELDS,
                                 "startup_source": ["/nonexist"]}, 200,
        {"output": re.compile(r"bash: /nonexist: No such file or directory\n$"),
         "session_type": "bash"}),
    ("POST", "/run_in_session", bash("echo (a"), 511,
        thrown("swerex.exceptions.BashIncorrectSyntaxError",
               "Error (exit code 2) while checking bash command \n'echo (a'\n---- Stderr ----\n"
               f"{SYNTAX}\n---- Stdout ----\n", bash_stdout="", bash_stderr=SYNTAX)),
    ("POST", "/run_in_session", bash("false"), 511,
        thrown("swerex.exceptions.NonZeroExitCodeError",
               "Command 'false' failed with exit code 1. Here is the output:\n''")),
    ("POST", "/run_in_session", bash("sleep 5", timeout=0.2), 511,
        thrown("swerex.exceptions.CommandTimeoutError",
               "timeout after 0.2 seconds while running command 'sleep 5'")),
    ("POST", "/run_in_session", {"session": "p1", "action_type": "bash_interrupt"}, 200,
        observation().model_dump()),
    ("POST", "/run_in_session", bash("echo a; sleep 1", expect=["a"]), 200,
        observation("\n", expect_string="a").model_dump()),
    ("POST", "/run_in_session", bash("x", session="zz"), 511, NO_ZZ),
    ("POST", "/close_session", {"session": "zz", **SESSION_FIELDS}, 511, NO_ZZ),
    ("POST", "/close_session", {"session": "p1", **SESSION_FIELDS}, 200, SESSION_FIELDS),
    ("POST", "/close_session", {"session": "p2", **SESSION_FIELDS}, 200, SESSION_FIELDS),
]


def without_output(extra, expected):
    """extra_info without the output so far, which a server may add."""
    return {k: v for k, v in extra.items() if k in expected or k not in ("output", "stdout", "stderr")}


def same_answer(answer, status, want):
    """Compare status, content type and body; tracebacks are free, patterns are searched."""
    eq((answer.status, answer.type), (status, "application/json"), answer.body.decode()[:300])
    got = answer.json
    if status == 511:
        fields = got["swerexception"]
        assert isinstance(fields["traceback"], str)
        expected = want["swerexception"]["extra_info"] if "swerexception" in want else {}
        extra = without_output(fields["extra_info"], expected)
        got = {**got, "swerexception": {**fields, "traceback": "", "extra_info": extra}}
    for key, pattern in want.items():
        if isinstance(pattern, re.Pattern):
            says(got[key], pattern)
            want = {**want, key: got[key]}
    eq(got, want)


def add_answers():
    for method, path, body, status, want in ANSWERS:
        shown = body.decode() if isinstance(body, bytes) else json.dumps(body) if body is not None else ""
        name = f"answer: {method} {path} {shown.replace(TMP, 'TMP')[:90]}".strip()
        case(name.replace("#", ""), lambda a=(method, path, body), s=status, w=want:
             same_answer(http_call(*a), s, w))


add_answers()


@test
def answer_without_a_key():
    for method, path in [("GET", "/"), ("GET", "/is_alive"), ("GET", "/nope"), ("POST", "/close")]:
        answer = http_call(method, path, key=False)
        assert answer.status in (401, 403), answer.status
        eq((answer.type, answer.json), ("application/json", {"detail": "Not authenticated"}))


@test
def answer_to_a_wrong_key():
    for key in ("bad", W.token + "x", W.token[:-1], W.token.swapcase() + "_", " "):
        answer = http_call("GET", "/is_alive", headers={"X-API-Key": key})
        assert answer.status == 401 or (not key.strip() and answer.status == 403), answer.status
        if key.strip():
            same_answer(answer, 401, {"detail": "Invalid API Key"})


@test
def answer_to_a_wrong_key_has_no_effect():
    path = fresh()
    body = {"path": path, "content": "x"}
    eq(post("/write_file", body, headers={"X-API-Key": "bad"}).status, 401)
    assert not os.path.exists(path)


# ---------------------------------------------------------------------------------------------
# Bodies that do not fit: status and place of each error
# ---------------------------------------------------------------------------------------------

# path, body, the "loc" of the errors ([] : only the status counts)
INVALID = [
    ("/execute", b"[]", []),
    ("/execute", b"null", []),
    ("/execute", b'"x"', []),
    ("/execute", b'{"command":"a"', []),
    ("/execute", b'{"command":"a"}}', []),
    ("/execute", b'{"command":"\x01"}', []),
    ("/execute", {"command": None}, [["body", "command", "str"], ["body", "command", "list[str]"]]),
    ("/execute", {"command": ["a", 1]}, [["body", "command", "str"], ["body", "command", "list[str]", 1]]),
    ("/execute", {"command": "a", "timeout": "soon"}, [["body", "timeout"]]),
    ("/execute", {"command": "a", "shell": "perhaps"}, [["body", "shell"]]),
    ("/execute", {"command": "a", "env": {"A": 1}}, [["body", "env", "A"]]),
    ("/execute", {"command": "a", "env": []}, [["body", "env"]]),
    ("/execute", {"command": "a", "cwd": 1}, [["body", "cwd"]]),
    ("/execute", {"command": "a", "cwd": 1, "error_msg": None}, [["body", "error_msg"], ["body", "cwd"]]),
    ("/read_file", {}, [["body", "path"]]),
    ("/read_file", {"path": "x", "encoding": 1}, [["body", "encoding"]]),
    ("/write_file", {}, [["body", "content"], ["body", "path"]]),
    ("/write_file", {"path": "x"}, [["body", "content"]]),
    ("/write_file", {"path": "x", "content": None}, [["body", "content"]]),
    ("/create_session", {"session_type": "fish"}, []),
    ("/create_session", {"session_type": "bash", "session": 1}, []),
    ("/create_session", {"session_type": "bash", "startup_source": "x"}, []),
    ("/run_in_session", {"action_type": "bash"}, []),
    ("/run_in_session", {"action_type": "nope", "command": "a"}, []),
    ("/run_in_session", {"action_type": "bash", "command": "a", "check": "maybe"}, []),
    ("/run_in_session", {"action_type": "bash_interrupt", "n_retry": "x"}, []),
    ("/close_session", {"session_type": "bash", "session": None}, []),
]


def add_invalid():
    def check(path, body, places):
        answer = post(path, body)
        eq((answer.status, answer.type), (422, "application/json"), answer.body.decode()[:200])
        detail = answer.json["detail"]
        assert detail and all({"type", "loc", "msg", "input"} <= set(e) for e in detail), detail
        if places:
            eq([e["loc"] for e in detail], places)

    for path, body, places in INVALID:
        shown = body.decode(errors="replace") if isinstance(body, bytes) else json.dumps(body)
        name = f"refused: {path} {shown!r:.80}"
        case(name, lambda p=path, b=body, w=places: check(p, b, w))


add_invalid()


@test
def unknown_fields_are_ignored():
    answer = post("/execute", {"command": ["echo", "x"], "later": {"a": [1]}})
    same_answer(answer, 200, {"stdout": "x\n", "stderr": "", "exit_code": 0})


@test(only_ours="the Python server answers 422")
def types_may_be_left_out_of_session_requests():
    name = "lenient-" + uuid.uuid4().hex[:8]
    eq(post("/create_session", {"session": name}).status, 200)
    answer = post("/run_in_session", {"session": name, "command": "echo x"})
    eq((answer.status, answer.json["output"]), (200, "x\n"))
    same_answer(post("/close_session", {"session": name}), 200, {"session_type": "bash"})


# ---------------------------------------------------------------------------------------------
# HTTP itself
# ---------------------------------------------------------------------------------------------

ALIVE = {"is_alive": True, "message": ""}


@test
def http_keep_alive_serves_many_requests():
    with contextlib.closing(connect()) as c:
        c.connect()
        before = c.sock
        for i in range(5):
            same_answer(send(c, "GET", "/is_alive"), 200, ALIVE)
            eq(send(c, "POST", "/execute", {"command": ["echo", str(i)]}).json["stdout"], f"{i}\n")
            eq(send(c, "GET", "/nope").status, 404)
            eq(send(c, "POST", "/execute", {}).status, 422)
        assert c.sock is before, "the connection was closed in between"


@test(only_ours="the Python server drops the connection after a 511")
def http_keep_alive_survives_an_exception():
    with contextlib.closing(connect()) as c:
        c.connect()
        before = c.sock
        for _ in range(3):
            answer = send(c, "POST", "/read_file", {"path": "/nonexist"})
            eq((answer.status, answer.closes), (511, False))
            same_answer(send(c, "GET", "/is_alive"), 200, ALIVE)
        assert c.sock is before


def request_text(method="GET", path="/is_alive", version="1.1", body="", **headers):
    lines = [f"{method} {path} HTTP/{version}", f"Host: {W.host}", f"X-API-Key: {W.token}"]
    lines += [f"{k.replace('_', '-')}: {v}" for k, v in headers.items()]
    return ("\r\n".join(lines) + "\r\n\r\n" + body).encode()


def reply_of(data):
    head, _, body = data.partition(b"\r\n\r\n")
    return head.decode("latin-1"), body


@test
def http_connection_close_is_obeyed():
    head, body = reply_of(send_raw(request_text(Connection="close")))
    assert head.startswith("HTTP/1.1 200"), head
    eq(json.loads(body), ALIVE)


@test
def http_1_0_is_answered_and_closed():
    head, body = reply_of(send_raw(request_text(version="1.0")))
    assert re.match(r"HTTP/1\.[01] 200", head), head
    eq(json.loads(body), ALIVE)


@test
def http_header_names_have_any_case():
    text = request_text(Connection="close").replace(b"X-API-Key: ", b"x-api-KEY:\t")
    assert send_raw(text).startswith(b"HTTP/1.1 200")


@test
def http_query_is_not_part_of_the_path():
    same_answer(http_call("GET", "/is_alive?a=b&c"), 200, ALIVE)


@test
def http_pipelined_requests_are_answered_in_order():
    one = request_text("GET", "/")
    head, body = reply_of(send_raw(one + request_text(Connection="close")))
    first = json.dumps({"message": "hello world"}, separators=(",", ":")).encode()
    at = body.replace(b" ", b"").index(first.replace(b" ", b""))
    eq(at, 0)
    eq(json.loads(body.rpartition(b"\r\n\r\n")[2]), ALIVE)


@test
def http_request_in_small_pieces():
    body = json.dumps({"command": ["echo", "slow"]})
    data = request_text("POST", "/execute", body=body, Content_Type="application/json",
                        Content_Length=len(body), Connection="close")
    with socket.create_connection((W.host, W.port), timeout=10) as s:
        s.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        for i in range(0, len(data), 7):
            s.sendall(data[i:i + 7])
            time.sleep(0.002)
        got = b""
        while chunk := s.recv(65536):
            got += chunk
    eq(json.loads(reply_of(got)[1])["stdout"], "slow\n")


@test
def http_head_has_no_body():
    with contextlib.closing(connect()) as c:
        c.connect()
        answer = send(c, "HEAD", "/is_alive")
        assert answer.status in (200, 405), answer.status
        eq(answer.body, b"")
        same_answer(send(c, "GET", "/is_alive"), 200, ALIVE)


@test
def http_405_names_the_method():
    with contextlib.closing(connect()) as c:
        c.request("GET", "/execute", headers={"X-API-Key": W.token})
        eq(c.getresponse().getheader("Allow"), "POST")


@test
def http_chunked_body():
    data = json.dumps({"command": ["echo", "chunks"]}).encode()
    pieces = [data[i:i + 5] for i in range(0, len(data), 5)]
    answer = post("/execute", iter(pieces), encode_chunked=True,
                  headers={"Transfer-Encoding": "chunked"})
    same_answer(answer, 200, {"stdout": "chunks\n", "stderr": "", "exit_code": 0})


@test
def http_chunked_body_with_extension_and_trailer():
    body = json.dumps({"command": ["echo", "ext"]})
    chunked = f"{len(body):X};a=b\r\n{body}\r\n0\r\nX-Later: 1\r\n\r\n"
    data = request_text("POST", "/execute", body=chunked, Transfer_Encoding="chunked",
                        Content_Type="application/json", Connection="close")
    eq(json.loads(reply_of(send_raw(data))[1])["stdout"], "ext\n")


@test
def http_expect_continue_from_a_socket():
    body = json.dumps({"command": ["echo", "go"]})
    head = request_text("POST", "/execute", Content_Type="application/json", Connection="close",
                        Content_Length=len(body), Expect="100-continue")
    got = send_raw(head, then=body.encode())
    assert got.startswith(b"HTTP/1.1 100"), got[:80]
    final = got.partition(b"\r\n\r\n")[2]
    eq(json.loads(reply_of(final)[1])["stdout"], "go\n")


@test
def http_expect_continue_from_curl():
    if not shutil.which("curl"):
        return
    start = time.monotonic()
    done = subprocess.run(
        ["curl", "-s", "-m", "10", "--expect100-timeout", "8", "-H", "Expect: 100-continue", "-H",
         f"X-API-Key: {W.token}", "-H", "Content-Type: application/json", "--data-binary", "@-",
         f"http://{W.host}:{W.port}/execute"],
        input=json.dumps({"command": ["echo", "x" * 5000]}).encode(), capture_output=True)
    eq(json.loads(done.stdout)["stdout"], "x" * 5000 + "\n")
    assert time.monotonic() - start < 6, "curl had to give up waiting for 100 Continue"


@test
def http_garbage_gets_400():
    for data in (b"hello\r\n\r\n", b"GET\r\n\r\n", b"\x16\x03\x01\x02\x00\x01\x00\r\n\r\n"):
        got = send_raw(data)
        assert got.startswith(b"HTTP/1.1 400"), (data, got[:80])
    same_answer(http_call("GET", "/is_alive"), 200, ALIVE)


@test
def http_client_that_leaves_early_does_no_harm():
    for data in (b"", b"GET", request_text()[:-2],
                 request_text("POST", "/execute", body="{", Content_Length=100)):
        with socket.create_connection((W.host, W.port), timeout=10) as s:
            s.sendall(data)
    same_answer(http_call("GET", "/is_alive"), 200, ALIVE)


@test
def http_json_escapes_both_ways():
    text = 'q" b\\ /\t\n\r\x01\x1f\x7f é \u2028 😀'
    escaped = post("/execute", json.dumps({"command": ["printf", "%s", text]}).encode())
    plain = post("/execute", json.dumps({"command": ["printf", "%s", text]},
                                        ensure_ascii=False).encode())
    eq((escaped.json["stdout"], plain.json["stdout"]), (text, text))


@test
async def http_many_clients_at_once():
    answers = await asyncio.gather(*(execute(["echo", str(i)]) for i in range(40)))
    eq([a.stdout for a in answers], [f"{i}\n" for i in range(40)])


def append_twice(first, second, between=lambda: None, command="echo x >>{}; echo done"):
    """Run an appending command under two request ids; return its lines and both answers."""
    path = fresh("count")
    body = {"command": command.format(path), "shell": True, "check": True}
    answers = []
    for name in (first, second):
        answers.append(post("/execute", body, headers={"X-Request-ID": name}))
        between()
    return len(Path(path).read_text().splitlines()), answers


@test
def same_request_id_runs_once():
    name = str(uuid.uuid4())
    count, (first, second) = append_twice(name, name)
    eq(count, 1)
    eq((first.status, first.type, first.json), (second.status, second.type, second.json))
    same_answer(second, 200, {"stdout": "done\n", "stderr": "", "exit_code": 0})


@test
def other_request_ids_run_again():
    eq(append_twice(str(uuid.uuid4()), str(uuid.uuid4()))[0], 2)
    eq(append_twice("", "")[0], 2)


@test
async def same_request_id_runs_once_in_a_session():
    path, headers = fresh("count"), {"X-Request-ID": str(uuid.uuid4())}
    body = bash(f"echo x >>{path}; echo done", session=await shared())
    for _ in range(2):
        same_answer(post("/run_in_session", body, headers=headers), 200,
                    observation("done\n").model_dump())
    eq(Path(path).read_text(), "x\n")


@test(only_ours="the Python server remembers the last request only")
def same_request_id_runs_once_with_others_between():
    name = str(uuid.uuid4())
    other = lambda: post("/execute", {"command": ["true"]}, headers={"X-Request-ID": str(uuid.uuid4())})
    eq(append_twice(name, name, other)[0], 1)


@test(only_ours="the Python server forgets answers that are exceptions")
def same_request_id_runs_once_also_when_it_failed():
    name = str(uuid.uuid4())
    count, answers = append_twice(name, name, command="echo x >>{}; exit 3")
    eq((count, [a.status for a in answers]), (1, [511, 511]))


@test(only_ours="the Python server registers an id only when its answer is done")
async def same_request_id_joins_the_one_under_way():
    path, headers = fresh("count"), {"X-Request-ID": str(uuid.uuid4())}
    body = {"command": f"sleep 0.5; echo x >>{path}; echo done", "shell": True}
    calls = [asyncio.to_thread(post, "/execute", body, headers=headers) for _ in range(3)]
    answers = await asyncio.gather(*calls)
    eq([a.json["stdout"] for a in answers], ["done\n"] * 3)
    eq(Path(path).read_text(), "x\n")


# ---------------------------------------------------------------------------------------------
# is_alive, wait_until_alive, the deployment
# ---------------------------------------------------------------------------------------------


def runtime(token=None, port=None):
    return RemoteRuntime(host=f"http://{W.host}", port=port or W.port, auth_token=token or W.token, timeout=W.timeout)


@test
async def is_alive_says_so():
    answer = await W.runtime.is_alive(timeout=5)
    eq((bool(answer), answer.is_alive, answer.message), (True, True, ""))


@test
async def is_alive_with_a_wrong_token():
    answer = await runtime("wrong").is_alive(timeout=5)
    says(answer.message, re.compile(r"Status code 401 from .*Message: Invalid API Key$"))
    assert not answer


@test
async def is_alive_without_a_server():
    answer = await runtime(port=1).is_alive(timeout=1)
    says(answer.message, re.compile("^Failed to connect"))
    assert not answer


@test
async def calls_with_a_wrong_token_raise():
    for call in (runtime("wrong").execute(Command(command=["true"])),
                 runtime("wrong").upload(UploadRequest(source_path=BAD, target_path=fresh()))):
        try:
            await call
        except Exception as e:
            eq(getattr(e, "status", None), 401)
        else:
            raise AssertionError("no error")


@test
async def wait_until_alive_returns():
    start = time.monotonic()
    await W.runtime.wait_until_alive(timeout=5)
    assert time.monotonic() - start < 1 + W.pace


@test
async def wait_until_alive_gives_up():
    await raises(TimeoutError, re.compile("Runtime did not start within 0.3s"),
                 runtime("wrong").wait_until_alive(timeout=0.3))


@test
async def deployment_before_its_start():
    deployment = RemoteDeployment(host=f"http://{W.host}", port=W.port, auth_token=W.token)
    await raises((ex.DeploymentNotStartedError, ex.SwerexException, RuntimeError),
                 "Deployment not started", deployment.is_alive())


@test(only_ours="one command blocks the whole Python server")
async def is_alive_answers_while_a_command_runs():
    name = await shared()
    busy = asyncio.create_task(run(f"sleep {1.5 * W.pace}", name))
    await asyncio.sleep(0.3)
    start = time.monotonic()
    assert await W.runtime.is_alive(timeout=W.pace)
    assert time.monotonic() - start < 0.5 * W.pace and not busy.done()
    await busy


# ---------------------------------------------------------------------------------------------
# Commands in a session
# ---------------------------------------------------------------------------------------------

# name, command, output; other expected fields of the observation, other fields of the action
COMMANDS = [
    ("echo", "echo hi", "hi\n"),
    ("nothing printed", "true", ""),
    ("blank", "", ""),
    ("blanks", "  \t ", ""),
    ("blank lines", "\n\n", ""),
    ("comment", "# only a comment", ""),
    ("comments on lines", "# one\n  # two\n", ""),
    ("comment behind", "echo a # b", "a\n"),
    ("two lines", "echo a\necho b", "a\nb\n"),
    ("lines around", "\n\necho a\n\n", "a\n"),
    ("stderr is merged in", "echo a; echo b >&2; echo c", "a\nb\nc\n"),
    ("no line feed at the end", "printf abc", "abc"),
    ("ANSI colours go", r"printf '\033[1;31mred\033[0m\n'", "red\n"),
    ("the terminal's CRLF becomes LF, once", r"printf 'a\nb\n'; printf 'c\r\nd'", "a\nb\nc\r\nd"),
    ("invalid UTF-8", r"printf 'a\377b\n'", "a\\xffb\n"),
    ("unicode", "echo 'héllo ☃ 😀'", "héllo ☃ 😀\n"),
    ("quotes", """echo "it's" 'a "b"' \\' $'x\\'y'""", "it's a \"b\" ' x'y\n"),
    ("backslashes", r"""printf '%s\n' 'a\nb' "c\\d" e\\f""", "a\\nb\nc\\d\ne\\f\n"),
    ("line goes on", "echo a \\\n  b", "a b\n"),
    ("here document", "cat <<EOF\none $((1 + 1))\nthree\nEOF", "one 2\nthree\n"),
    ("quoted here document", "cat <<'EOF'\n$HOME `x`\nEOF", "$HOME `x`\n"),
    ("here string", "cat <<<hello", "hello\n"),
    ("pipe", "printf 'b\\na\\n' | sort", "a\nb\n"),
    ("and or", "false && echo a || echo b", "b\n"),
    ("loop on lines", "for i in 1 2 3; do\n  echo $i\ndone", "1\n2\n3\n"),
    ("case", "case abc in a*) echo yes ;; *) echo no ;; esac", "yes\n"),
    ("arithmetic for", "for ((i = 0; i < 3; i++)); do echo -n $i; done; echo", "012\n"),
    ("double brackets", "[[ abc =~ b.$ && 2 -gt 1 ]] && echo yes", "yes\n"),
    ("process substitution", "cat <(echo a) <(echo b)", "a\nb\n"),
    ("subshell", "(cd / && pwd); (exit 3) || echo $?", "/\n3\n"),
    ("100 kB of output", "seq 1 20000", "".join(f"{i}\n" for i in range(1, 20001))),
    ("long line of output", "head -c 50000 /dev/zero | tr '\\0' x; echo", "x" * 50000 + "\n"),
    ("long command", "echo " + "y" * 3000, "y" * 3000 + "\n"),
    ("a terminal", "test -t 0 && test -t 1 && test -t 2 && echo tty", "tty\n"),
    ("the server's environment", "test -n \"$PATH\" && echo yes", "yes\n"),
    ("exit code 1", "false", "", {"exit_code": 1}, {"check": "silent"}),
    ("exit code 255", "(exit 255)", "", {"exit_code": 255}, {"check": "silent"}),
    ("exit code with output", "echo a; (exit 42)", "a\n", {"exit_code": 42}, {"check": "silent"}),
    ("exit code of a missing program", "nosuchprogram", re.compile("nosuchprogram: command not found"),
     {"exit_code": 127}, {"check": "silent"}),
    ("exit code of a signal", "bash -c 'kill -9 $$'", ANY, {"exit_code": 137}, {"check": "silent"}),
    ("exit code of the last line", "false\ntrue", "", {}, {"check": "silent"}),
    ("no exit code with ignore", "false", "", {"exit_code": None}, {"check": "ignore"}),
    ("success with raise", "true", "", {}, {"check": "raise", "error_msg": "unused"}),
    ("a time limit that is kept", "echo quick", "quick\n", {}, {"timeout": 10}),
]


def add_commands():
    async def check(command, output, fields, action):
        got = await run(command, await shared(), **{"timeout": 10, **action})
        says(got.output, output)
        eq(got, observation(got.output, **fields))

    for name, command, output, *more in COMMANDS:
        fields, action = (more + [{}, {}])[:2] if more else ({}, {})
        case(f"session: {name}", lambda a=(command, output, fields, action): check(*a))


add_commands()

# name, command, error_msg, exit code, repr of the output
NON_ZERO = [
    ("plain", "false", "", 1, "''"),
    ("error_msg", "false", "while here", 1, "''"),
    ("output", "echo out; (exit 7)", "", 7, r"'out\n'"),
    ("quotes", """echo "it's"; false""", "", 1, r""" "it's\n" """.strip()),
    ("lines", "echo é\nfalse", "", 1, r"'é\n'"),
]


def add_non_zero():
    async def check(command, error_msg, code, output):
        kinds = (ex.NonZeroExitCodeError, ex.SwerexException, RuntimeError)
        message = f"Command {command!r} failed with exit code {code}. Here is the output:\n{output}"
        message = f"{error_msg}: {message}" if error_msg else message
        error = await raises(kinds, message, run(command, await shared(), error_msg=error_msg, timeout=10))
        eq(without_output(error.extra_info, {}), {})

    for name, *row in NON_ZERO:
        case(f"session: NonZeroExitCodeError, {name}", lambda r=row: check(*r))


add_non_zero()


@test
async def session_state_persists():
    async with session() as s:
        for command, output in [
            (f"cd {TMP}", ""), ("pwd", TMP + "\n"),
            ("export A='x y'; b=2", ""), ("echo $A $b", "x y 2\n"), ("printenv A", "x y\n"),
            ("f() { echo \"f $1\"; return 3; }", ""), ("f 1 || echo $?", "f 1\n3\n"),
            ("alias hi='echo hello'", ""), ("hi you", "hello you\n"),
            ("list=(a b c)", ""), ("echo ${list[1]} ${#list[@]}", "b 3\n"),
            ("set -f", ""), ("echo *", "*\n"), ("umask 027; umask", "0027\n"),
            ("unset A", ""), ("echo [$A]", "[]\n"),
        ]:
            eq(await run(command, s, timeout=10), observation(output), command)


@test
async def session_jobs_persist():
    async with session() as s:
        await run("sleep 30 &", s, timeout=5)
        says((await run("jobs", s, timeout=5)).output, re.compile("sleep 30"))
        await run("kill -9 %1; wait; true", s, timeout=5)  # ash's child ignores a TERM right behind its fork


@test
async def session_name_may_be_anything():
    for name in ("ünï ☃/..", 'a"b\\c', "x" * 200):
        await create(name)
        eq((await run("echo in", name)).output, "in\n")
        await close(name)


@test
async def sessions_are_apart():
    async with session() as a, session() as b:
        await asyncio.gather(run("X=1; cd /", a), run("X=2; cd /tmp", b))
        got = await asyncio.gather(*(run("echo $X $PWD", s) for s in (a, b)))
        eq([o.output for o in got], ["1 /\n", "2 /tmp\n"])
        await raises(ex.CommandTimeoutError, None, run("sleep 20", a, timeout=0.2))
        eq((await run("echo b", b)).output, "b\n")
        await interrupt(a)
        eq((await run("echo a", a)).output, "a\n")


@test(only_ours="one command blocks the whole Python server")
async def sessions_run_at_the_same_time():
    async with session() as a, session() as b:
        start = time.monotonic()
        nap = str(W.pace)
        await asyncio.gather(run(f"sleep {nap}", a), run(f"sleep {nap}", b), execute(["sleep", nap]))
        assert time.monotonic() - start < 1.8 * W.pace


@test
async def session_default_is_its_name():
    await W.runtime.create_session(CreateBashSessionRequest())
    eq(await W.runtime.run_in_session(BashAction(command="echo d")), observation("d\n"))
    eq((await W.runtime.run_in_session(BashInterruptAction())).exit_code, 0)
    got = await W.runtime.close_session(CloseBashSessionRequest())
    eq(got.session_type, "bash")


@test
async def session_exists():
    async with session() as s:
        await raises((ex.SessionExistsError, ex.SwerexException, ValueError),
                     f"session {s} already exists", create(s))
        eq((await run("echo alive", s)).output, "alive\n")


@test
async def session_does_not_exist():
    kinds = (ex.SessionDoesNotExistError, ex.SwerexException, ValueError)
    for call in (run("true", "no'such"), interrupt("no'such"), close("no'such")):
        await raises(kinds, "session \"no'such\" does not exist", call)


@test
async def session_closed_and_made_again():
    name = "again-" + uuid.uuid4().hex[:8]
    await create(name)
    pid = int((await run("X=1; echo $$", name)).output)
    await close(name)
    await raises(ex.SessionDoesNotExistError, None, run("true", name))
    assert gone(pid), "its shell still runs"
    await create(name)
    eq((await run("echo [$X]", name)).output, "[]\n")
    await close(name)


def gone(pid, within=3.0):
    """The process ends within some seconds."""
    end = time.monotonic() + within * W.pace
    while time.monotonic() < end:
        try:
            state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
        except (FileNotFoundError, ProcessLookupError):
            return True
        if state in "ZX":
            return True
        time.sleep(0.05)
    return False


@test
async def session_whose_shell_exits():
    name = "exits-" + uuid.uuid4().hex[:8]
    await create(name)
    for command in ("exit 3", "echo more"):
        try:
            got = await run(command, name, timeout=3)
        except Exception:
            continue
        raise AssertionError(f"no error, but {got!r}")
    await close(name)
    await create(name)
    eq((await run("echo back", name)).output, "back\n")
    await close(name)


@test
async def session_startup_source():
    one = put("source/one one.sh".replace(" ", "_"), b"export ONE=1\necho from-one\nPS1='odd> '\n")
    two = put("source/two.sh", b"TWO=$((ONE + 1))\nhelper() { echo helped; }\n")
    name = "source-" + uuid.uuid4().hex[:8]
    answer = await create(name, startup_source=[one, two], startup_timeout=10)
    eq(answer.session_type, "bash")
    says(answer.output, re.compile("from-one\n"))
    eq((await run("echo $ONE $TWO; helper", name)).output, "1 2\nhelped\n")
    await close(name)


@test
async def session_startup_timeout():
    slow = put("source/slow.sh", b"sleep %g\n" % (4 * W.pace))
    start = time.monotonic()
    try:
        await create("slow-" + uuid.uuid4().hex[:8], startup_source=[slow], startup_timeout=0.5)
    except Exception:
        assert time.monotonic() - start < 3 * W.pace
    else:
        raise AssertionError("no error")


SYNTAX_ERRORS = ["echo (a", "if true; then", "echo 'open", "for", "echo a; )", "touch {}; done"]


@test
async def syntax_error_runs_nothing():
    name = await shared()
    for command in SYNTAX_ERRORS:
        path = fresh()
        for check in ("raise", "silent", "ignore"):
            text = f"touch {path}\n{command.format(path)}"
            kinds = (ex.BashIncorrectSyntaxError, ex.SwerexException, RuntimeError)
            error = await raises(kinds, None, run(text, name, check=check, timeout=5))
            eq(sorted(error.extra_info), ["bash_stderr", "bash_stdout"])
            says(error.extra_info["bash_stderr"], re.compile(r"^bash: line \d+: .*\n$", re.S))
            eq(error.extra_info["bash_stdout"], "")
            eq(str(error), f"Error (exit code 2) while checking bash command \n{text!r}\n---- Stderr ----\n"
               f"{error.extra_info['bash_stderr']}\n---- Stdout ----\n")
            assert not os.path.exists(path), "the part before the error ran"
    eq((await run("echo on", name)).output, "on\n")


@test(only_ours="readline of the Python server's shell eats them")
async def tabs_and_exclamation_marks_reach_bash():
    got = await run("cat <<'EOF'\na\tb\nEOF\necho \"wow!x\"", await shared(), timeout=5)
    eq(got.output, "a\tb\nwow!x\n")


# ---------------------------------------------------------------------------------------------
# Expect and interactive programs
# ---------------------------------------------------------------------------------------------

# name, command, patterns, pattern that ends it, output before it
EXPECT = [
    ("text", "echo start; echo END; sleep 20", ["END"], "END", "start\n"),
    ("regular expression", "echo a1b22c; sleep 20", [r"b\d+"], r"b\d+", "a1"),
    ("dot matches a line feed", "echo one; echo two; sleep 20", ["on.*tw"], "on.*tw", ""),
    ("first match in the text wins", "echo xbxa; sleep 20", ["a", "b"], "b", "x"),
    ("first in the list wins at one place", "echo zab; sleep 20", ["ab", "a"], "ab", "z"),
    ("groups and classes", "echo 'key=[v]'; sleep 20", [r"(?P<k>k\w+)=\[(v|w)\]"],
     r"(?P<k>k\w+)=\[(v|w)\]", ""),
    ("case flag", "echo READY; sleep 20", ["(?i)ready"], "(?i)ready", ""),
    ("escaped prompt", "echo '(gdb) '; sleep 20", [r"\(gdb\) "], r"\(gdb\) ", ""),
]


def add_expect():
    async def check(command, patterns, matched, output):
        async with session() as s:
            got = await run(command, s, expect=patterns, check="ignore", timeout=8)
            eq(got, observation(output, exit_code=None, expect_string=matched))
            await interrupt(s)

    for name, *row in EXPECT:
        case(f"expect: {name}", lambda r=row: check(*r))


add_expect()


@test
async def expect_without_a_match_ends_at_the_prompt():
    got = await run("echo abc", await shared(), expect=["never", r"\d{3}"], timeout=5)
    eq(got, observation("abc\n"))


@test
async def expect_while_the_command_goes_on():
    async with session() as s:
        got = await run("echo abc; sleep 20", s, expect=["b"], check="silent", timeout=5)
        eq((got.exit_code, got.expect_string), (None, "b"))
        says(got.output + (await interrupt(s)).output, re.compile(r"^ac\s*$"))
        kinds = (ex.NoExitCodeError, ex.SwerexException, RuntimeError)
        await raises(kinds, re.compile("^timeout while getting exit code"),
                     run("echo abc; sleep 20", s, expect=["b"], timeout=5))
        await interrupt(s)
        eq(await run("echo on", s), observation("on\n"))


@test
async def expect_pattern_that_is_not_valid():
    for pattern in ("(", "[a", "*", r"a{2,1}"):
        async with session() as s:
            await raises(re.error, None, run("echo abc", s, expect=[pattern], timeout=5))


@test
async def interactive_python():
    async with session() as s:
        def say(command, **fields):
            fields = {"expect": [">>> "], "is_interactive_command": True, "timeout": 10, **fields}
            return run(command, s, **fields)

        got = await say(f"{PYTHON} -q")
        eq((got.exit_code, got.expect_string), (0, ">>> "))
        for line, output in [("print('hello world')", "hello world"), ("x = 21", ""),
                             ("print(x * 2)", "42"), ("", ""), ("1 / 0", re.compile("ZeroDivisionError"))]:
            got = await say(line)
            says(got.output, output)
            eq(got, observation(got.output, expect_string=">>> "), line)
        got = await say("def f():", expect=[r"\.\.\. "])
        eq(got.expect_string, r"\.\.\. ")
        await say("  return 'in'", expect=[r"\.\.\. "])
        await say("")
        says((await say("f()")).output, "'in'")
        got = await run("quit()\n", s, is_interactive_quit=True, timeout=10)
        eq((got.exit_code, got.expect_string), (0, PS1))
        got = await run("echo back; (exit 4)", s, check="silent", timeout=10)
        eq(got, observation("back\n", exit_code=4))


@test
async def interactive_answer_to_read():
    async with session() as s:
        fields = {"is_interactive_command": True, "expect": [r"name\? "], "timeout": 5}
        got = await run("read -p 'name? ' n; echo hello $n", s, **fields)
        eq(got.expect_string, r"name\? ")
        got = await run("Ada", s, is_interactive_command=True, timeout=5)
        says(got.output, re.compile("hello Ada$"))
        eq((got.exit_code, got.expect_string), (0, PS1))


@test
async def interactive_command_that_ends_by_itself():
    got = await run("echo hi", await shared(), is_interactive_command=True, timeout=5)
    eq(got, observation("hi"))


@test
async def interactive_timeout():
    async with session() as s:
        await raises(ex.CommandTimeoutError, "timeout after 0.4 seconds while running command 'cat'",
                     run("cat", s, is_interactive_command=True, expect=["never"], timeout=0.4))
        await interrupt(s)
        eq((await run("echo on", s)).output, "on\n")


# ---------------------------------------------------------------------------------------------
# Interrupts and time limits
# ---------------------------------------------------------------------------------------------


@test
async def timeout_then_interrupt_then_go_on():
    kinds = (ex.CommandTimeoutError, ex.SwerexException, RuntimeError, TimeoutError, OSError)
    async with session() as s:
        await run("X=kept", s)
        for seconds in ("0.3", "0.25"):
            start = time.monotonic()
            await raises(kinds, f"timeout after {seconds} seconds while running command 'sleep 30'",
                         run("sleep 30", s, timeout=float(seconds)))
            assert time.monotonic() - start < 2 * W.pace
            eq(await interrupt(s), observation())
            eq(await run("echo $X", s, timeout=5), observation("kept\n"))
        await raises(kinds, "timeout after 1.0 seconds while running command 'sleep 30'",
                     run("sleep 30", s, timeout=1))
        await interrupt(s)


@test
async def interrupt_while_idle():
    async with session() as s:
        got = await interrupt(s)
        assert got.output in ("", "^C"), got.output
        eq(got, observation(got.output))
        eq((await run("echo on", s)).output, "on\n")


@test
async def interrupt_returns_the_output():
    async with session() as s:
        await raises(ex.CommandTimeoutError, None, run("echo before; sleep 30", s, timeout=0.5))
        says((await interrupt(s, timeout=1)).output, re.compile("before"))
        eq((await run("echo on", s)).output, "on\n")


@test
async def interrupt_runs_nothing_behind():
    path = fresh()
    async with session() as s:
        await raises(ex.CommandTimeoutError, None, run(f"sleep 30\ntouch {path}", s, timeout=0.5))
        await interrupt(s)
        eq((await run("echo on", s)).output, "on\n")
    assert not os.path.exists(path)


@test
async def interrupt_of_a_program_that_ignores_it():
    script = put("ignore.py", b"import signal, time\nsignal.signal(2, signal.SIG_IGN)\n"
                 b"print('up', flush=True)\ntime.sleep(60)\n")
    async with session() as s:
        got = await run(f"{PYTHON} {script}", s, expect=["up"], check="ignore", timeout=10)
        eq(got.expect_string, "up")
        got = await interrupt(s, n_retry=2)
        eq(got.exit_code, 0)
        # bash's notice that the job was killed may stand before or behind.
        says((await run("echo on", s, timeout=5)).output, re.compile("^on$", re.M))
        eq((await run("echo on", s, timeout=5)).output, "on\n")


@test
async def interrupt_with_expect():
    script = put("catch.py", b"import signal, time\n"
                 b"signal.signal(2, lambda *a: print('CAUGHT', flush=True))\n"
                 b"print('up', flush=True)\nwhile True: time.sleep(1)\n")
    async with session() as s:
        await run(f"{PYTHON} {script}", s, expect=["up"], check="ignore", timeout=10)
        got = await interrupt(s, expect=["C.UGHT"], timeout=1)
        eq((got.exit_code, got.expect_string), (0, "C.UGHT"))
        await interrupt(s, n_retry=1)


# ---------------------------------------------------------------------------------------------
# execute
# ---------------------------------------------------------------------------------------------


def ran(stdout="", stderr="", exit_code=0):
    return CommandResponse(stdout=stdout, stderr=stderr, exit_code=exit_code)


def too_long(seconds):
    kinds = (ex.CommandTimeoutError, ex.SwerexException, RuntimeError, TimeoutError, OSError)
    return kinds, f"Timeout ({seconds}s) exceeded while running command"


def script(name, text, mode=0o755):
    path = put(name, text)
    os.chmod(path, mode)
    return path


PROGRAM = script("bin/program", b"#!/bin/sh\necho program $PWD\n")
PLAIN = script("bin/plain", b"#!/bin/sh\n", 0o644)
GARBAGE = script("bin/garbage", b"\x01\x02\x03\x04" * 20)
ODD = ["false", "it's", 'say "x"', "both ' and \"", "t\tn\nb\\", "é", "\x01\x7f", "\u200b", "😀", "\xa0"]

# name, command, other fields, the answer or (exceptions, message)
EXECUTE = [
    ("list", ["echo", "a  b", "$HOME", "*"], {}, ran("a  b $HOME *\n")),
    ("one name", "true", {}, ran()),
    ("empty argument", ["printf", "[%s]", "", "x"], {}, ran("[][x]")),
    ("unicode argument", ["printf", "%s", "é☃😀"], {}, ran("é☃😀")),
    ("shell", "echo a; echo b >&2; exit 3", {"shell": True}, ran("a\n", "b\n", 3)),
    ("shell is sh", "echo $0", {"shell": True}, ran("/bin/sh\n")),
    ("list with shell", ['echo "$0" "$1" $#', "zero", "one two"], {"shell": True}, ran("zero one two 1\n")),
    ("shell program is missing", "nosuchprogram", {"shell": True, "merge_output_streams": True}, None),
    ("streams apart", "echo out; echo err >&2", {"shell": True}, ran("out\n", "err\n")),
    ("streams merged", "echo a; echo b >&2; echo c", {"shell": True, "merge_output_streams": True},
     ran("a\nb\nc\n")),
    ("stdin is empty", ["cat"], {"timeout": 5}, ran()),
    ("no terminal", "test -t 0 || test -t 1 || echo none", {"shell": True}, ran("none\n")),
    ("stdin is the null device", "readlink /proc/self/fd/0", {"shell": True}, ran("/dev/null\n")),
    ("line ends are kept", ["printf", r"a\r\nb\rc"], {}, ran("a\r\nb\rc")),
    ("escapes are kept", ["printf", r"\033[31mred"], {}, ran("\x1b[31mred")),
    ("NUL in output", ["printf", r"a\0b"], {}, ran("a\0b")),
    ("invalid UTF-8", ["printf", r"a\377\n"], {}, ran("a\\xff\n")),
    ("invalid UTF-8 on stderr", r"printf 'a\200' >&2", {"shell": True}, ran("", "a\\x80")),
    ("cut UTF-8", ["printf", r"a\342\202"], {}, ran("a\\xe2\\x82")),
    ("surrogate and overlong", ["printf", r"\355\240\200\300\200"], {}, ran(r"\xed\xa0\x80\xc0\x80")),
    ("environment replaced", ["env"], {"env": {"A": "b c", "É": "ü"}}, None),
    ("environment empty", ["env"], {"env": {}}, ran()),
    ("environment inherited", "test -n \"$PATH\" && echo yes", {"shell": True}, ran("yes\n")),
    ("PATH of the environment", ["program"], {"env": {"PATH": f"/nonexist:{TMP}/bin"}, "cwd": "/"},
     ran("program /\n")),
    ("not on PATH of the environment", ["program"], {"env": {"PATH": "/nonexist"}},
     os_error(errno.ENOENT, "program")),
    ("cwd", ["pwd"], {"cwd": TMP}, ran(TMP + "\n")),
    ("program relative to cwd", ["bin/program"], {"cwd": TMP}, ran(f"program {TMP}\n")),
    ("exit code", "exit 255", {"shell": True}, ran(exit_code=255)),
    ("signal 9", "kill -9 $$", {"shell": True}, ran(exit_code=-9)),
    ("signal 15", "kill $$", {"shell": True}, ran(exit_code=-15)),
    ("signal of a list", [PYTHON, "-c", "import os; os.kill(os.getpid(), 11)"], {}, ran(exit_code=-11)),
    ("large output on both", "head -c 1000000 /dev/zero; head -c 1000000 /dev/zero >&2",
     {"shell": True}, ran("\0" * 1000000, "\0" * 1000000)),
    ("large argument", ["printf", "%s", "z" * 100000], {}, ran("z" * 100000)),
    ("check of success", ["true"], {"check": True, "error_msg": "unused"}, ran()),
    ("time limit kept", ["echo", "quick"], {"timeout": 10}, ran("quick\n")),
    ("check", "echo o; echo \"e'\" >&2; exit 4", {"shell": True, "check": True},
     ((ex.NonZeroExitCodeError, RuntimeError),
      "Command 'echo o; echo \"e\\'\" >&2; exit 4' failed with exit code 4. Stdout:\n'o\\n'\nStderr:\n\"e'\\n\"")),
    ("check with error_msg", ["false"], {"check": True, "error_msg": "at home"},
     (ex.NonZeroExitCodeError,
      "at home: Command ['false'] failed with exit code 1. Stdout:\n''\nStderr:\n''")),
    ("check shows a list as Python does", ODD, {"check": True},
     (ex.NonZeroExitCodeError, f"Command {ODD!r} failed with exit code 1. Stdout:\n''\nStderr:\n''")),
    ("check of a signal", "kill -9 $$", {"shell": True, "check": True},
     (ex.NonZeroExitCodeError, "Command 'kill -9 $$' failed with exit code -9. Stdout:\n''\nStderr:\n''")),
    ("timeout", ["sleep", "20"], {"timeout": 0.3}, too_long("0.3")),
    ("timeout as a whole number", ["sleep", "20"], {"timeout": 1}, too_long("1.0")),
    ("timeout of a shell", "exec sleep 20", {"timeout": 0.25, "shell": True}, too_long("0.25")),
    ("timeout of nothing", ["sleep", "20"], {"timeout": 0}, too_long("0.0")),
    ("timeout of a writer", ["yes"], {"timeout": 0.2}, (ex.CommandTimeoutError, None)),
    ("missing program", ["nosuchprogram", "x"], {}, os_error(errno.ENOENT, "nosuchprogram")),
    ("missing program by path", ["/no/such"], {}, os_error(errno.ENOENT, "/no/such")),
    ("text is one name", "echo hi", {}, os_error(errno.ENOENT, "echo hi")),
    ("missing cwd", ["true"], {"cwd": "/no/such"}, os_error(errno.ENOENT, "/no/such")),
    ("cwd is a file", ["true"], {"cwd": PLAIN}, os_error(errno.ENOTDIR, PLAIN)),
    ("program not executable", [PLAIN], {}, os_error(errno.EACCES, PLAIN)),
    ("program is a folder", [TMP], {}, os_error(errno.EACCES, TMP)),
    ("program in a file", [PLAIN + "/x"], {}, os_error(errno.ENOTDIR, PLAIN + "/x")),
    ("program of no format", [GARBAGE], {}, os_error(errno.ENOEXEC, GARBAGE)),
    ("NUL in an argument", ["echo", "a\0b"], {}, (ValueError, re.compile("embedded null byte$"))),
    ("illegal variable name", ["true"], {"env": {"A=B": "c"}},
     (ValueError, re.compile("illegal environment variable name$"))),
]
SPECIAL = {  # those whose answer is not one fixed value
    "shell program is missing": lambda r: (
        says(r.stdout, re.compile("nosuchprogram: not found")), eq((r.stderr, r.exit_code), ("", 127))),
    "environment replaced": lambda r: eq(sorted(r.stdout.splitlines()), ["A=b c", "É=ü"]),
}


def add_execute():
    async def check(name, command, fields, want):
        if want is None:
            SPECIAL[name](await execute(command, **fields))
        else:
            await expect(execute(command, **fields), want)

    for row in EXECUTE:
        case(f"execute: {row[0]}", lambda r=row: check(*r))


add_execute()


@test(only_ours="the Python server kills the direct child only and waits for the pipe")
async def execute_timeout_ends_grandchildren():
    path = fresh()
    start = time.monotonic()
    await raises(ex.CommandTimeoutError, None, shell(f"(sleep {1.5 * W.pace}; touch {path}) | cat; true", timeout=0.3))
    assert time.monotonic() - start < 1.2 * W.pace
    await asyncio.sleep(1.6 * W.pace)
    assert not os.path.exists(path)


# ---------------------------------------------------------------------------------------------
# Files
# ---------------------------------------------------------------------------------------------

TEXT = "aé☃😀\n"
LOOP = f"{TMP}/loop"
os.symlink("loop", LOOP)
LINK = f"{TMP}/link"
os.symlink("t/crlf.txt", LINK)


def encoded(name, data, encoding=None, errors=None):
    return put("enc/" + name, data), {"encoding": encoding, "errors": errors}


# name, (path, fields), content or (exceptions, message)
READ = [
    ("empty", encoded("empty", b""), ""),
    ("UTF-8", encoded("utf8", TEXT.encode()), TEXT),
    ("UTF-8 named", encoded("utf8n", TEXT.encode(), "UTF8"), TEXT),
    ("UTF-8 with a mark", encoded("bom", b"\xef\xbb\xbfa"), "\ufeffa"),
    ("utf-8-sig", encoded("sig", b"\xef\xbb\xbfa", "utf-8-sig"), "a"),
    ("utf-16", encoded("u16", TEXT.encode("utf-16"), "utf-16"), TEXT),
    ("utf-16-le", encoded("u16le", TEXT.encode("utf-16-le"), "utf-16-le"), TEXT),
    ("utf-16-be", encoded("u16be", TEXT.encode("utf-16-be"), "utf_16_be"), TEXT),
    ("latin-1", encoded("l1", b"a\xe9\xff", "latin-1"), "aéÿ"),
    ("ISO-8859-1", encoded("iso", b"\xe9", "ISO-8859-1"), "é"),
    ("cp1252", encoded("cp", b"\x80\x93", "cp1252"), "€“"),
    ("ascii", encoded("ascii", b"abc", "ascii"), "abc"),
    ("NUL and controls", encoded("ctl", b"a\0b\x01\x1b\x7f"), "a\0b\x01\x1b\x7f"),
    ("CRLF and CR", encoded("crlf", b"a\r\nb\rc\n\r\n\rd\r"), "a\nb\nc\n\n\nd\n"),
    ("errors ignore", encoded("ign", b"a\xffb", None, "ignore"), "ab"),
    ("errors replace", encoded("rep", b"a\xff\xe2\x82b", None, "replace"), "a\ufffd\ufffdb"),
    ("errors backslashreplace", encoded("bsr", b"\xffa\xe2\x82", None, "backslashreplace"),
     "\\xffa\\xe2\\x82"),
    ("errors strict, valid", encoded("str", b"ok", None, "strict"), "ok"),
    ("ascii replace", encoded("ar", b"a\xe9", "ascii", "replace"), "a\ufffd"),
    ("symbolic link", (LINK, {}), "a\nb\nc\n"),
    ("2 MB", encoded("big", b"0123456789abcde\n" * 131072), "0123456789abcde\n" * 131072),
    # UnicodeDecodeError cannot be built from a text, so the client raises SwerexException.
    ("undecodable", encoded("und", b"a\xff"),
     (ex.SwerexException, "'utf-8' codec can't decode byte 0xff in position 1: invalid start byte")),
    ("undecodable, cut", encoded("cut", b"ab\xe2\x82"),
     (ex.SwerexException, "'utf-8' codec can't decode bytes in position 2-3: unexpected end of data")),
    ("undecodable, continuation", encoded("cont", b"\xe2("),
     (ex.SwerexException, "'utf-8' codec can't decode byte 0xe2 in position 0: invalid continuation byte")),
    ("undecodable ascii", encoded("asc", b"ab\xe9", "ascii"),
     (ex.SwerexException, "'ascii' codec can't decode byte 0xe9 in position 2: ordinal not in range(128)")),
    ("unknown encoding", encoded("unk", b"a", "nope"), (LookupError, "unknown encoding: nope")),
    ("unknown errors", encoded("unke", b"\xff", None, "nope"),
     (LookupError, "unknown error handler name 'nope'")),
    ("missing", ("/no/such", {}), os_error(errno.ENOENT, "/no/such")),
    ("missing, odd name", ("/no/it's\n", {}), os_error(errno.ENOENT, "/no/it's\n")),
    ("folder", (TMP, {}), os_error(errno.EISDIR, TMP)),
    ("below a file", (PLAIN + "/x", {}), os_error(errno.ENOTDIR, PLAIN + "/x")),
    ("loop of links", (LOOP, {}), os_error(errno.ELOOP, LOOP)),
    ("name too long", ("/tmp/" + "n" * 300, {}), os_error(errno.ENAMETOOLONG, f"/tmp/{'n' * 300}")),
    ("NUL in the path", ("/tmp/a\0b", {}), (ValueError, re.compile("embedded null byte$"))),
]


def add_read():
    for name, (path, fields), want in READ:
        want = ReadFileResponse(content=want) if isinstance(want, str) else want
        case(f"read_file: {name}", lambda p=path, f=fields, w=want: expect(read(p, **f), w))


add_read()

# name, path below TMP, content
WRITE = [
    ("new file", "w/new", "text\n"),
    ("empty", "w/empty", ""),
    ("parents", "w/a/b/c/d/file", "deep"),
    ("unicode name and content", "w/é☃/😀", TEXT),
    ("odd name", "w/a b'\"\\\n", "x"),
    ("line ends are kept", "w/crlf", "a\r\nb\rc\n"),
    ("NUL and controls", "w/ctl", "a\0b\x01\x1b\x7f\u2028"),
    ("1 MB", "w/big", "0123456789\n" * 100000),
]
WRITE_ERRORS = [
    ("folder", TMP, os_error(errno.EISDIR, TMP)),
    ("parent is a file", PLAIN + "/x", os_error(errno.EEXIST, PLAIN)),
    ("grandparent is a file", PLAIN + "/x/y", os_error(errno.ENOTDIR, PLAIN + "/x")),
    ("parent cannot be made", "/proc/nope/x", os_error(errno.ENOENT, "/proc/nope")),
    ("loop of links", LOOP, os_error(errno.ELOOP, LOOP)),
    ("name too long", f"{TMP}/{'n' * 300}", os_error(errno.ENAMETOOLONG, f"{TMP}/{'n' * 300}")),
]


def add_write():
    async def check(path, content):
        eq(await write(path, content), WriteFileResponse())
        eq(Path(path).read_bytes(), content.encode())

    for name, path, content in WRITE:
        case(f"write_file: {name}", lambda p=f"{TMP}/{path}", c=content: check(p, c))
    for name, path, want in WRITE_ERRORS:
        case(f"write_file: {name}", lambda p=path, w=want: expect(write(p, "x"), w))


add_write()


@test
async def write_file_replaces_content_and_keeps_the_mode():
    path = script("w/mode", b"long old content", 0o750)
    await write(path, "new")
    eq((Path(path).read_text(), os.stat(path).st_mode & 0o777), ("new", 0o750))


@test
async def write_file_through_a_link():
    target = put("w/linked", b"old")
    os.symlink(target, f"{TMP}/w/lnk")
    await write(f"{TMP}/w/lnk", "new")
    assert os.path.islink(f"{TMP}/w/lnk")
    eq(Path(target).read_text(), "new")


@test
async def written_file_is_read_back():
    path = fresh()
    for text in (TEXT, "", "a" * 70000 + "é"):
        await write(path, text)
        eq((await read(path)).content, text)


# ---------------------------------------------------------------------------------------------
# Uploads
# ---------------------------------------------------------------------------------------------


def tree(root):
    """The folders (None) and files (their bytes) below a folder."""
    root = Path(root)
    return {str(p.relative_to(root)): None if p.is_dir() else p.read_bytes() for p in sorted(root.rglob("*"))}


def make_tree(files):
    """Make a folder; files: path to bytes, or None for a folder."""
    root = Path(fresh("tree"))
    root.mkdir()
    for name, content in files.items():
        path = root / name
        if content is None:
            path.mkdir(parents=True)
        else:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content)
    return str(root)


BYTES = bytes(range(256)) * 40 + b"\r\n--boundary\r\n\r\n--\r\n--" + b"\r\n" * 50
FILES = [
    ("binary", "bin", BYTES),
    ("empty", "none", b""),
    ("unicode name", "é ☃ \"q\".txt", b"x"),
    ("into new folders", "up/a/b/file", b"deep"),
    ("5 MB", "large", os.urandom(1 << 16) * 80),
]
FOLDERS = [
    ("nested", {"a": b"1", "b/c": b"2", "b/d/e/f": BYTES, "g/empty": None}),
    ("unicode names", {"é☃/😀.txt": b"x", "b c/d'e": b"y"}),
    ("300 small files", {f"d{i % 7}/f{i}": b"%d\n" % i for i in range(300)}),
    ("large and empty files", {"zeros": bytes(3000000), "random": os.urandom(500000), "none": b""}),
]


def add_uploads():
    async def file(target, content):
        source = put("up-src/" + os.path.basename(target), content)
        eq(await upload(source, target), UploadResponse())
        eq(Path(target).read_bytes(), content)
        eq(Path(source).read_bytes(), content, "source")

    async def folder(files):
        source, target = make_tree(files), fresh("parent") + "/target"
        eq(await upload(source, target), UploadResponse())
        eq(tree(target), tree(source))

    for name, target, content in FILES:
        case(f"upload a file: {name}", lambda t=f"{TMP}/up/{target}", c=content: file(t, c))
    for name, files in FOLDERS:
        case(f"upload a folder: {name}", lambda f=files: folder(f))


add_uploads()


@test
async def upload_of_an_empty_folder():
    target = fresh("parent") + "/target"
    eq(await upload(make_tree({}), target), UploadResponse())
    assert os.path.isdir(os.path.dirname(target))
    eq(os.path.exists(target) and tree(target), {} if os.path.exists(target) else False)


@test
async def upload_overwrites_a_file():
    target = put("up/over", b"old and long")
    await upload(put("up-src/over", b"new"), target)
    eq(Path(target).read_bytes(), b"new")


@test
async def upload_merges_into_a_folder():
    target = make_tree({"old": b"kept", "both": b"before", "d/x": b"kept"})
    await upload(make_tree({"both": b"after", "d/y": b"new"}), target)
    eq(tree(target), {"old": b"kept", "both": b"after", "d": None, "d/x": b"kept", "d/y": b"new"})


@test
async def upload_without_a_source():
    path = fresh()
    await raises(ValueError, f"Source path {path} is not a file or directory", upload(path, fresh()))


@test
async def upload_to_where_a_file_is_in_the_way():
    await raises((FileExistsError, OSError), f"[Errno 17] File exists: '{PLAIN}'", upload(BAD, PLAIN + "/x"))


@test(only_ours="Python's extractall does not restore modes")
async def upload_of_a_folder_keeps_modes():
    source, target = make_tree({"run": b"#!/bin/sh\necho ran\n", "plain": b""}), fresh("target")
    os.chmod(f"{source}/run", 0o755)
    await upload(source, target)
    eq(await execute([f"{target}/run"]), ran("ran\n"))
    assert not os.access(f"{target}/plain", os.X_OK) or not os.stat(f"{target}/plain").st_mode & 0o111


def upload_parts(content, target, unzip=None, order=(0, 1, 2)):
    parts = [("file", "f.bin", content), ("target_path", None, target.encode())]
    parts += [("unzip", None, unzip.encode())] if unzip is not None else []
    return [parts[i] for i in order if i < len(parts)]


@test
def upload_form_in_any_order():
    for order in ((0, 1, 2), (2, 1, 0), (1, 0, 2)):
        target = fresh()
        same_answer(post_form(upload_parts(BYTES, target, "false", order)), 200, {})
        eq(Path(target).read_bytes(), BYTES)


@test
def upload_form_boundaries():
    content = b"\r\n--xyz\r\n--xyzz\n--xyzzy\r-\r\n--xyzz\r\n--" * 30 + b"\r\n--xyzz"
    for boundary, quote in (("xyzzy", ""), ("xyzzy", '"'), ("a'b(c)+_,-./:=?", '"'), ("-" * 60, "")):
        target = fresh()
        same_answer(post_form(upload_parts(content, target), boundary=boundary, quote=quote), 200, {})
        eq(Path(target).read_bytes(), content)


@test
def upload_form_chunked():
    target = fresh()
    body, headers = form(upload_parts(BYTES, target))
    pieces = [body[i:i + 13] for i in range(0, len(body), 13)]
    headers["Transfer-Encoding"] = "chunked"
    answer = post("/upload", iter(pieces), headers=headers, encode_chunked=True)
    same_answer(answer, 200, {})
    eq(Path(target).read_bytes(), BYTES)


@test
def upload_form_unzip_values():
    data = Path(ZIP).read_bytes()
    for word in ("true", "True", "1", "on", "yes"):
        target = fresh()
        same_answer(post_form(upload_parts(data, target, word)), 200, {})
        eq(sorted(os.listdir(target)), ["bad.txt", "crlf.txt"])
    for word in (None, "false", "0", "off", "no"):
        target = fresh()
        same_answer(post_form(upload_parts(data, target, word)), 200, {})
        eq(Path(target).read_bytes(), data)
    eq(post_form(upload_parts(data, fresh(), "perhaps")).status, 422)


@test
def upload_form_with_parts_missing():
    same_answer(post_form([("target_path", None, b"/tmp/q")]), 422, missing("file"))
    same_answer(post_form([("file", "f", b"x")]), 422, missing("target_path"))
    answer = post_form([("other", None, b"x")])
    eq(answer.status, 422)
    eq([e["loc"] for e in answer.json["detail"]], [["body", "file"], ["body", "target_path"]])
    eq(post("/upload", {"target_path": "/tmp/q"}).status, 422)


@test
def upload_form_that_is_no_zip():
    for data in (b"", b"hello", b"PK\x03\x04" + b"\0" * 40):
        answer = post_form(upload_parts(data, fresh(), "true"))
        same_answer(answer, 511, thrown("zipfile.BadZipFile", "File is not a zip file"))


def zipped(entries, method=zipfile.ZIP_DEFLATED, comment=b"", lead=b""):
    out = io.BytesIO()
    out.write(lead)
    with zipfile.ZipFile(out, "a" if lead else "w", method) as z:
        for name, content in entries:
            z.writestr(name, content)
        z.comment = comment
    return out.getvalue()


@test
def upload_form_kinds_of_zip():
    entries = [("a", b"1" * 1000), ("d/", b""), ("d/é", BYTES), ("none", b"")]
    want = {"a": b"1" * 1000, "d": None, "d/é": BYTES, "none": b""}
    for data in (zipped(entries), zipped(entries, zipfile.ZIP_STORED), zipped(entries, comment=b"a note"),
                 zipped(entries, lead=b"#!/bin/sh\n")):
        target = fresh()
        same_answer(post_form(upload_parts(data, target, "true")), 200, {})
        eq(tree(target), want)


@test
def upload_form_zip_stays_in_its_folder():
    root = fresh("root")
    data = zipped([("../up", b"1"), ("/abs", b"2"), ("a/../../b", b"3"), ("./c", b"4")])
    answer = post_form(upload_parts(data, root + "/in", "true"))
    if W.python:  # takes such names for others; ours refuses them before it writes anything
        same_answer(answer, 200, {})
        eq(tree(root), {"in": None, "in/up": b"1", "in/abs": b"2", "in/a": None, "in/a/b": b"3", "in/c": b"4"})
    else:
        same_answer(answer, 511, thrown("zipfile.BadZipFile", answer.json["swerexception"]["message"]))
        eq(tree(root), {})


@test
def upload_form_broken_zip():
    data = bytearray(zipped([("a", b"hello " * 100)]))
    data[40] ^= 0x55
    answer = post_form(upload_parts(bytes(data), fresh(), "true"))
    eq(answer.status, 511)


# ---------------------------------------------------------------------------------------------
# close, last: it ends all sessions
# ---------------------------------------------------------------------------------------------


@test
async def deployment_start_use_and_stop():
    deployment = RemoteDeployment(host=f"http://{W.host}", port=W.port, auth_token=W.token, timeout=5)
    await deployment.start()
    assert await deployment.is_alive()
    name = "last-" + uuid.uuid4().hex[:8]
    await deployment.runtime.create_session(CreateBashSessionRequest(session=name))
    got = await deployment.runtime.run_in_session(BashAction(command="echo $$", session=name))
    await deployment.stop()
    assert gone(int(got.output)), "the shell of a session still runs"
    await raises(ex.DeploymentNotStartedError, "Deployment not started", deployment.is_alive())


@test
async def close_twice_and_the_server_lives():
    eq(await W.runtime.close(), CloseResponse())
    same_answer(post("/close"), 200, {})
    assert await W.runtime.is_alive(timeout=5)
    async with session() as s:
        eq((await run("echo new", s)).output, "new\n")


# ---------------------------------------------------------------------------------------------


async def run_test(function):
    """None, or why the test failed. The client prints to stdout, which belongs to TAP here."""
    try:
        with contextlib.redirect_stdout(io.StringIO()):
            result = function()
            if inspect.isawaitable(result):
                await asyncio.wait_for(result, 30)
    except Exception as e:
        W.shared = None
        return f"{type(e).__name__}: {e}" if not isinstance(e, AssertionError) else str(e) or "assertion"
    return None


async def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--host", default="http://127.0.0.1")
    parser.add_argument("--port", type=int)
    parser.add_argument("--token", default="token")
    parser.add_argument("--timeout", type=float, default=0.15, help="of is_alive; the original's, if not given")
    parser.add_argument("--pace", type=float, default=1, help="how much longer all may take: 4")
    parser.add_argument("--python-server", action="store_true", help="skip the tests marked only_ours")
    parser.add_argument("--only", default="", metavar="REGEX", help="tests whose name matches")
    parser.add_argument("--list", action="store_true", help="print the names of the tests")
    parser.add_argument("--times", action="store_true", help="print the seconds of each test")
    args = parser.parse_args()
    tests = [t for t in TESTS if re.search(args.only, t[0])]
    if args.list:
        print("\n".join(name + (f"  [only ours: {why}]" if why else "") for name, _, why in tests))
        return 0
    if not args.port:
        parser.error("--port is needed")
    logging.disable(logging.CRITICAL)
    W.python = args.python_server
    W.host, W.port, W.token = args.host.partition("//")[2] or args.host, args.port, args.token
    W.timeout = args.timeout
    W.pace = args.pace
    W.runtime = runtime()
    passed = failed = skipped = 0
    print(f"1..{len(tests)}")
    for number, (name, function, only_ours) in enumerate(tests, 1):
        if only_ours and args.python_server:
            skipped += 1
            print(f"ok {number} {name} # SKIP only_ours: {only_ours}", flush=True)
            continue
        start = time.monotonic()
        why = await run_test(function)
        spent = f" ({time.monotonic() - start:.2f} s)" if args.times else ""
        passed, failed = passed + (why is None), failed + (why is not None)
        reason = "" if why is None else f" # {' '.join(why.split())}"
        print(f"{'ok' if why is None else 'not ok'} {number} {name}{spent}{reason}", flush=True)
    if skipped:
        print(f"# {skipped} skipped: only_ours")
    print(f"{passed} passed, {failed} failed")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(asyncio.run(main()))
