#!/usr/bin/env python3
"""One port of misbehaving servers, for testing a client.

    python3 fake_servers.py PORT        (0 picks a port; prints "PORT" on one line when it listens)

The first part of the path chooses the behaviour: give the client http://127.0.0.1:PORT/garbage as
its host, and POST /garbage/execute meets garbage. The last part is the endpoint, so that /ok is a
server that works. GET /list names all behaviours.

GET /count shows the requests so far as {"behaviour": {"X-Request-ID or -": count}}.
Every connection ends after its first answer, though none says so.
"""

import asyncio
import json
import socket
import struct
import sys

GOOD = {  # answers of a server that works
    "": {"message": "hello world"},
    "is_alive": {"is_alive": True, "message": ""},
    "create_session": {"output": "", "session_type": "bash"},
    "run_in_session": {"output": "hi\n", "exit_code": 0, "failure_reason": "",
                       "expect_string": "SHELLPS1PREFIX", "session_type": "bash"},
    "close_session": {"session_type": "bash"},
    "execute": {"stdout": "hi\n", "stderr": "", "exit_code": 0},
    "read_file": {"content": "hi\n"},
    "write_file": {},
    "upload": {},
    "close": {},
}
ENDLESS = 1 << 40
counts = {}  # behaviour -> request id -> number of requests


def answer(body, status="200 OK", kind="application/json", length=None, extra=""):
    """A whole answer; length: the Content-Length to claim."""
    body = body if isinstance(body, bytes) else body.encode()
    length = len(body) if length is None else length
    head = f"HTTP/1.1 {status}\r\nContent-Type: {kind}\r\n{extra}Content-Length: {length}\r\n\r\n"
    return head.encode() + body


def thrown(class_path, message="boom", **fields):
    fields = {"message": message, "class_path": class_path, "traceback": "", "extra_info": {}, **fields}
    return answer(json.dumps({"swerexception": fields}), "511 Network Authentication Required")


def status(line, body, kind="application/json", extra=""):
    return answer(body, line, kind, extra=extra)


def with_head(head, body=None):
    """Lines of a head after the status line, then the good body or another."""
    return lambda good: f"HTTP/1.1 200 OK\r\n{head}\r\n\r\n".encode() + (good if body is None else body)


def chunk(data, size=None):
    return f"{len(data) if size is None else size:x}\r\n".encode() + data + b"\r\n"


CHUNKED = "Content-Type: application/json\r\nTransfer-Encoding: chunked"
LAST = b"0\r\n\r\n"
LENGTH = "Content-Type: application/json\r\nContent-Length: "

# Behaviours that are fixed bytes, or bytes made from the good body; then the connection ends.
BYTES = {
    # the answer is good, its form is unusual: a client should take it
    "ok": lambda good: answer(good),
    "chunked": lambda good: with_head(CHUNKED)(chunk(good[:1]) + chunk(good[1:]) + LAST),
    "chunk-extension": lambda good: with_head(CHUNKED)(
        b"%X;a=\"b\"\r\n%s\r\n000\r\nX-T: 1\r\n\r\n" % (len(good), good)),
    "no-length": with_head("Content-Type: application/json"),
    "http-1-0": lambda good: b"HTTP/1.0 200 OK\r\nContent-Type: application/json\r\n\r\n" + good,
    "interim": lambda good: (b"HTTP/1.1 100 Continue\r\n\r\n"
                             b"HTTP/1.1 103 Early Hints\r\nLink: </>\r\n\r\n" + answer(good)),
    "no-reason": lambda good: answer(good).replace(b"200 OK", b"200 ", 1),
    "odd-header-case": lambda good: answer(good).replace(b"Content-Length: ", b"cONTENT-lENGTH:\t ", 1),
    "charset": lambda good: answer(good, kind="application/json; charset=utf-8"),
    "unknown-fields": lambda good: answer(json.dumps({**json.loads(good), "later": [1, {"a": None}]})),
    "extra-bytes": lambda good: answer(good) + b"HTTP/1.1 500 No\r\n\r\nmore",
    # broken HTTP
    "garbage": b"\x00\xff\x13garbage\r\n\x80\x81 not HTTP at all\r\n\r\n" * 20,
    "close-at-once": b"",
    "close-in-status": b"HTTP/1.1 20",
    "close-in-headers": b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Le",
    "close-in-body": lambda good: with_head(LENGTH + "1000")(good),
    "close-in-chunk": with_head(CHUNKED, b"40\r\n{\"stdout\": \"hi"),
    "close-in-chunk-size": with_head(CHUNKED, b"1"),
    "close-before-last-chunk": lambda good: with_head(CHUNKED)(chunk(good)),
    "bad-status": lambda good: answer(good).replace(b"200 OK", b"2x0 OK", 1),
    "bad-version": lambda good: answer(good).replace(b"HTTP/1.1", b"HTTP/9.z", 1),
    "bad-length": with_head(LENGTH + "ten"),
    "negative-length": with_head(LENGTH + "-1"),
    "huge-length": with_head(LENGTH + "99999999999999999999999"),
    "two-lengths": lambda good: with_head(f"{LENGTH}{len(good)}\r\nContent-Length: 3")(good),
    "length-and-chunks": lambda good: with_head(f"{CHUNKED}\r\nContent-Length: 3")(chunk(good) + LAST),
    "bad-chunk-size": with_head(CHUNKED, b"zz\r\n{}\r\n0\r\n\r\n"),
    "negative-chunk-size": with_head(CHUNKED, b"-2\r\n{}\r\n0\r\n\r\n"),
    "huge-chunk-size": with_head(CHUNKED, b"ffffffffffffffffffff\r\n{}\r\n0\r\n\r\n"),
    "bad-chunk-end": with_head(CHUNKED, b"2\r\n{}XX0\r\n\r\n"),
    "nul-in-header": with_head("X-A: a\0b\r\nContent-Length: 2", b"{}"),
    "no-colon": with_head("this line has no colon\r\nContent-Length: 2", b"{}"),
    # whole answers with wrong content
    "empty-body": answer(""),
    "no-content": b"HTTP/1.1 204 No Content\r\n\r\n",
    "wrong-type": lambda good: answer(good, kind="text/html"),
    "no-type": lambda good: with_head(f"Content-Length: {len(good)}")(good),
    "bad-json": answer('{"stdout": "hi", oops'),
    "cut-json": lambda good: answer(good[:-1]),
    "trailing-json": lambda good: answer(good + b"}"),
    "bad-utf8": answer(b'{"stdout": "\xff\xfe", "output": "\xff", "content": "\xc3("}'),
    "lone-surrogate": answer('{"stdout": "\\ud800", "output": "\\udfff", "content": "\\ud800x"}'),
    "deep-json": answer("[" * 100000),
    "json-list": answer("[]"),
    "json-null": answer("null"),
    "wrong-types": answer(json.dumps({
        "stdout": 5, "stderr": [], "exit_code": "0", "output": {}, "content": 1, "is_alive": "maybe",
        "session_type": "fish", "message": 0, "expect_string": None, "failure_reason": False})),
    "huge-number": answer('{"exit_code": 123456789012345678901234567890, "is_alive": 1e999}'),
    "no-fields": answer("{}"),
    "error-400": status("400 Bad Request", '{"detail": "bad"}'),
    "error-401": status("401 Unauthorized", '{"detail": "Invalid API Key"}'),
    "error-403": status("403 Forbidden", '{"detail": "Not authenticated"}'),
    "error-404": status("404 Not Found", '{"detail": "Not Found"}'),
    "error-422": status("422 Unprocessable Entity",
                        '{"detail": [{"type": "missing", "loc": ["body"], "msg": "Field required"}]}'),
    "error-500": status("500 Internal Server Error", "<html><body>Oops</body></html>", "text/html"),
    "error-502": status("502 Bad Gateway", "bad gateway", "text/plain"),
    "error-503": status("503 Service Unavailable", "", "text/plain", "Retry-After: 1\r\n"),
    "redirect": status("302 Found", "", "text/plain", "Location: /ok/is_alive\r\n"),
    "redirect-away": status("307 Temporary Redirect", "", "text/plain", "Location: http://127.0.0.1:1/\r\n"),
    "redirect-nowhere": status("301 Moved Permanently", "", "text/plain"),
    "status-999": status("999 What", "{}"),
    # 511: exceptions
    "raise-value": thrown("builtins.ValueError", "a value"),
    "raise-timeout": thrown("swerex.exceptions.CommandTimeoutError", "too long"),
    "raise-syntax": thrown("swerex.exceptions.BashIncorrectSyntaxError", "bad bash",
                           extra_info={"bash_stdout": "o", "bash_stderr": "e"}),
    "raise-os-system": thrown("os.system", "touch /tmp/fake-servers-was-here"),
    "raise-popen": thrown("subprocess.Popen", "touch /tmp/fake-servers-was-here"),
    "raise-unknown": thrown("no.such.module.Error"),
    "raise-no-module": thrown("Error"),
    "raise-empty-class": thrown(""),
    "raise-odd-class": thrown("..a b\n\0.é" * 50),
    "raise-html": status("511 X", "<html></html>", "text/html"),
    "raise-missing-fields": status("511 X", '{"swerexception": {}}'),
    "raise-missing": status("511 X", "{}"),
    "raise-wrong-types": thrown(5, ["x"], traceback={}, extra_info="none"),
    "raise-null": status("511 X", '{"swerexception": null}'),
    "raise-bad-json": status("511 X", '{"swerexception": {'),
    "raise-long": thrown("builtins.ValueError", "x" * 3000000),
}


# Behaviours in time. Each takes the writer, the good body and the number of this request's id.


def reset(writer):
    """End the connection with RST instead of FIN."""
    sock = writer.get_extra_info("socket")
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    writer.transport.abort()


async def send(writer, data):
    writer.write(data)
    await writer.drain()


async def endless(writer, head, piece):
    """Send the piece until the client leaves, or for a very long time."""
    await send(writer, head)
    for _ in range(ENDLESS // len(piece)):
        await send(writer, piece)


async def slowly(writer, data, delay):
    writer.get_extra_info("socket").setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    for i in range(len(data)):
        await send(writer, data[i:i + 1])
        await asyncio.sleep(delay)


async def late(writer, good, seconds):
    await asyncio.sleep(seconds)
    await send(writer, answer(good))


async def half_then_never(writer, good):
    await send(writer, answer(good)[:-2])
    await asyncio.sleep(3600)


async def fail_first(writer, good, number, times, failure):
    """The first requests of an id fail, later ones are answered well."""
    if number <= times:
        failure = failure(writer)
        if failure:
            await send(writer, failure)
    else:
        await send(writer, answer(good))


PIECE = b"x" * 65536
OK_HEAD = b"HTTP/1.1 200 OK\r\n"
TIMED = {
    "endless-status": lambda w, good, n: endless(w, b"HTTP/1.1 200 ", PIECE),
    "endless-headers": lambda w, good, n: endless(w, OK_HEAD, b"X-More: " + b"y" * 100 + b"\r\n"),
    "endless-header": lambda w, good, n: endless(w, OK_HEAD + b"X-More: ", PIECE),
    "endless-body": lambda w, good, n: endless(
        w, OK_HEAD + b"Content-Type: application/json\r\n\r\n\"", PIECE),
    "endless-chunks": lambda w, good, n: endless(w, with_head(CHUNKED, b"")(b""), chunk(PIECE)),
    "endless-interim": lambda w, good, n: endless(w, b"", b"HTTP/1.1 100 Continue\r\n\r\n"),
    "endless-trailers": lambda w, good, n: endless(w, with_head(CHUNKED, b"0\r\n")(b""), b"X-More: y\r\n"),
    "late": lambda w, good, n: late(w, good, 3),
    "never": lambda w, good, n: asyncio.sleep(3600),
    "half-then-never": lambda w, good, n: half_then_never(w, good),
    "slow": lambda w, good, n: slowly(w, answer(good), 0.005),
    "drip": lambda w, good, n: slowly(w, answer(good), 1),
    "reset": lambda w, good, n: fail_first(w, good, n, 1 << 30, reset),
    "retry": lambda w, good, n: fail_first(w, good, n, 1, reset),
    "retry-3": lambda w, good, n: fail_first(w, good, n, 3, reset),
    "retry-close": lambda w, good, n: fail_first(w, good, n, 1, lambda w: b""),
    "retry-503": lambda w, good, n: fail_first(w, good, n, 1, lambda w: BYTES["error-503"]),
}


async def read_request(reader):
    """The path, the headers (names in lower case) and the body, or None at the end."""
    try:
        head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
        headers = {k.strip().lower(): v.strip() for k, _, v in (h.partition(":") for h in head[1:])}
        if headers.get("transfer-encoding", "").lower() == "chunked":
            body = b""
            while size := int((await reader.readline()).split(b";")[0], 16):
                body += (await reader.readexactly(size + 2))[:-2]
            while (await reader.readline()).strip():
                pass
        else:
            body = await reader.readexactly(int(headers.get("content-length") or 0))
        return head[0].split(" ")[1], headers, body
    except (asyncio.IncompleteReadError, asyncio.LimitOverrunError, ValueError, IndexError):
        return None


async def serve(reader, writer):
    try:
        request = await read_request(reader)
        if not request:
            return
        path, headers, _ = request
        kind, _, endpoint = path.partition("?")[0].strip("/").partition("/")
        good = json.dumps(GOOD.get(endpoint, {})).encode()
        if kind in ("count", "list"):
            await send(writer, answer(json.dumps(counts if kind == "count" else [*BYTES, *TIMED])))
            return
        name = headers.get("x-request-id", "-")
        ids = counts.setdefault(kind, {})
        ids[name] = ids.get(name, 0) + 1
        if kind in TIMED:
            await TIMED[kind](writer, good, ids[name])
        elif kind in BYTES:
            reply = BYTES[kind]
            await send(writer, reply(good) if callable(reply) else reply)
        else:
            await send(writer, answer('{"detail": "no such behaviour"}', "404 Not Found"))
    except OSError:
        pass  # the client left
    finally:
        writer.close()


async def main():
    if len(sys.argv) != 2 or not sys.argv[1].isdigit():
        sys.exit(__doc__)
    server = await asyncio.start_server(serve, "127.0.0.1", int(sys.argv[1]))
    print(server.sockets[0].getsockname()[1], flush=True)
    async with server:
        await server.serve_forever()


if __name__ == "__main__":
    try:
        asyncio.run(main())
    except KeyboardInterrupt:
        pass
