"""https by libcurl: https.py FOLDER, with swerex.h in FOLDER/inc and our server at FOLDER/remote.

Needs openssl and libcurl4-openssl-dev; HTTP/2 needs the module h2 (else its tests are left out).
Prints a line per test, then `N passed, N failed`."""
import asyncio, os, re, socket, ssl, subprocess, sys, threading, time

ROOT = sys.argv[1]
HERE = os.path.dirname(os.path.abspath(__file__))
try:
    import h2.connection, h2.config, h2.events
except ImportError:
    h2 = None


def sh(command, **more):
    return subprocess.run(command, shell=True, check=True, cwd=ROOT, capture_output=True, **more)


def certificates():
    sh("openssl req -x509 -newkey rsa:2048 -nodes -keyout ca.key -out ca.pem -days 30 -subj '/CN=test ca' "
       "-addext 'basicConstraints=critical,CA:TRUE' -addext keyUsage=keyCertSign")
    sh("openssl req -newkey rsa:2048 -nodes -keyout leaf.key -out leaf.csr -subj /CN=localhost")
    sh("printf 'subjectAltName=DNS:localhost' >ext; openssl x509 -req -in leaf.csr -CA ca.pem -CAkey ca.key "
       "-CAcreateserial -out leaf.pem -days 30 -extfile ext")
    sh("mkdir -p cadir; cp ca.pem cadir/$(openssl x509 -hash -noout -in ca.pem).0")


def context(protocols):
    made = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    made.load_cert_chain(ROOT + "/leaf.pem", ROOT + "/leaf.key")
    made.set_alpn_protocols(protocols)
    return made


async def pump(reader, writer, limit=None):
    try:
        while True:
            data = await asyncio.wait_for(reader.read(65536), limit)
            if not data:
                break
            writer.write(data)
            await writer.drain()
    except (OSError, asyncio.TimeoutError):
        pass
    finally:
        writer.close()


def proxy(backend, limit):
    async def serve(reader, writer):
        try:
            to_reader, to_writer = await asyncio.open_connection("127.0.0.1", backend)
        except OSError:
            writer.close()
            return
        await asyncio.gather(pump(reader, to_writer, limit), pump(to_reader, writer, limit))
    return serve


STATE = {"connections": 0, "open": 0}
PLAIN = "HTTP/1.1 200 OK\r\nServer: other\r\nContent-Type: text/plain; charset=x\r\n"


async def read_request(reader):
    head = (await reader.readuntil(b"\r\n\r\n")).decode()
    length = re.search(r"content-length: (\d+)", head, re.I)
    body = b""
    if " /early" in head:
        pass
    elif length:
        body = await reader.readexactly(int(length[1]))
    elif re.search("transfer-encoding: chunked", head, re.I):
        while True:
            size = int(await reader.readline(), 16)
            body += await reader.readexactly(size)
            await reader.readexactly(2)
            if size == 0:
                break
    return head, body


def answer(head, body):
    path = head.split()[1]
    if path.startswith("/base/"):
        text = "%r %d bytes\n" % (head, len(body))
        return PLAIN + "Content-Length: %d\r\n\r\n" % len(text) + text
    if path in ("/count", "/ours"):
        text = "%d %d" % (STATE["connections"], STATE["open"])
        server = PLAIN.replace("other", "swerex/0.1.0") if path == "/ours" else PLAIN
        return server + "Content-Length: %d\r\n\r\n" % len(text) + text
    return {
        "/large": PLAIN + "Content-Length: 3000000\r\n\r\n" + "x" * 3000000,
        "/trailers": PLAIN + "Trailer: grpc-status\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n"
                     "grpc-status: 0\r\n\r\n",
        "/garbage": "what is this\r\n\r\n",
        "/cut": PLAIN + "Content-Length: 100\r\n\r\nonly this",
        "/nothing": "", "/reset": None,
        "/redirect": "HTTP/1.1 302 Found\r\nLocation: /base/x\r\nContent-Length: 0\r\n\r\n",
        "/continue": "HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nx: y\r\n\r\n" + PLAIN +
                     "Content-Length: 2\r\n\r\nok",
        "/bare": "HTTP/1.1 200\r\n\r\nuntil the end",
        "/early": "HTTP/1.1 413 Too Large\r\nContent-Length: 0\r\nConnection: close\r\n\r\n",
    }[path]


async def serve_http1(reader, writer):
    while True:
        head, body = await read_request(reader)
        text = answer(head, body)
        if text is None:
            writer.transport.abort()
            return
        writer.write(text.encode())
        await writer.drain()
        if not head.split()[1] in ("/ours", "/base/echo", "/large", "/trailers", "/count"):
            await asyncio.sleep(0.1)
            return


async def serve_http2(reader, writer):
    conn = h2.connection.H2Connection(h2.config.H2Configuration(client_side=False, header_encoding="utf-8"))
    conn.initiate_connection()
    pending, requests = {}, {}
    writer.write(conn.data_to_send())

    def push():
        for stream in list(pending):
            data, trailers = pending[stream]
            while data:
                room = min(conn.local_flow_control_window(stream), conn.max_outbound_frame_size)
                if room <= 0:
                    break
                conn.send_data(stream, data[:room])
                data = data[room:]
            pending[stream] = (data, trailers)
            if not data:
                if trailers:
                    conn.send_headers(stream, trailers, end_stream=True)
                else:
                    conn.end_stream(stream)
                del pending[stream]
    while True:
        data = await reader.read(65536)
        if not data:
            return
        for event in conn.receive_data(data):
            if isinstance(event, h2.events.RequestReceived):
                requests[event.stream_id] = [event.headers, 0]
            elif isinstance(event, h2.events.DataReceived):
                requests[event.stream_id][1] += len(event.data)
                conn.acknowledge_received_data(event.flow_controlled_length, event.stream_id)
            elif isinstance(event, h2.events.StreamReset):
                pending.pop(event.stream_id, None)
            elif isinstance(event, h2.events.StreamEnded):
                headers, size = requests.pop(event.stream_id)
                path = dict(headers)[":path"]
                conn.send_headers(event.stream_id, [(":status", "200"), ("server", "other"),
                                                    ("content-type", "text/plain")])
                trailers = [("grpc-status", "0")] if path == "/trailers" else None
                text = {"/large": "x" * 3000000, "/trailers": "hello"}.get(
                    path, "%r %d bytes\n" % (headers, size))
                pending[event.stream_id] = (text.encode(), trailers)
        push()
        writer.write(conn.data_to_send())
        await writer.drain()


async def serve_own(reader, writer):
    STATE["connections"] += 1
    STATE["open"] += 1
    chosen = writer.get_extra_info("ssl_object").selected_alpn_protocol()
    try:
        await (serve_http2 if chosen == "h2" else serve_http1)(reader, writer)
    except (OSError, asyncio.IncompleteReadError):
        pass
    finally:
        STATE["open"] -= 1
        writer.close()


async def hang(reader, writer):
    await asyncio.sleep(60)


def start_servers(backend):
    ports, ready = {}, threading.Event()

    async def run():
        plan = {"good": (proxy(backend, None), True), "sleepy": (proxy(backend, 0.4), True),
                "own": (serve_own, True), "hang": (hang, True), "plain": (hang, False)}
        for name, (handler, tls) in plan.items():
            names = ["h2", "http/1.1"] if name == "own" and h2 else ["http/1.1"]
            server = await asyncio.start_server(handler, "127.0.0.1", 0, backlog=512,
                                                ssl=context(names) if tls else None)
            ports[name] = server.sockets[0].getsockname()[1]
        ready.set()
        await asyncio.sleep(3600)

    def quiet(loop, info):
        pass

    def main():
        loop = asyncio.new_event_loop()
        loop.set_exception_handler(quiet)
        loop.run_until_complete(run())
    threading.Thread(target=main, daemon=True).start()
    ready.wait()
    silent = socket.socket()  # connects, and then nothing
    silent.bind(("127.0.0.1", 0))
    silent.listen(16)
    ports["silent"] = silent.getsockname()[1]
    STATE["silent"] = silent
    dead = socket.socket()
    dead.bind(("127.0.0.1", 0))
    ports["dead"] = dead.getsockname()[1]
    dead.close()
    return ports


def builds():
    # With its functions static, what is not reached is not compiled.
    flags = ("-std=c99 -g -O1 -fsanitize=address,undefined -fno-sanitize-recover=undefined -DSWEREX_STATIC "
             "-Wno-unused-function -Iinc " + HERE + "/https.c")
    for name, rest in (("gcc-1", "gcc -DSWEREX_USE_CURL=1 %s -lcurl -lpthread"),
                       ("gcc-2", "gcc -DSWEREX_USE_CURL=2 %s -lpthread"),
                       ("clang-2", "clang -DSWEREX_USE_CURL=2 %s -lpthread"),
                       ("poll-1", "gcc -DSWEREX_USE_CURL=1 -DSWEREX_POLLER=SWEREX_POLLER_POLL %s -lcurl -lpthread"),
                       ("gcc-0", "gcc -DSWEREX_USE_CURL=0 %s -lpthread"),
                       ("none-2", "gcc -DSWEREX_USE_CURL=2 -Inone %s -lpthread")):
        if name == "none-2":
            os.makedirs(ROOT + "/none", exist_ok=True)
            text = open(ROOT + "/inc/swerex.h").read()
            open(ROOT + "/none/swerex.h", "w").write(text.replace('"libcurl', '"libnone'))
        print("building", name, flush=True)
        yield name, subprocess.Popen(rest % flags + " -o test-" + name, shell=True, cwd=ROOT)


class Tally:
    passed = failed = 0


def check(build, name, arguments, env=None, want=None, wanted_not=None, limit=120):
    clean = {k: v for k, v in os.environ.items() if not k.startswith(("SSL_", "CURL_")) and "proxy" not in k.lower()}
    clean.update({"SSL_CERT_FILE": ROOT + "/ca.pem"} if env is None else env)
    start = time.time()
    try:
        done = subprocess.run(["./test-" + build] + arguments, cwd=ROOT, env=clean, timeout=limit,
                              stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        code, text = done.returncode, done.stdout
    except subprocess.TimeoutExpired as late:
        code, text = "late", (late.stdout or b"").decode()
    ok = code == 0 and all(w in text for w in want or []) and not any(w in text for w in wanted_not or [])
    Tally.passed += ok
    Tally.failed += not ok
    print("%s %-8s %-12s %.2f s%s" % ("ok  " if ok else "FAIL", build, name, time.time() - start,
                                     "  " + text.strip() if "-v" in sys.argv or not ok or name in SHOW else ""), flush=True)


SHOW = ("many",)


def run(build, ports):
    def at(name, host="localhost"):
        return "https://%s:%d" % (host, ports[name])

    def refused(name, host, code, words, env=None, connect="5", call="20", retries="-1", within="6"):
        check(build, name, ["refused", host, connect, call, retries, code, words, within], env)
    if build == "none-2":
        return refused("missing", at("good"), "UNSUPPORTED", "libnone.so.4 is not installed: apt-get install libcurl4")
    if build == "gcc-0":
        return refused("left out", at("good"), "UNSUPPORTED", "https is not in this build")
    for name in ("basics", "upload", "many", "cancel", "inside", "freed"):
        check(build, name, [name, at("good")])
    check(build, "idle", ["idle", at("sleepy")])
    check(build, "requests", ["requests", at("own") + "/base"],
          want=["POST /base/base/echo HTTP/1.1", "X-Two: a:b, c", "/base/base/echo/../a//b", "300000 bytes",
                "DELETE ", "Content-Length: 9", "Server=other;"],
          wanted_not=["Accept", "accept", "xpect", "urlencoded", "User-Agent", "ookie"])
    check(build, "trailers", ["trailers", at("own")])
    check(build, "callbacks", ["callbacks", at("own")])
    check(build, "wrong", ["wrong", at("own")])
    check(build, "signals", ["signals", at("good")])
    for name in ("foreign", "ours") + (("multiplex",) if h2 else ()):
        time.sleep(0.3)
        STATE["connections"] = 0
        check(build, name, [name, at("own")])
    check(build, "crowded", ["crowded", at("own", "127.0.0.1")])
    check(build, "resolving", ["resolving", "https://no.such.name.invalid"])
    refused("untrusted", at("good"), "OS", "SSL certificate problem", {})
    refused("bundle", at("good"), "OS", "/nonexistent", {"SSL_CERT_FILE": "/nonexistent"})
    check(build, "CURL_CA", ["basics", at("good")], {"CURL_CA_BUNDLE": ROOT + "/ca.pem", "SSL_CERT_FILE": "/x"})
    check(build, "CERT_DIR", ["basics", at("good")], {"SSL_CERT_DIR": ROOT + "/cadir"})
    refused("wrong name", at("good", "127.0.0.1"), "OS", "127.0.0.1")
    refused("dead", at("dead"), "OS", "localhost:%d/execute" % ports["dead"])
    refused("dead again", at("dead"), "OS", "onnect", retries="2")
    refused("no name", "https://no.such.name.invalid", "OS", "no.such.name.invalid")
    refused("not tls", at("plain"), "TIMEOUT", "", connect="0.5")
    refused("silent", at("silent"), "TIMEOUT", "https://localhost", connect="0.5", within="1.5")
    refused("timeout", at("hang"), "TIMEOUT", "within 0.5 seconds", call="0.5", within="1.5")
    check(build, "proxy", ["refused", at("good"), "5", "20", "-1", "OS", "127.0.0.1 port 9", "6"],
          {"https_proxy": "http://127.0.0.1:9", "SSL_CERT_FILE": ROOT + "/ca.pem"})


def main():
    certificates()
    remote = subprocess.Popen([ROOT + "/remote", "--host", "127.0.0.1", "--port", "0", "--auth-token", "T"],
                              stdout=subprocess.PIPE, text=True)
    try:
        ports = start_servers(int(remote.stdout.readline().rsplit(":", 1)[1]))
        made = list(builds())
        for name, job in made:
            if job.wait() != 0:
                sys.exit("building %s failed" % name)
        only = [a for a in sys.argv[2:] if not a.startswith("-")]
        for name, job in made:
            if not only or name in only:
                run(name, ports)
    finally:
        remote.terminate()
    print("%d passed, %d failed%s" % (Tally.passed, Tally.failed, "" if h2 else " (without HTTP/2: no module h2)"))
    os._exit(Tally.failed != 0)


main()
