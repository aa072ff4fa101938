"""The fargate deployment and its teardown against a small AWS on loopback (fake_aws.py, which
checks signatures and permissions): fargate.py SWEREX FOLDER_WITH_SWEREX_REMOTE.

Between the two stands a proxy, which counts the calls and can answer in AWS's place what it never
would: throttling, failures, cut off answers. Prints a line per test, then `N passed, N failed`."""

import contextlib
import http.client
import json
import os
import random
import re
import shutil
import signal
import socket
import ssl
import subprocess
import sys
import tempfile
import threading
import time
import urllib.request
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import boto3

TOOL, REMOTE = os.path.abspath(sys.argv[1]), os.path.abspath(sys.argv[2])
HERE = os.path.dirname(os.path.abspath(__file__))
BOX = tempfile.mkdtemp(prefix="swerex-aws-")
REGION = "us-east-1"


def free_port():
    """A port below those that the system gives to others meanwhile."""
    while True:
        with socket.socket() as s:
            try:
                port = random.randrange(20000, 32000)
                s.bind(("0.0.0.0", port))
                return port
            except OSError:
                continue


class Proxy(BaseHTTPRequestHandler):
    """Passes calls on; script(action, count, body) may answer instead, changed(body) alter them,
    held(action, count) sees AWS's answer before it goes out, and says no to lose it, and
    after(action, count) learns of each answer that went out."""

    protocol_version = "HTTP/1.1"
    script = changed = held = after = None
    calls = []
    lock = threading.Lock()  # for a call and its number
    open = set()  # connections

    def setup(self):
        super().setup()
        Proxy.open.add(self)

    def finish(self):
        Proxy.open.discard(self)
        with contextlib.suppress(OSError):
            super().finish()

    def log_message(self, *_):
        pass

    def answer(self, status, headers, body, length=None):
        self.send_response_only(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(body) if length is None else length))
        self.end_headers()
        self.wfile.write(body)
        self.wfile.flush()
        self.close_connection = self.close_connection or length is not None

    def do_POST(self):
        body = self.rfile.read(int(self.headers["Content-Length"]))
        found = re.search(rb"Action=(\w+)", body)
        action = found.group(1).decode() if found else self.headers.get("X-Amz-Target", "?").split(".")[-1]
        with Proxy.lock:
            Proxy.calls.append((action, body))
            count = sum(a == action for a, _ in Proxy.calls)
            number = len(Proxy.calls)  # once the answer is out, the next call may come by another connection
        made = Proxy.script(action, count, body) if Proxy.script else None
        try:
            if made is not None:
                self.answer(*made)
            else:
                self.pass_on(action, body if Proxy.changed is None else Proxy.changed(body))
        except OSError:
            return
        if Proxy.after:
            Proxy.after(action, number)

    def pass_on(self, action, body):
        moto = http.client.HTTPConnection("127.0.0.1", MOTO, timeout=60)
        moto.putrequest("POST", self.path, skip_host=True, skip_accept_encoding=True)
        for name, value in self.headers.items():
            moto.putheader(name, value)
        moto.endheaders(body)
        response = moto.getresponse()
        keep = {k: v for k, v in response.getheaders() if k.lower() not in ("content-length", "connection", "server")}
        answer = response.read()
        moto.close()
        if Proxy.held and not Proxy.held(action, sum(a == action for a, _ in Proxy.calls)):
            self.close_connection = True
            raise ConnectionError
        self.answer(response.status, keep, answer)


class Metadata(BaseHTTPRequestHandler):
    """The service of a container, and that of a machine."""

    keys = {}

    def log_message(self, *_):
        pass

    def reply(self, text, status=200):
        self.send_response(status)
        self.end_headers()
        self.wfile.write(text.encode())

    def do_PUT(self):
        self.reply("token-of-the-machine" if self.path == "/latest/api/token" else "", 200)

    def do_GET(self):
        secret = self.headers.get("x-aws-ec2-metadata-token") == "token-of-the-machine"
        if self.path.startswith("/container") and self.headers.get("Authorization") == "Bearer abc":
            self.reply(json.dumps(Metadata.keys))
        elif self.path.endswith("/security-credentials/") and secret:
            self.reply("a-role")
        elif self.path.endswith("/security-credentials/a-role") and secret:
            self.reply(json.dumps(dict(Metadata.keys, Code="Success", Type="AWS-HMAC")))
        else:
            self.reply("", 403)


class Server(ThreadingHTTPServer):
    daemon_threads = True

    def handle_error(self, request, client_address):
        pass  # a client that was killed


def serve(handler):
    server = Server(("127.0.0.1", 0), handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    return server.server_address[1]


def client(service, keys=None):
    return boto3.client(service, region_name=REGION, endpoint_url=f"http://127.0.0.1:{MOTO}",
                        aws_access_key_id=keys["id"] if keys else "x",
                        aws_secret_access_key=keys["secret"] if keys else "y")


def ask_moto(path, body, kind="application/json"):
    request = urllib.request.Request(f"http://127.0.0.1:{MOTO}{path}", body.encode(), {"Content-Type": kind})
    return urllib.request.urlopen(request).read()


def start_moto():
    env = dict(os.environ, MOTO_IAM_LOAD_MANAGED_POLICIES="true", TASK_PATH=REMOTE + ":/usr/bin:/bin")
    for name in [n for n in env if n.startswith("AWS_")]:
        del env[name]
    log = open(os.path.join(BOX, "moto.log"), "w")
    process = subprocess.Popen([sys.executable, os.path.join(HERE, "fake_aws.py"), "-H", "127.0.0.1", "-p", str(MOTO)],
                               env=env, stdout=log, stderr=log, start_new_session=True)
    for _ in range(300):
        try:
            urllib.request.urlopen(f"http://127.0.0.1:{MOTO}/moto-api/data.json").read()
            return process
        except OSError:
            time.sleep(0.2)
    sys.exit("the fake AWS does not start")


EVERYTHING = json.dumps({"Version": "2012-10-17", "Statement": [{"Effect": "Allow", "Action": "*", "Resource": "*"}]})


def make_user():
    iam = client("iam")
    iam.create_user(UserName="tester")
    iam.put_user_policy(UserName="tester", PolicyName="all", PolicyDocument=EVERYTHING)
    key = iam.create_access_key(UserName="tester")["AccessKey"]
    trust = {"Version": "2012-10-17", "Statement": [{"Effect": "Allow", "Principal": {"AWS": "*"}, "Action": "sts:*"}]}
    iam.create_role(RoleName="tester-role", AssumeRolePolicyDocument=json.dumps(trust))
    iam.put_role_policy(RoleName="tester-role", PolicyName="all", PolicyDocument=EVERYTHING)
    return {"id": key["AccessKeyId"], "secret": key["SecretAccessKey"]}


def environment(**more):
    env = {k: v for k, v in os.environ.items() if not k.startswith("AWS_")}
    env.update(HOME=BOX, AWS_ACCESS_KEY_ID=KEYS["id"], AWS_SECRET_ACCESS_KEY=KEYS["secret"],
               AWS_DEFAULT_REGION=REGION, AWS_ENDPOINT_URL=f"http://127.0.0.1:{PROXY}",
               AWS_EC2_METADATA_DISABLED="true", AWS_MAX_ATTEMPTS="3")
    env.update(more)
    return {k: v for k, v in env.items() if v is not None}


def swerex(*words, env=None, timeout=120, stdin=""):
    ran = subprocess.run([TOOL, *words], env=env or environment(), capture_output=True, timeout=timeout, input=stdin,
                         text=True)
    return ran.returncode, ran.stdout, ran.stderr


def config(**more):
    return json.dumps({"type": "fargate", "port": free_port(), "allowed_cidr": "127.0.0.1/32", **more})


def left():
    """What is in the account that carries the tag, and still does something."""
    ecs, found = client("ecs", KEYS), []
    for arn in ecs.list_clusters()["clusterArns"]:
        if ecs.describe_clusters(clusters=[arn])["clusters"][0]["status"] == "ACTIVE":
            found.append(arn)
            for task in ecs.list_tasks(cluster=arn)["taskArns"]:
                if ecs.describe_tasks(cluster=arn, tasks=[task])["tasks"][0]["lastStatus"] != "STOPPED":
                    found.append(task)
    for status in ("ACTIVE", "INACTIVE"):
        found += ecs.list_task_definitions(status=status)["taskDefinitionArns"]
    groups = client("ec2", KEYS).describe_security_groups()["SecurityGroups"]
    found += [g["GroupId"] for g in groups if g["GroupName"].startswith("swe-rex")]
    found += [r["RoleName"] for r in client("iam", KEYS).list_roles()["Roles"] if r["RoleName"].startswith("swe-rex")]
    return found


def expect(condition, *shown):
    if not condition:
        raise AssertionError(" | ".join(str(s) for s in shown))


def refused(*parts, env=None, limit=60, **more):
    """A start that fails with these words, and leaves nothing."""
    began = time.time()
    code, out, err = swerex("--config", config(**more), "exec", "true", env=env)
    expect(code == 125, code, out, err)
    for part in parts:
        expect(part in err, part, err)
    expect(time.time() - began < limit, time.time() - began)
    expect(left() == [], left())
    return err


# --- tests -------------------------------------------------------------------------------------


def test_start_run_upload_stop_teardown():
    source, target = os.path.join(BOX, "up"), os.path.join(BOX, "there")
    os.makedirs(source)
    open(os.path.join(source, "file"), "w").write("content\n")
    one = config()
    code, out, err = swerex("--config", one, "run", "x=1; cd /tmp", 'echo "$x $PWD"; (exit 3)')
    expect(out == "1 /tmp\n" and code == 3, code, out, err)
    code, out, err = swerex("--config", one, "upload", source, target)
    expect(code == 0, code, out, err)
    expect(open(os.path.join(target, "file")).read() == "content\n")
    code, out, err = swerex("--config", one, "read", os.path.join(target, "file"))
    expect(out == "content\n", code, out, err)
    role = client("iam", KEYS).get_role(RoleName="swe-rex-execution-role-011809e9671d")["Role"]
    expect(role["Tags"] == [{"Key": "origin", "Value": "swe-rex-deployment-auto"}], role)
    expect(len(client("ecs", KEYS).list_task_definitions()["taskDefinitionArns"]) == 1, "shared")
    code, out, err = swerex("fargate-teardown", stdin="n\n")
    expect(code == 1 and "nothing was removed" in out, code, out, err)
    code, out, err = swerex("fargate-teardown", "--dry-run")
    expect(code == 0 and len(out.splitlines()) == 4, code, out, err)
    code, out, err = swerex("fargate-teardown", stdin="y\n")
    expect(code == 0 and out.count("removed  ") == 4, code, out, err)
    expect(left() == [], left())
    code, out, err = swerex("fargate-teardown", "--yes")
    expect(code == 0 and "nothing is tagged" in out, code, out, err)


def test_the_originals_resources_are_used():
    code, out, err = swerex("--config", json.dumps({"type": "fargate", "port": 8880}), "exec", "echo", "ok")
    expect(out == "ok\n", code, out, err)
    families = client("ecs", KEYS).list_task_definitions()["taskDefinitionArns"]
    expect(families[0].endswith("task-definition/swe-rex-task-c0b4b559b6ac:1"), families)
    groups = [g["GroupName"] for g in client("ec2", KEYS).describe_security_groups()["SecurityGroups"]]
    expect("swe-rex-deployment-sg-b9ccad2f016f" in groups, groups)
    made = [a for a, _ in Proxy.calls if a.startswith(("Create", "Register", "Put", "Attach"))]
    swerex("--config", json.dumps({"type": "fargate", "port": 8880}), "exec", "true")
    again = [a for a, _ in Proxy.calls if a.startswith(("Create", "Register", "Put", "Attach"))]
    expect(made == again, made, again)


def test_more_of_the_configuration():
    subnet = client("ec2", KEYS).describe_subnets()["Subnets"][0]
    group = client("ec2", KEYS).create_security_group(GroupName="mine", Description="d", VpcId=subnet["VpcId"])["GroupId"]
    more = {"subnets": [subnet["SubnetId"]], "security_groups": [group], "capacity_provider": "FARGATE_SPOT",
            "platform_version": "1.4.0", "cpu_architecture": "X86_64", "log_group": None, "container_timeout": 30.5,
            "fargate_args": {"vcpus": "2", "memory": "8192", "ephemeral_storage": "50"},
            "remote_binary_url": "http://127.0.0.1:1/x", "task_role_arn": "arn:aws:iam::123456789012:role/t"}

    def script(action, count, body):
        if action == "RunTask":  # moto knows nothing of capacity providers
            asked.append(json.loads(body))
            return 400, {}, b'{"__type":"ClientException","message":"enough"}'

    asked = []
    Proxy.script = script
    refused("RunTask: ClientException: enough", **more)
    task = asked[0]
    expect(task["capacityProviderStrategy"] == [{"weight": 1, "capacityProvider": "FARGATE_SPOT"}], task)
    network = task["networkConfiguration"]["awsvpcConfiguration"]
    expect(network["subnets"] == [subnet["SubnetId"]] and network["securityGroups"] == [group], network)
    overrides = task["overrides"]
    expect((overrides["cpu"], overrides["memory"], overrides["ephemeralStorage"]["sizeInGiB"]) == ("2048", "8192", 50))
    env = {p["name"]: p["value"] for p in overrides["containerOverrides"][0]["environment"]}
    expect(env["SWEREX_REMOTE_URL"] == "http://127.0.0.1:1/x", env)
    command = overrides["containerOverrides"][0]["command"][0]
    expect("timeout 31 " in command and env["SWEREX_AUTH_TOKEN"] not in command, command)
    expect("launchType" not in task and task["platformVersion"] == "1.4.0", task)
    client("ec2", KEYS).delete_security_group(GroupId=group)


def test_names_of_the_configuration():
    """Other names, and keys of a profile that go before those of the environment."""
    folder = tempfile.mkdtemp(dir=BOX)
    os.makedirs(os.path.join(folder, ".aws"))
    open(os.path.join(folder, ".aws", "credentials"), "w").write("[p]\n" + key_lines())
    env = environment(HOME=folder, AWS_ACCESS_KEY_ID="wrong", AWS_DEFAULT_REGION="eu-west-1")
    code, out, err = swerex("--config", config(cluster_name="mine", execution_role_prefix="role", profile="p",
                                               task_definition_prefix="family", security_group_prefix="group",
                                               region=REGION, log_group="/other"), "exec", "echo", "ok", env=env)
    expect(out == "ok\n", code, out, err)
    ecs, iam, ec2 = client("ecs", KEYS), client("iam", KEYS), client("ec2", KEYS)
    (arn,) = ecs.list_task_definitions()["taskDefinitionArns"]
    expect("task-definition/family-" in arn, arn)
    log = ecs.describe_task_definition(taskDefinition=arn)["taskDefinition"]["containerDefinitions"][0]["logConfiguration"]
    expect(log["options"]["awslogs-group"] == "/other", log)
    (role,) = [r["RoleName"] for r in iam.list_roles()["Roles"] if r["RoleName"].startswith("role-")]
    policy = iam.get_role_policy(RoleName=role, PolicyName="LogsAndSecretsPolicy")["PolicyDocument"]
    expect(policy["Statement"][0]["Resource"][1] == "arn:aws:logs:*:*:log-group:/other", policy)
    (group,) = [g for g in ec2.describe_security_groups()["SecurityGroups"] if g["GroupName"].startswith("group-")]
    expect(group["IpPermissions"][0]["IpRanges"] == [{"CidrIp": "127.0.0.1/32"}], group)
    code, out, err = swerex("fargate-teardown", "--yes", "--role-prefix", "role", "--definition-prefix", "")
    expect(code == 0 and out.count("removed  ") == 4, code, out, err)
    expect(not [r for r in iam.list_roles()["Roles"] if r["RoleName"] == role] and left() == [], left())


def test_the_binary_is_fetched():
    folder = serve_folder(REMOTE)
    if os.path.exists("/tmp/swerex-remote"):
        os.unlink("/tmp/swerex-remote")
    os.rename(os.path.join(REMOTE, "swerex-remote"), os.path.join(REMOTE, "swerex-remote.away"))
    os.symlink("swerex-remote.away", os.path.join(REMOTE, "fetched"))
    try:
        code, out, err = swerex("--config", config(remote_binary_url=f"http://127.0.0.1:{folder}/fetched"), "exec",
                                "echo", "fetched")
    finally:
        os.unlink(os.path.join(REMOTE, "fetched"))
        os.rename(os.path.join(REMOTE, "swerex-remote.away"), os.path.join(REMOTE, "swerex-remote"))
    expect(out == "fetched\n", code, out, err)
    expect(os.access("/tmp/swerex-remote", os.X_OK))
    os.unlink("/tmp/swerex-remote")


def test_a_task_that_stops_says_why():
    with socket.socket() as taken:
        taken.bind(("0.0.0.0", 0))
        taken.listen()
        err = refused("the task has stopped", "EssentialContainerExited", "exit code 1", port=taken.getsockname()[1])
    expect("in use" in err or "exit code" in err, err)


def test_the_log_is_in_the_error():
    def script(action, count, body):
        if action == "GetLogEvents":
            return 200, {}, b'{"events":[{"message":"cannot listen"},{"message":"bye"}],"nextForwardToken":"f/1"}'

    Proxy.script = script
    with socket.socket() as taken:
        taken.bind(("0.0.0.0", 0))
        taken.listen()
        refused("The last of its log:\ncannot listen\nbye", port=taken.getsockname()[1])


def test_a_server_that_does_not_answer():
    fake = os.path.join(REMOTE, "swerex-remote")
    os.rename(fake, fake + ".away")
    with open(fake, "w") as script:
        script.write("#!/bin/sh\nexec sleep 100\n")
    os.chmod(fake, 0o755)
    try:
        refused("has not answered in time (runtime_timeout)", runtime_timeout=2, limit=30)
    finally:
        os.rename(fake + ".away", fake)


def test_killed_after_each_call():
    total = [0]
    for number in range(1, 60):
        victim, done = [None], threading.Event()

        def after(action, count, number=number, victim=victim, done=done):
            if count == number:
                while victim[0] is None:
                    time.sleep(0.001)
                victim[0].kill()
                done.set()

        Proxy.calls.clear()
        Proxy.after = after
        victim[0] = subprocess.Popen([TOOL, "--config", config(), "exec", "true"], env=environment(),
                                     stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
        _, complaint = victim[0].communicate(timeout=60)
        Proxy.after = None
        if not done.is_set():
            expect(victim[0].returncode == 0, number, victim[0].returncode, complaint)
            break
        total[0] = number
        time.sleep(0.05)
        for _ in range(3000):  # what it had asked for before it was killed
            if not Proxy.open:
                break
            time.sleep(0.01)
        expect(not Proxy.open, number, "a connection of the killed client stays open")
        code, out, err = swerex("fargate-teardown", "--yes")
        expect(code == 0 and left() == [], number, code, out, err, left())
    expect(20 <= total[0] < 59, "calls", total[0])
    print(f"# killed after each of {total[0]} calls")


def test_interrupted_before_an_answer():
    """What was asked for, and may have been made, is taken back though its answer never came."""
    for action_at in ("CreateCluster", "CreateRole", "RegisterTaskDefinition", "CreateSecurityGroup", "RunTask"):
        victim, sent = [None], []

        def held(action, count, victim=victim, action_at=action_at, sent=sent):
            if action == action_at and not sent:
                sent.append(action)
                while victim[0] is None:
                    time.sleep(0.001)
                victim[0].send_signal(signal.SIGINT)
                time.sleep(0.5)
            return True

        Proxy.held = held
        victim[0] = subprocess.Popen([TOOL, "--config", config(), "exec", "true"], env=environment(),
                                     stderr=subprocess.PIPE, text=True)
        victim[0].wait(60)
        Proxy.held = None
        expect(sent and victim[0].returncode != 0, action_at, victim[0].returncode)
        expect("ERROR: " not in (err := victim[0].stderr.read()), err)
        expect(left() == [], action_at, left(), err)


def test_lost_answers_are_taken_back():
    """AWS did it, its answer was lost, the second try says that it is there, and the start fails."""
    for lost in ("CreateCluster", "CreateRole", "CreateSecurityGroup"):
        Proxy.held = lambda action, count, lost=lost: action != lost or count > 1
        Proxy.script = lambda action, count, body: (
            (400, {}, b'{"__type":"ClientException","message":"enough"}') if action == "RunTask" else None)
        Proxy.calls.clear()
        refused("RunTask: ClientException: enough")
        expect(sum(a == lost for a, _ in Proxy.calls) == 2, lost)


def test_interrupted_start_takes_back():
    for signal_number, action_at in ((signal.SIGINT, "RunTask"), (signal.SIGTERM, "CreateSecurityGroup")):
        victim = [None]

        def after(action, count, victim=victim, action_at=action_at, signal_number=signal_number):
            if action == action_at:
                victim[0].send_signal(signal_number)

        Proxy.after = after
        victim[0] = subprocess.Popen([TOOL, "--config", config(), "exec", "true"], env=environment(),
                                     stderr=subprocess.PIPE, text=True)
        victim[0].wait(60)
        Proxy.after = None
        expect(victim[0].returncode != 0, victim[0].returncode)
        expect(left() == [], left(), victim[0].stderr.read())


def test_one_changed_byte_is_refused():
    Proxy.changed = lambda body: body[:-1] + bytes([body[-1] ^ 1])
    code, out, err = swerex("fargate-teardown", "--dry-run")
    expect(code == 125 and "SignatureDoesNotMatch" in err, code, out, err)


def test_wrong_keys():
    for keys, word in (({"AWS_SECRET_ACCESS_KEY": "wrong"}, "SignatureDoesNotMatch"),
                       ({"AWS_ACCESS_KEY_ID": "AKIANOBODY"}, "InvalidClientTokenId")):
        refused(word, env=environment(**keys))


def test_no_credentials():
    none = dict(AWS_ACCESS_KEY_ID=None, AWS_SECRET_ACCESS_KEY=None)
    refused("Unable to locate credentials", env=environment(**none), limit=5)
    refused("missing: AWS_SECRET_ACCESS_KEY", env=environment(AWS_SECRET_ACCESS_KEY=None), limit=5)
    with socket.socket() as deaf:
        deaf.bind(("127.0.0.1", 0))
        deaf.listen()
        address = f"http://127.0.0.1:{deaf.getsockname()[1]}"
        refused("Unable to locate credentials", limit=5,
                env=environment(AWS_EC2_METADATA_DISABLED=None, AWS_EC2_METADATA_SERVICE_ENDPOINT=address, **none))


def credentials(files, **more):
    """Log in with these files and settings, and nothing else; the calls must be accepted."""
    folder = tempfile.mkdtemp(dir=BOX)
    os.makedirs(os.path.join(folder, ".aws"))
    for name, text in files.items():
        open(os.path.join(folder, ".aws", name), "w").write(text)
    env = environment(AWS_ACCESS_KEY_ID=None, AWS_SECRET_ACCESS_KEY=None, HOME=folder, **more)
    return swerex("fargate-teardown", "--dry-run", env=env)


def accepted(files, **more):
    code, out, err = credentials(files, **more)
    expect(code == 0 and "nothing is tagged" in out, code, out, err)


def key_lines():
    return f"aws_access_key_id = {KEYS['id']}\naws_secret_access_key = {KEYS['secret']}\n"


def test_credentials_of_profiles():
    accepted({"credentials": "[default]\n" + key_lines()})
    accepted({"config": "[profile p]\n" + key_lines() + "region = us-east-1\n"}, AWS_PROFILE="p", AWS_DEFAULT_REGION=None)
    program = "printf '{\"Version\":1,\"AccessKeyId\":\"%s\",\"SecretAccessKey\":\"%s\"}' " + f"{KEYS['id']} {KEYS['secret']}"
    script = os.path.join(BOX, "a program")
    open(script, "w").write("#!/bin/sh\n" + program + "\n")
    os.chmod(script, 0o755)
    accepted({"config": f"[default]\ncredential_process = '{script}' x\n"})
    for files, word in (({"config": "[default]\nnonsense\n"}, "line 2"),
                        ({"config": "[default]\ncredential_process = sh -c 'echo no >&2; exit 1'\n"}, "it says: no"),
                        ({"config": "[default]\nsso_start_url = https://x\n"}, "aws configure export-credentials"),
                        ({"config": "[default]\nrole_arn = a\nsource_profile = b\n[profile b]\nrole_arn = c\n"
                                    "source_profile = default\n"}, "comes back to itself")):
        code, out, err = credentials(files)
        expect(code == 125 and word in err, word, code, out, err)
    code, out, err = credentials({}, AWS_PROFILE="nobody")
    expect("The config profile (nobody) could not be found" in err, err)


def test_credentials_of_roles():
    role = "role_arn = arn:aws:iam::123456789012:role/tester-role\n"
    accepted({"credentials": "[base]\n" + key_lines(), "config": "[default]\n" + role + "source_profile = base\n"})
    expect(any(a == "AssumeRole" for a, _ in Proxy.calls), Proxy.calls[:3])
    token = os.path.join(BOX, "web-token")
    open(token, "w").write("abc.def.ghi")
    answer = (f"<AssumeRoleWithWebIdentityResponse><AssumeRoleWithWebIdentityResult><Credentials><AccessKeyId>{KEYS['id']}"
              f"</AccessKeyId><SecretAccessKey>{KEYS['secret']}</SecretAccessKey></Credentials>"
              "</AssumeRoleWithWebIdentityResult></AssumeRoleWithWebIdentityResponse>")
    # the call is not signed, which moto does not take while it checks signatures
    Proxy.script = lambda action, count, body: (200, {}, answer.encode()) if (
        action == "AssumeRoleWithWebIdentity" and b"&WebIdentityToken=abc.def.ghi" in body) else None
    accepted({}, AWS_WEB_IDENTITY_TOKEN_FILE=token, AWS_ROLE_ARN="arn:aws:iam::123456789012:role/tester-role")
    expect(any(a == "AssumeRoleWithWebIdentity" for a, _ in Proxy.calls))
    Proxy.calls.clear()  # before the keys of the shared file, as boto3 has it
    accepted({"credentials": "[default]\naws_access_key_id = a\naws_secret_access_key = b\n"},
             AWS_WEB_IDENTITY_TOKEN_FILE=token, AWS_ROLE_ARN="arn:aws:iam::123456789012:role/tester-role")
    expect(Proxy.calls[0][0] == "AssumeRoleWithWebIdentity", Proxy.calls[0])
    accepted({"config": f"[default]\nrole_arn = arn:x\nweb_identity_token_file = {token}\n"})
    code, out, err = credentials({}, AWS_WEB_IDENTITY_TOKEN_FILE="/nonexistent", AWS_ROLE_ARN="arn:x")
    expect("/nonexistent" in err, err)


@contextlib.contextmanager
def recorded_dates():
    """Collect the dates by which requests are signed, while they pass the proxy."""
    dates, original = [], Proxy.do_POST

    def record(self):
        dates.append(self.headers["X-Amz-Date"])
        original(self)

    Proxy.do_POST = record
    try:
        yield dates
    finally:
        Proxy.do_POST = original


def test_sts_is_asked_again():
    """When it is busy, and with its own time where that differs."""
    role = "role_arn = arn:aws:iam::123456789012:role/tester-role\n"
    files = {"credentials": "[base]\n" + key_lines(), "config": "[default]\n" + role + "source_profile = base\n"}

    def script(action, count, body):
        if action == "AssumeRole" and count == 1:
            return 500, {}, b"oops"
        if action == "AssumeRole" and count == 2:
            return (403, {"Date": "Thu, 15 Jan 2026 12:30:45 GMT"},
                    b"<ErrorResponse><Error><Code>SignatureDoesNotMatch</Code></Error></ErrorResponse>")

    Proxy.script = script
    with recorded_dates() as dates:
        accepted(files)
    expect(dates[2].startswith("20260115T1230") and dates[3].startswith("20260115T1230"), dates)
    Proxy.script = lambda action, count, body: (
        400, {}, b"<E><Error><Code>IDPCommunicationError</Code><Message>later</Message></Error></E>")
    Proxy.calls.clear()
    code, out, err = credentials(files)
    expect(code == 125 and "IDPCommunicationError: later" in err and len(Proxy.calls) == 3, code, err, Proxy.calls)


def test_more_credentials():
    sts = client("sts", KEYS)
    given = sts.assume_role(RoleArn="arn:aws:iam::123456789012:role/tester-role", RoleSessionName="session")["Credentials"]
    keys = dict(AWS_ACCESS_KEY_ID=given["AccessKeyId"], AWS_SECRET_ACCESS_KEY=given["SecretAccessKey"])
    code, out, err = swerex("fargate-teardown", "--dry-run",
                            env=environment(AWS_SESSION_TOKEN=given["SessionToken"], **keys))
    expect(code == 0, code, out, err)
    code, out, err = swerex("fargate-teardown", "--dry-run", env=environment(AWS_SESSION_TOKEN="wrong", **keys))
    expect(code == 125 and "InvalidClientTokenId" in err, code, out, err)
    role = "[default]\nrole_arn = arn:aws:iam::123456789012:role/tester-role\n"
    folder = tempfile.mkdtemp(dir=BOX)
    os.makedirs(os.path.join(folder, ".aws"))
    open(os.path.join(folder, ".aws", "config"), "w").write(role + "credential_source = Environment\n")
    code, out, err = swerex("fargate-teardown", "--dry-run", "--profile", "default", env=environment(HOME=folder))
    expect(code == 0 and Proxy.calls[-1][0] == "ListRoles" and any(a == "AssumeRole" for a, _ in Proxy.calls), err)
    for more, word in (("credential_source = EcsContainer\n", "this is no container of ECS"),
                       ("credential_source = Moon\n", "Moon is not known"),
                       ("source_profile = nobody\n", "a source_profile that is not there"),
                       ("source_profile = default\nmfa_serial = x\n", "MFA code"),
                       ("", "neither source_profile nor credential_source")):
        code, out, err = credentials({"config": role + more})
        expect(code == 125 and word in err, word, code, err)


def test_addresses_of_services():
    """Of one service, or in a profile; the environment's go first."""
    here = f"http://127.0.0.1:{PROXY}"
    each = {f"AWS_ENDPOINT_URL_{name}": here for name in ("ECS", "EC2", "IAM")}
    accepted({"credentials": "[default]\n" + key_lines()}, AWS_ENDPOINT_URL="http://127.0.0.1:1", **each)
    profile = "[default]\nregion = eu-west-1\n" + key_lines()
    accepted({"config": profile + f"endpoint_url = {here}\n"}, AWS_ENDPOINT_URL=None, AWS_DEFAULT_REGION=None)
    services = "".join(f"{name} =\n  endpoint_url = {here}\n" for name in ("ecs", "ec2", "iam"))
    accepted({"config": profile + "services = s\n[services s]\n" + services}, AWS_ENDPOINT_URL=None)
    code, out, err = credentials({"config": profile}, AWS_ENDPOINT_URL="ftp://x")
    expect(code == 125 and "only http, https and unix are known" in err, err)


def test_https():
    """By libcurl, as AWS itself is spoken to: the signatures hold, a stranger's certificate does not."""
    key, pem = os.path.join(BOX, "key.pem"), os.path.join(BOX, "cert.pem")
    subprocess.run(["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-keyout", key, "-out", pem, "-days", "9",
                    "-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost"], check=True, capture_output=True)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(pem, key)
    server = Server(("127.0.0.1", 0), Proxy)
    server.socket = context.wrap_socket(server.socket, server_side=True)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    address = f"https://localhost:{server.server_address[1]}"
    env = environment(AWS_ENDPOINT_URL=address, SSL_CERT_FILE=pem, CURL_CA_BUNDLE=None)
    code, out, err = swerex("--config", config(), "exec", "echo", "ok", env=env)
    expect(out == "ok\n", code, out, err)
    role = "role_arn = arn:aws:iam::123456789012:role/tester-role\nsource_profile = base\n"
    files = {"credentials": "[base]\n" + key_lines(), "config": f"[default]\nca_bundle = {pem}\n" + role}
    code, out, err = credentials(files, AWS_ENDPOINT_URL=address)
    expect(code == 0, code, out, err)
    env = environment(AWS_ENDPOINT_URL=address, AWS_CA_BUNDLE=pem)
    code, out, err = swerex("fargate-teardown", "--yes", env=env)
    expect(code == 0 and left() == [], code, out, err)
    code, out, err = swerex("fargate-teardown", "--yes", env=environment(AWS_ENDPOINT_URL=address, AWS_MAX_ATTEMPTS="1"))
    expect(code == 125 and "certificate" in err, code, err)


def test_credentials_of_services():
    Metadata.keys = {"AccessKeyId": KEYS["id"], "SecretAccessKey": KEYS["secret"], "Expiration": "2099-01-01T00:00:00Z"}
    base = f"http://127.0.0.1:{serve(Metadata)}"
    accepted({}, AWS_CONTAINER_CREDENTIALS_FULL_URI=base + "/container", AWS_CONTAINER_AUTHORIZATION_TOKEN="Bearer abc")
    file = os.path.join(BOX, "container-token")
    open(file, "w").write("Bearer abc")
    accepted({}, AWS_CONTAINER_CREDENTIALS_FULL_URI=base + "/container", AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE=file,
             AWS_CONTAINER_AUTHORIZATION_TOKEN="not this one")
    code, out, err = credentials({}, AWS_CONTAINER_CREDENTIALS_FULL_URI=base + "/container",
                                 AWS_CONTAINER_AUTHORIZATION_TOKEN="a\r\nb: c")
    expect(code == 125 and "has a line end in it" in err, err)
    code, out, err = credentials({}, AWS_CONTAINER_CREDENTIALS_FULL_URI=base + "/container")
    expect(code == 125 and "/container: status 403" in err, err)
    accepted({}, AWS_EC2_METADATA_DISABLED=None, AWS_EC2_METADATA_SERVICE_ENDPOINT=base)
    role = "[default]\nrole_arn = arn:aws:iam::123456789012:role/tester-role\ncredential_source = Ec2InstanceMetadata\n"
    accepted({"config": role}, AWS_EC2_METADATA_DISABLED=None, AWS_EC2_METADATA_SERVICE_ENDPOINT=base)
    code, out, err = credentials({}, AWS_CONTAINER_CREDENTIALS_FULL_URI="http://example.com/x")
    expect("neither https, nor this machine" in err, err)


def test_expired_credentials_are_renewed():
    """A token that AWS calls expired is fetched anew, once."""
    counter = os.path.join(BOX, "fetched")
    script = os.path.join(BOX, "renew")
    open(script, "w").write(f"#!/bin/sh\necho x >>{counter}\nprintf '{{\"Version\":1,\"AccessKeyId\":\"{KEYS['id']}\","
                            f"\"SecretAccessKey\":\"{KEYS['secret']}\",\"Expiration\":\"2099-01-01T00:00:00Z\"}}'\n")
    os.chmod(script, 0o755)

    def script_expired(action, count, body):
        if action == "ListRoles" and count == 1:
            return 403, {}, (b"<ErrorResponse><Error><Code>ExpiredToken</Code><Message>old</Message></Error>"
                             b"<RequestId>r</RequestId></ErrorResponse>")

    Proxy.script = script_expired
    accepted({"config": f"[default]\ncredential_process = {script}\n"})
    expect(open(counter).read() == "x\nx\n", open(counter).read())
    Proxy.script = lambda action, count, body: (400, {}, b'{"__type":"ExpiredTokenException","message":"too old"}')
    code, out, err = swerex("fargate-teardown", "--dry-run")
    expect(code == 125 and "too old" in err, code, out, err)


def test_a_wrong_clock():
    """The signature carries the server's time once it has said that ours is wrong."""

    def script(action, count, body):
        if action == "ListClusters" and count == 1:
            return (403, {"Date": "Thu, 15 Jan 2026 12:30:45 GMT"},
                    b'{"__type":"InvalidSignatureException","message":"Signature not yet current"}')

    Proxy.script = script
    with recorded_dates() as dates:
        code, out, err = swerex("fargate-teardown", "--dry-run")
    expect(code == 0 and dates[1].startswith("20260115T1230"), code, dates[:3], err)


def test_throttling_and_broken_answers():
    def script(action, count, body):
        if action == "ListClusters":
            return [(400, {}, b'{"__type":"ThrottlingException","message":"Rate exceeded"}'),
                    (500, {}, b"<html>oops</html>"), None][min(count, 3) - 1]
        if action == "DescribeSecurityGroups" and count == 1:
            return 503, {}, b"<Response><Errors><Error><Code>RequestLimitExceeded</Code></Error></Errors></Response>"
        if action == "ListRoles" and count == 1:
            return 200, {}, b"<ListRolesResponse><ListRolesResult><Roles><member>"  # cut off
        if action == "ListTaskDefinitions" and count == 1:
            return 200, {}, b'{"taskDefinitionArns":["', 500  # the connection closes

    Proxy.script = script
    code, out, err = swerex("fargate-teardown", "--dry-run")
    expect(code == 0, code, out, err)
    Proxy.script = lambda action, count, body: (400, {}, b'{"__type":"ThrottlingException","message":"Rate exceeded"}')
    Proxy.calls.clear()
    code, out, err = swerex("fargate-teardown", "--dry-run", env=environment(AWS_MAX_ATTEMPTS="2"))
    expect(code == 125 and "Rate exceeded" in err, code, err)
    expect(sum(a == "ListClusters" for a, _ in Proxy.calls) == 2, Proxy.calls)


def test_hostile_answers():
    bomb = (b'<!DOCTYPE a [<!ENTITY b "bbbbbbbb"><!ENTITY c "&b;&b;&b;&b;">]><Response><Errors><Error><Code>&c;</Code>'
            b"</Error></Errors></Response>")
    for body in (bomb, b"<a>" * 5000, b"\xff\xfe", b"", b'{"clusters":' + b"[" * 5000, b'{"clusters":[{"status":5}]}'):
        Proxy.script = lambda action, count, sent, body=body: (400, {}, body)
        code, out, err = swerex("--config", config(), "exec", "true")
        expect(code == 125 and "DescribeClusters: " in err and "400" in err, code, err)
        Proxy.script = lambda action, count, sent, body=body: (200, {}, body)
        code, out, err = swerex("--config", config(), "exec", "true", env=environment(AWS_MAX_ATTEMPTS="1"))
        expect(code == 125 and "ERROR" not in err.replace("Error", ""), code, err)


def test_errors_name_call_code_and_request():
    def script(action, count, body):
        if action == "CreateRole":
            return (403, {}, b"<ErrorResponse><Error><Type>Sender</Type><Code>AccessDenied</Code><Message>not you</Message>"
                             b"</Error><RequestId>r-1</RequestId></ErrorResponse>")

    Proxy.script = script
    refused("CreateRole: AccessDenied: not you (request r-1)")
    Proxy.script = lambda action, count, body: (400, {"x-amzn-RequestId": "r-2"}, (
        b'{"__type":"com.amazonaws.ecs#ClientException","Message":"no more"}')) if action == "RegisterTaskDefinition" else None
    refused("RegisterTaskDefinition: ClientException: no more (request r-2)")


def test_failures_of_run_task():
    for reason, wait in (("RESOURCE:ENI", False), ("Capacity is unavailable at this time", True)):
        def script(action, count, body, reason=reason, wait=wait):
            if action == "RunTask" and not (wait and count == 2):
                return 200, {}, json.dumps({"tasks": [], "failures": [{"reason": reason}]}).encode()

        Proxy.script = script
        Proxy.calls.clear()
        if not wait:
            refused("no task was started: RESOURCE:ENI")
            continue
        code, out, err = swerex("--config", config(), "exec", "echo", "ok")
        expect(out == "ok\n", code, out, err)
        tokens = [json.loads(b)["clientToken"] for a, b in Proxy.calls if a == "RunTask"]
        expect(len(tokens) == 2 and tokens[0] != tokens[1], tokens)
        swerex("fargate-teardown", "--yes")


def test_a_lost_answer_starts_one_task():
    def script(action, count, body):
        if action == "RunTask" and count == 1:
            return 200, {}, b'{"tasks', 500

    Proxy.script = script
    Proxy.calls.clear()
    code, out, err = swerex("--config", config(), "exec", "echo", "ok")
    expect(out == "ok\n", code, out, err)
    tokens = {json.loads(b)["clientToken"] for a, b in Proxy.calls if a == "RunTask"}
    expect(len(tokens) == 1 and sum(a == "RunTask" for a, _ in Proxy.calls) == 2, tokens)


def test_new_roles_and_tasks_become_known():
    def script(action, count, body):
        if action == "RunTask" and count == 1:
            return 400, {}, b'{"__type":"ClientException","message":"ECS was unable to assume the role"}'
        if action == "DescribeTasks" and count == 1:
            return 200, {}, b'{"tasks":[],"failures":[{"reason":"MISSING"}]}'
        if action == "DescribeNetworkInterfaces" and count == 1:
            return 200, {}, (b"<R><networkInterfaceSet><item><networkInterfaceId>eni-1</networkInterfaceId></item>"
                             b"</networkInterfaceSet></R>")

    Proxy.script = script
    Proxy.calls.clear()
    code, out, err = swerex("--config", config(), "exec", "echo", "ok")
    expect(out == "ok\n", code, out, err)
    expect(sum(a == "RunTask" for a, _ in Proxy.calls) == 2)


def test_a_task_that_never_runs():
    stopped = {"tasks": [{"taskArn": "a", "lastStatus": "STOPPED", "stopCode": "TaskFailedToStart",
                          "stoppedReason": "CannotPullContainerError: no such image",
                          "containers": [{"name": "python311", "reason": "not pulled", "exitCode": 137}]}]}
    Proxy.script = lambda action, count, body: (
        (200, {}, json.dumps(stopped).encode()) if action == "DescribeTasks" else None)
    refused("TaskFailedToStart: CannotPullContainerError: no such image", "container python311 ended with exit code 137",
            "not pulled", log_group=None)


def test_a_task_without_an_address():
    def script(action, count, body):
        if action == "DescribeTasks":
            return 200, {}, b'{"tasks":[{"lastStatus":"RUNNING","attachments":[]}]}'

    Proxy.script = script
    refused("DescribeTasks: the answer has no networkInterfaceId")
    refused("DescribeTasks: the answer has no privateIPv4Address", assign_public_ip=False)


def test_a_group_without_rules_is_mended():
    """The original's teardown can leave one: no way in, and none out."""
    one = config()
    code, out, err = swerex("--config", one, "exec", "true")
    expect(code == 0, code, out, err)
    ec2 = client("ec2", KEYS)
    (group,) = [g for g in ec2.describe_security_groups()["SecurityGroups"] if g["GroupName"].startswith("swe-rex")]
    ec2.revoke_security_group_ingress(GroupId=group["GroupId"], IpPermissions=group["IpPermissions"])
    ec2.revoke_security_group_egress(GroupId=group["GroupId"], IpPermissions=group["IpPermissionsEgress"])
    code, out, err = swerex("--config", one, "exec", "echo", "ok")
    expect(out == "ok\n", code, out, err)
    (mended,) = ec2.describe_security_groups(GroupIds=[group["GroupId"]])["SecurityGroups"]
    expect(mended["IpPermissions"] and mended["IpPermissionsEgress"], mended)


def test_capacity_providers_of_others():
    for more in ({"capacityProviders": ["mine"]},
                 {"capacityProviders": [], "defaultCapacityProviderStrategy": [{"capacityProvider": "FARGATE"}]}):
        found = {"clusters": [{"status": "ACTIVE", "clusterArn": "arn:aws:ecs:us-east-1:1:cluster/c", **more}]}
        Proxy.script = lambda action, count, body, found=found: (
            (200, {}, json.dumps(found).encode()) if action == "DescribeClusters" else None)
        refused("has capacity providers of its own", capacity_provider="FARGATE_SPOT")
    expect(not any(a == "PutClusterCapacityProviders" for a, _ in Proxy.calls))


def test_the_address_of_the_log():
    """With the warning of an open port; the token is in neither."""
    code, out, err = swerex("--verbose", "--config", json.dumps({"type": "fargate", "port": free_port()}), "exec", "true")
    expect(code == 0, code, out, err)
    task = [json.loads(body)["tasks"][0] for action, body in Proxy.calls if action == "DescribeTasks"][0]
    expect("https://us-east-1.console.aws.amazon.com/cloudwatch/home?region=us-east-1#logsV2:log-groups/log-group/"
           f"%2Fecs%2Fswe-rex-deployment/log-events/ecs%2Fpython311%2F{task.split('/')[-1]}" in err, err)
    expect("is open to the whole internet" in err, err)
    steps = ("Reading AWS settings", "Creating cluster", "Creating execution role", "Creating task definition",
             "Creating security group", "Starting task", "Starting runtime", "Stopping runtime")
    expect(sorted(err.index(step) for step in steps) == [err.index(step) for step in steps], err)
    (body,) = [json.loads(body) for action, body in Proxy.calls if action == "RunTask"]
    (pair,) = body["overrides"]["containerOverrides"][0]["environment"]
    expect(pair["value"] not in err and KEYS["secret"] not in err, err)
    code, out, err = swerex("--verbose", "--config", config(log_group=None), "exec", "true")
    expect("logsV2" not in err and "whole internet" not in err, err)


def test_others_were_faster():
    """What another start has made at the same moment is used."""
    def script(action, count, body):
        if action == "GetRole" and count == 1:
            return 404, {}, b"<ErrorResponse><Error><Code>NoSuchEntity</Code></Error></ErrorResponse>"
        if action == "DescribeSecurityGroups" and count == 1:
            return 200, {}, b"<R><securityGroupInfo/></R>"

    one = config()
    swerex("--config", one, "exec", "true")
    Proxy.script = script
    Proxy.calls.clear()
    code, out, err = swerex("--config", one, "exec", "echo", "ok")
    expect(out == "ok\n", code, out, err)
    actions = [a for a, _ in Proxy.calls]
    expect("CreateRole" in actions and "CreateSecurityGroup" in actions, actions)


def test_no_default_vpc():
    Proxy.script = lambda action, count, body: (
        (200, {}, b"<DescribeVpcsResponse><vpcSet/></DescribeVpcsResponse>") if action == "DescribeVpcs" else None)
    refused("there is no default VPC in us-east-1", "create-default-vpc")


def test_pages():
    def script(action, count, body):
        if action == "ListClusters":
            asked.append(json.loads(body).get("nextToken"))
            return 200, {}, json.dumps({"clusterArns": [f"arn:x:cluster/c{count}"],
                                        "nextToken": f"t{count}" if count < 3 else None}).encode()
        if action == "DescribeClusters":
            seen.append(json.loads(body)["clusters"][0])
            return 200, {}, b'{"clusters":[]}'

    asked, seen = [], []
    Proxy.script = script
    Proxy.calls.clear()
    code, out, err = swerex("fargate-teardown", "--dry-run")
    expect(code == 0 and asked == [None, "t1", "t2"], code, asked, err)
    expect(seen == ["arn:x:cluster/c1", "arn:x:cluster/c2", "arn:x:cluster/c3"], seen)


def test_teardown_goes_on():
    """What cannot be removed is reported, and the rest goes."""
    swerex("--config", config(), "exec", "true")

    def script(action, count, body):
        if action == "DeleteSecurityGroup" and count == 1:
            return 400, {}, b"<R><Errors><Error><Code>DependencyViolation</Code></Error></Errors></R>"
        if action == "DeleteCluster":
            return 403, {}, b'{"__type":"AccessDeniedException","message":"not this one"}'

    Proxy.script = script
    Proxy.calls.clear()
    code, out, err = swerex("fargate-teardown", "--yes")
    expect(code == 125 and "not this one" in err and "FAILED   cluster" in out, code, out, err)
    expect(out.count("removed  ") == 3, out)
    expect(sum(a == "DeleteSecurityGroup" for a, _ in Proxy.calls) == 2)
    Proxy.script = None
    code, out, err = swerex("fargate-teardown", "--yes")
    expect(code == 0 and left() == [], code, out, err)


def test_teardown_of_a_task_that_runs():
    """A client that was killed leaves its task running; it is listed with age and state, and goes."""
    one = config()
    victim = subprocess.Popen([TOOL, "--config", one, "exec", "sleep", "100"], env=environment(),
                              stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    while not any(a == "DescribeNetworkInterfaces" for a, _ in Proxy.calls):
        time.sleep(0.1)
    time.sleep(1)
    victim.kill()
    victim.wait()
    code, out, err = swerex("fargate-teardown", "--dry-run")
    rows = [line.split() for line in out.splitlines()]
    expect(code == 0 and [row[0] for row in rows] == ["task", "cluster", "task", "security", "role"], out)
    expect(re.search(r"^task +\d+ s +RUNNING +arn:aws:ecs:us-east-1:123456789012:task/swe-rex-cluster/", out, re.M), out)
    expect(re.search(r"^cluster +ACTIVE +arn", out, re.M), out)
    expect(re.search(r"^task definition +\d+ s +ACTIVE +arn", out, re.M), out)
    expect(re.search(r"^role +\d+ s +swe-rex-execution-role-011809e9671d$", out, re.M), out)
    expect(len(left()) == 5, left())
    code, out, err = swerex("fargate-teardown", "--yes")
    expect(code == 0 and out.count("removed  ") == 5 and left() == [], code, out, err, left())


def test_teardown_killed_half_way():
    """What one leaves, the next finds: a definition that is no more active, a role without policies."""
    for action_at in ("DeleteCluster", "DeregisterTaskDefinition", "DeleteSecurityGroup", "DetachRolePolicy",
                      "DeleteRolePolicy"):
        swerex("--config", config(), "exec", "true")
        victim = [None]

        def after(action, count, victim=victim, action_at=action_at):
            if action == action_at:
                victim[0].kill()

        victim[0] = subprocess.Popen([TOOL, "fargate-teardown"], env=environment(), stdin=subprocess.PIPE,
                                     stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        Proxy.after = after
        victim[0].communicate(b"y\n", timeout=60)
        Proxy.after = None
        expect(victim[0].returncode == -signal.SIGKILL and left() != [], action_at, victim[0].returncode, left())
        code, out, err = swerex("fargate-teardown", "--yes")
        expect(code == 0 and left() == [], action_at, code, out, err, left())


def test_teardown_reports_lists_and_definitions():
    """A list that may not be seen is no end, and no success; nor is a definition that stays."""
    swerex("--config", config(), "exec", "true")

    def script(action, count, body):
        if action == "ListRoles":
            return 403, {}, b"<ErrorResponse><Error><Code>AccessDenied</Code><Message>no roles</Message></Error></ErrorResponse>"
        if action == "DeleteTaskDefinitions":
            return 200, {}, b'{"taskDefinitions":[],"failures":[{"arn":"a","reason":"IN USE","detail":"by a service"}]}'

    Proxy.script = script
    code, out, err = swerex("fargate-teardown", "--yes")
    expect(code == 125 and "2 failures, of which the first is: ListRoles: AccessDenied: no roles" in err, code, out, err)
    expect("DeleteTaskDefinitions: IN USE: by a service" in out and out.count("removed  ") == 2, out)


def test_the_permissions_of_the_readme():
    """A user with no more than what the README names can start, fail, and remove it all."""
    readme = open(os.path.join(HERE, "..", "..", "README.md")).read()
    text = " ".join(readme.split("## AWS Fargate")[1].split("\n## ")[0].split())
    allowed = []
    for service, names in re.findall(r"`(ecs|iam|ec2|logs):`((?: (?:and )?[A-Z]\w+,?)+)", text):
        allowed += [f"{service}:{name.strip(',')}" for name in names.replace(" and ", " ").split()]
    allowed += re.findall(r"`((?:ecs|iam|ec2|logs):[A-Z]\w+)`", text)
    expect(len(allowed) > 35, allowed)
    iam = client("iam", KEYS)
    iam.create_user(UserName="reader")
    iam.put_user_policy(UserName="reader", PolicyName="p", PolicyDocument=json.dumps(
        {"Version": "2012-10-17", "Statement": [{"Effect": "Allow", "Action": allowed, "Resource": "*"}]}))
    key = iam.create_access_key(UserName="reader")["AccessKey"]
    env = environment(AWS_ACCESS_KEY_ID=key["AccessKeyId"], AWS_SECRET_ACCESS_KEY=key["SecretAccessKey"])
    code, out, err = swerex("--config", config(), "exec", "echo", "ok", env=env)
    expect(out == "ok\n", code, out, err)
    code, out, err = swerex("fargate-teardown", "--yes", env=env)
    expect(code == 0 and left() == [], code, out, err, left())
    Proxy.script = lambda action, count, body: (
        (400, {}, b'{"__type":"ClientException","message":"enough"}') if action == "RunTask" else None)
    refused("RunTask: ClientException: enough", env=env)


def test_settings_that_cannot_be():
    refused("You must specify a region", env=environment(AWS_DEFAULT_REGION=None), limit=5)
    refused("not the name of a region", env=environment(AWS_DEFAULT_REGION="eu west!"), limit=5)
    err = refused("AWS_USE_FIPS_ENDPOINT", env=environment(AWS_USE_FIPS_ENDPOINT="true"), limit=5)
    expect("not supported" in err, err)


def serve_folder(folder):
    from functools import partial
    from http.server import SimpleHTTPRequestHandler

    class Quiet(SimpleHTTPRequestHandler):
        def log_message(self, *_):
            pass

    return serve(partial(Quiet, directory=folder))


def main():
    passed = failed = 0
    for name, test in list(globals().items()):
        if not name.startswith("test_") or (len(sys.argv) > 3 and sys.argv[3] not in name):
            continue
        Proxy.script = Proxy.changed = Proxy.held = Proxy.after = None
        Proxy.calls.clear()
        began = time.time()
        try:
            test()
            passed += 1
            print(f"ok {name[5:]} ({time.time() - began:.1f} s)")
        except Exception as error:
            failed += 1
            print(f"not ok {name[5:]}: {type(error).__name__}: {str(error)[:3000]}")
        Proxy.script = Proxy.changed = Proxy.held = Proxy.after = None
        swerex("fargate-teardown", "--yes")
        sys.stdout.flush()
    print(f"{passed} passed, {failed} failed")
    return failed


MOTO, PROXY = free_port(), serve(Proxy)
os.environ["ASAN_OPTIONS"] = "detect_leaks=1"
process = start_moto()
KEYS = make_user()
ask_moto("/moto-api/reset-auth", "0", "text/plain")
try:
    status = main()
finally:
    os.killpg(process.pid, signal.SIGKILL)
    shutil.rmtree(BOX, ignore_errors=True)
sys.exit(1 if status else 0)
