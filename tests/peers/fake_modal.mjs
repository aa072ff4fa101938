// A small Modal on loopback, with Modal's own definitions and grpc-js. A sandbox is a process here.
//
//   node fake_modal.mjs FOLDER LOG
//
// FOLDER has node_modules/modal (npm install --prefix FOLDER modal@0.11.1). The first line of stdout
// is the port: MODAL_SERVER_URL=http://127.0.0.1:PORT. It ends on SIGTERM, SIGINT, or with its parent,
// and ends every sandbox with it. Environment:
//   FAKE_PATH  folders put before PATH in the sandboxes: what "the image" brings along
//   FAKE_TLS   CERT.pem:KEY.pem, to serve https (the blob store stays http)
//
// Credentials: MODAL_TOKEN_ID=ak-fake MODAL_TOKEN_SECRET=as-fake; all others are UNAUTHENTICATED.
//
// Faults are asked for in the token's id, which is on every call:
//   ak-fake/KIND:METHOD[:TIMES][/KIND:METHOD...]     for example ak-fake/unavailable:SandboxCreate:2
// METHOD is a name of the protocol, where XV2 is counted as X, or `*`. TIMES: the first so many calls
// of each token's id; without it all of them. KIND is one of
//   - a gRPC status in small letters: unauthenticated, resource_exhausted, unavailable, internal, ...
//   - throttle: RESOURCE_EXHAUSTED with an RPCRetryPolicy of 0.2 s in grpc-status-details-bin
//   - below gRPC, on the HTTP/2 stream (of a streaming call, the first message still arrives whole):
//     never (no answer), stall (headers and a part of a frame, then nothing), refuse (RST REFUSED),
//     reset (RST INTERNAL_ERROR within a frame), drop (the connection closes within a frame),
//     prefix (a length longer than what follows, and trailers), huge (a length of 100 MiB and one, and
//     data), compressed (flag 1), garbage and truncated (a whole frame that is no message), two (two
//     messages), none (no message, status 0), empty (one without a field), no-trailers, html (503 and a page), no-grpc (200, a page)
//   - of one answer: lost (the call is done, and drop), late (it is done, and answered 3 s later)
//   - of the sandbox: exits:SandboxCreate (the command is `echo`s and exit 3), dies:SandboxCreate
//     (killed 0.5 s after its tunnels were told), waits:SandboxGetTunnels (TIMEOUT as the result),
//     no-tunnels:SandboxGetTunnels (none), tls:SandboxGetTunnels (the TLS host is filled too),
//     full:SandboxGetTaskId (no task ever, as without capacity), init-fails:SandboxCreate (INIT_FAILURE)
// What is asked for also decides: the log of an image with `dripping` takes its time; an image, base or
// step whose text has `nosuch` fails its build with its last lines, and so does one whose registry
// secret is missing keys or has a password `wrong`; an environment, named secret or named volume
// `nosuch...` is NOT_FOUND; so is what the id of nothing is.
//
// LOG gets a line of JSON for each request, in the order of arrival:
//   {number, method, message, headers, bytes, canonical}   message as in JSON of protobuf, without defaults;
//                                  file contents are told as `sha256:HEX`. bytes is the length on the
//                                  wire and canonical that of the official encoder for the same message:
//                                  if they differ there were unknown fields, or defaults sent.
// an answer {event: 'answer', to: NUMBER, answer} for those calls that had one message and no fault,
// and for the sandboxes {event: 'started' | 'ended', sandbox, argv, port, pid, why}.
//
// In a sandbox's command the paths of mounted files become those of copies in a folder of its own, and
// `--port N` (or --port=N) of an open port N becomes a free port of this machine, the tunnel's.
import { spawn } from 'node:child_process';
import crypto from 'node:crypto';
import fs from 'node:fs';
import http from 'node:http';
import http2 from 'node:http2';
import net from 'node:net';
import os from 'node:os';
import path from 'node:path';
import { load } from './modal_defs.mjs';

const [folder, logFile] = process.argv.slice(2);
const { client, router, codecs, grpc, ServerCredentials } = await load(folder);
const { createServer, ServerError, Status } = grpc;
const root = fs.mkdtempSync(path.join(os.tmpdir(), 'fake-modal-'));
const sleep = (ms) => new Promise((done) => setTimeout(done, ms));
const sha256 = (data) => crypto.createHash('sha256').update(data).digest('hex');
const log = (line) => fs.appendFileSync(logFile, JSON.stringify(line) + '\n');
const RESULT = { success: 1, failure: 2, terminated: 3, timeout: 4, initFailure: 5 };

function refuse(status, text) {
  throw new ServerError(Status[status], text);
}

function need(condition, text, status = 'INVALID_ARGUMENT') {
  if (!condition) refuse(status, text);
}

// --- what there is, by id ---

const LETTERS = 'ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789';
const random = (n) =>
  Array.from(crypto.randomBytes(n), (b) => LETTERS[b % LETTERS.length]).join('');

class Store {
  constructor(what, prefix) {
    Object.assign(this, { what, prefix, items: new Map() });
  }
  add(item, id = `${this.prefix}-${random(22)}`) {
    this.items.set(id, Object.assign(item, { id }));
    return item;
  }
  get(id) {
    need(this.items.has(id), `${this.what} '${id}' not found`, 'NOT_FOUND');
    return this.items.get(id);
  }
  find(test) {
    return [...this.items.values()].find(test);
  }
}
const apps = new Store('App', 'ap');
const secrets = new Store('Secret', 'st');
const images = new Store('Image', 'im');
const mounts = new Store('Mount', 'mo');
const volumes = new Store('Volume', 'vo');
const blobs = new Store('Blob', 'bl');
const sandboxes = new Store('Sandbox', 'sb');
const contents = new Map(); // sha256 to bytes
const seen = new Set(); // hashes that were put once and were not said to exist yet

// Look a named thing up or make it, as its creation type says.
function named(store, environment, name, type, item) {
  need(/^[A-Za-z0-9-_.]{1,64}$/.test(name), `Invalid name '${name}'`);
  need(
    !`${environment}`.startsWith('nosuch'),
    `Environment '${environment}' not found`,
    'NOT_FOUND',
  );
  const found = store.find((x) => x.name === name && x.environment === environment);
  if (found) return found;
  need(
    type === 1 || (store !== apps && !name.startsWith('nosuch')),
    `${store.what} '${name}' not found`,
    'NOT_FOUND',
  );
  return store.add({ ...item, name, environment });
}

// --- tokens ---

const key = crypto.randomBytes(32);
const sign = (text) => crypto.createHmac('sha256', key).update(text).digest('base64url');

function token(purpose) {
  const part = (value) => Buffer.from(JSON.stringify(value)).toString('base64url');
  const text = `${part({ alg: 'HS256', typ: 'JWT' })}.${part({ exp: Math.floor(Date.now() / 1000) + 3600, purpose })}`;
  return `${text}.${sign(text)}`;
}

function verify(jwt, purpose) {
  const parts = `${jwt}`.split('.');
  return (
    parts.length === 3 &&
    sign(`${parts[0]}.${parts[1]}`) === parts[2] &&
    JSON.parse(Buffer.from(parts[1], 'base64url')).purpose === purpose
  );
}

function authorize(call) {
  const { headers, method } = call;
  if (call.service === router) {
    need(
      verify(`${headers.authorization}`.replace(/^Bearer /, ''), 'router'),
      'Invalid router token',
      'UNAUTHENTICATED',
    );
    return;
  }
  need(
    headers['x-modal-token-id'] && headers['x-modal-token-secret'],
    'Token missing',
    'UNAUTHENTICATED',
  );
  need(
    /^ak-fake(\/|$)/.test(headers['x-modal-token-id']) &&
      headers['x-modal-token-secret'] === 'as-fake',
    'Token validation failed',
    'UNAUTHENTICATED',
  );
  need(
    /^\d+$/.test(headers['x-modal-client-type']) && headers['x-modal-client-version'],
    'Client unknown',
  );
  if (method.endsWith('V2')) {
    need(
      verify(headers['x-modal-auth-token'], 'auth'),
      'Auth token missing or invalid',
      'UNAUTHENTICATED',
    );
  }
}

// --- faults ---

const counts = new Map();
const askers = new Map(); // who asked for a token for routers, by it

// The kind of fault that this call is to have.
function faultOf({ headers, method }) {
  const id = `${headers['x-modal-token-id'] ?? askers.get(headers.authorization)}`;
  const asked = id
    .split('/')
    .slice(1)
    .map((text) => text.split(':'));
  for (const [i, [kind, name, times]] of asked.entries()) {
    const place = `${id} ${i}`;
    if (name !== '*' && name !== method.replace(/V2$/, '')) continue;
    counts.set(place, (counts.get(place) ?? 0) + 1);
    if (times === undefined || counts.get(place) <= Number(times)) return kind;
  }
  return '';
}

const frame = (bytes, length = bytes.length, flag = 0) => {
  const head = Buffer.alloc(5);
  head[0] = flag;
  head.writeUInt32BE(length, 1);
  return Buffer.concat([head, bytes]);
};
const answer = (stream, trailers) => {
  stream.respond(
    { ':status': 200, 'content-type': 'application/grpc' },
    { waitForTrailers: trailers !== null },
  );
  if (trailers !== null) stream.on('wantTrailers', () => stream.sendTrailers(trailers));
};
const part = frame(Buffer.from([0x0a, 0x20, 0x61, 0x70]), 34); // a frame that is not all there
const bytes = (...list) => Buffer.from(list);
const OK = { 'grpc-status': '0' };

// Answer with a page instead of gRPC.
function page(stream, status) {
  stream.respond({ ':status': status, 'content-type': 'text/html' });
  stream.end('<html><body>Nobody is here.</body></html>');
}

// Faults below gRPC: each gets the stream, and what is to be sent before.
const wire = {
  never() {},
  refuse: (stream) => stream.close(http2.constants.NGHTTP2_REFUSED_STREAM),
  html: (stream) => page(stream, 503),
  'no-grpc': (stream) => page(stream, 200),
  none: (stream) => (answer(stream, OK), stream.end()),
  empty: (stream) => (answer(stream, OK), stream.end(frame(bytes()))),
  stall: (stream, first) => (answer(stream, OK), stream.write(Buffer.concat([first, part]))),
  reset(stream, first) {
    answer(stream, OK);
    stream.write(Buffer.concat([first, part]), () =>
      setTimeout(() => stream.close(http2.constants.NGHTTP2_INTERNAL_ERROR), 50),
    );
  },
  drop(stream, first) {
    answer(stream, OK);
    stream.write(Buffer.concat([first, part]), () =>
      setTimeout(() => stream.session?.destroy(), 50),
    );
  },
  prefix: (stream, first) => (answer(stream, OK), stream.end(Buffer.concat([first, part]))),
  huge: (stream, first) => (
    answer(stream, OK),
    stream.write(Buffer.concat([first, frame(Buffer.alloc(1 << 20), (100 << 20) + 1)]))
  ),
  compressed: (stream, first) => (
    answer(stream, OK), stream.end(Buffer.concat([first, frame(bytes(0x0a, 0), 2, 1)]))
  ),
  garbage: (stream, first) => (
    answer(stream, OK), stream.end(Buffer.concat([first, frame(Buffer.alloc(16, 0xff))]))
  ),
  truncated: (stream, first) => (
    answer(stream, OK), stream.end(Buffer.concat([first, frame(bytes(0x0a, 0x7f, 0x61))]))
  ),
  two: (stream) => (
    answer(stream, OK), stream.end(Buffer.concat([frame(bytes()), frame(bytes())]))
  ),
  'no-trailers': (stream, first) => (
    answer(stream, null), stream.end(first.length ? first : frame(bytes()))
  ),
};

// The detail that makes a client wait and try again, in a form that says for how long.
function throttle(call) {
  const value = codecs.RPCRetryPolicy.encode({ retryAfterSecs: 0.2 }).finish();
  const details = [
    { typeUrl: 'type.googleapis.com/modal.client.RPCRetryPolicy', value: Buffer.from(value) },
  ];
  const status = codecs.RPCStatus.encode({ code: 8, message: 'slow down', details }).finish();
  call.trailer.set('grpc-status-details-bin', status);
  refuse('RESOURCE_EXHAUSTED', 'slow down');
}

// Do what the call's fault says, unless it is one that the method itself looks at.
async function applyFault(call, first) {
  const status = call.fault.toUpperCase();
  if (call.fault === 'throttle') throttle(call);
  if (Status[status] > 0) refuse(status, `${call.method} was told to fail: 100% "é"`);
  if (!(call.fault in wire)) return;
  wire[call.fault](call.stream, first);
  await new Promise(() => {});
}

// --- images ---

// Tell why an image cannot be built, or nothing.
function buildFault(image) {
  const lines = image.dockerfileCommands;
  const bad = lines.find((line) => line.includes('nosuch'));
  if (bad) return [`${bad}: not found: the registry has no such image or the step failed`];
  const config = image.imageRegistryConfig;
  if (config?.secretId) {
    const env = secrets.get(config.secretId).env;
    const keys = {
      1: ['AWS_ACCESS_KEY_ID', 'AWS_SECRET_ACCESS_KEY', 'AWS_REGION'],
      4: ['REGISTRY_USERNAME', 'REGISTRY_PASSWORD'],
    };
    const missing = (keys[config.registryAuthType] ?? ['(a known kind of login)']).filter(
      (name) => !env[name],
    );
    if (missing.length) return [`registry login: the secret has no ${missing.join(', ')}`];
    if (env.REGISTRY_PASSWORD === 'wrong') return ['registry login: 401 Unauthorized'];
  }
  const files = image.contextMountId ? [...mounts.get(image.contextMountId).files.keys()] : [];
  files.push(...image.contextFiles.map((file) => file.filename));
  for (const line of lines) {
    const words = line
      .trim()
      .split(/\s+/)
      .filter((word) => !/^--(chmod|chown|link)/.test(word));
    if (words[0]?.toUpperCase() !== 'COPY' || words[1]?.startsWith('--from')) continue;
    for (const source of words.slice(1, -1)) {
      const clean = path.posix.normalize(`/${source}`).replace(/\/$/, '');
      const pattern = new RegExp(
        `^${clean
          .replace(/[.+^$()|[\]{}\\]/g, '\\$&')
          .replace(/\*/g, '[^/]*')
          .replace(/\?/g, '[^/]')}(/|$)`,
      );
      if (!files.some((file) => pattern.test(file)))
        return [`${line}`, `COPY failed: file not found in build context: ${source}`];
    }
  }
  return null;
}

// The log of a build in batches that have an entry's id each; a line may be cut anywhere.
function buildLog(image, fault) {
  const steps = image.dockerfileCommands.filter((line) => line.trim());
  const texts = steps.map((line, i) => `=> Step ${i}: ${line}\n`);
  const out = [
    'Building image ',
    `with ${steps.length} steps\n`,
    ...texts,
    ...(fault ?? ['Saving image...']).map((line) => `${line}\n`),
  ];
  const half = Math.ceil(out.length / 2);
  const logs = (list) =>
    list.map((data) => ({ data, fileDescriptor: 3, timestamp: Date.now() / 1000 }));
  return [
    { entryId: '1-0', taskLogs: logs(out.slice(0, 1)) },
    {
      entryId: '1-1',
      taskLogs: [
        ...logs(out.slice(1, half)),
        { data: '', taskProgress: { len: 10, pos: 5, description: 'pulling' } },
      ],
    },
    { entryId: '2-0', taskLogs: logs(out.slice(half)) },
  ];
}

function imageGetOrCreate(request) {
  const image = request.image ?? {};
  apps.get(request.appId);
  need(/^20\d\d\.\d\d$/.test(request.builderVersion), 'builder_version is needed');
  need(
    image.dockerfileCommands?.some((line) => /^\s*FROM /i.test(line)),
    'An image needs a FROM line',
  );
  for (const base of image.baseImages) {
    need(
      images.get(base.imageId).status === RESULT.success,
      `Base image ${base.imageId} is not built`,
      'FAILED_PRECONDITION',
    );
    need(
      image.dockerfileCommands[0] === `FROM ${base.dockerTag}`,
      'The base image has to be what the first line is FROM',
    );
  }
  image.secretIds.forEach((id) => secrets.get(id));
  const definition = JSON.stringify([codecs.Image.toJSON(image), request.builderVersion]);
  const known = images.find((x) => x.definition === definition);
  if (known?.status === RESULT.success && !request.forceBuild) {
    return {
      imageId: known.id,
      result: { status: known.status },
      metadata: { imageBuilderVersion: request.builderVersion },
    };
  }
  const fault = buildFault(image);
  return {
    imageId: images.add({
      definition,
      fault,
      status: 0,
      version: request.builderVersion,
      log: buildLog(image, fault),
    }).id,
  };
}

// Two batches of the log; those who come with the last of them get the rest and the result.
async function* imageJoinStreaming({ imageId, lastEntryId }) {
  const image = images.get(imageId);
  const at = image.log.findIndex((batch) => batch.entryId === lastEntryId) + 1;
  need(at > 0 || lastEntryId === '', `Unknown entry ${lastEntryId}`);
  for (let i = 0; i < 8 && image.definition.includes('dripping'); i++) {
    await sleep(300);
    yield { taskLogs: [{ data: `drop ${i}\n`, fileDescriptor: 1 }] };
  }
  for (const batch of image.log.slice(at, at + 2)) {
    await sleep(20);
    yield batch;
  }
  if (at < 2) {
    yield {};
    return;
  }
  image.status = image.fault ? RESULT.failure : RESULT.success;
  const exception = image.fault ? image.fault.join('\n') : '';
  yield {
    entryId: '3-0',
    result: { status: image.status, exception },
    metadata: { imageBuilderVersion: image.version },
    eof: true,
  };
  if (!image.fault)
    yield { entryId: '3-1', taskLogs: [{ data: 'Image saved\n', fileDescriptor: 3 }] };
}

// --- files ---

function mountBatchedCheckExistence({ sha256HexHashes }) {
  need(sha256HexHashes.length <= 64, 'Too many hashes in one call');
  return { missingSha256HexHashes: sha256HexHashes.filter((hash) => !contents.has(hash)) };
}

// The first put of a content does not say yet that it exists, as a slow store would.
function mountPutFile({ sha256Hex, data, dataBlobId }) {
  const content = dataBlobId === undefined ? data : blobs.get(dataBlobId).content;
  need(content !== undefined, 'A file has data or a blob that was uploaded');
  need(data === undefined || data.length < 4 << 20, 'Files of 4 MiB and more go through a blob');
  need(sha256(content) === sha256Hex, `The content is not that of ${sha256Hex}`);
  if (!seen.has(sha256Hex)) {
    seen.add(sha256Hex);
    return { exists: false };
  }
  contents.set(sha256Hex, Buffer.from(content));
  return { exists: true };
}

function mountGetOrCreate(request) {
  const files = new Map();
  if (request.objectCreationType === 4) apps.get(request.appId);
  else need(request.objectCreationType === 5, 'A mount is anonymous or ephemeral');
  need(request.files.length, 'A mount has files');
  for (const { filename, sha256Hex, mode } of request.files) {
    need(
      filename === path.posix.normalize(filename) && filename.startsWith('/'),
      `${filename} is no absolute path`,
    );
    need(contents.has(sha256Hex), `The content of ${filename} was not put`, 'FAILED_PRECONDITION');
    files.set(filename, { content: contents.get(sha256Hex), mode: mode ?? 0o644 });
  }
  const sum = sha256(
    [...files]
      .map(([name, file]) => name + sha256(file.content))
      .sort()
      .join(),
  );
  return { mountId: mounts.add({ files }).id, handleMetadata: { contentChecksumSha256Hex: sum } };
}

const store = http.createServer((request, response) => {
  const chunks = [];
  request
    .on('data', (chunk) => chunks.push(chunk))
    .on('end', () => {
      const content = Buffer.concat(chunks);
      const blob = blobs.items.get(request.url.slice(1));
      const md5 = crypto.createHash('md5').update(content).digest();
      const good =
        request.method === 'PUT' &&
        blob &&
        content.length === blob.length &&
        md5.toString('base64') === blob.md5 &&
        crypto.createHash('sha256').update(content).digest('base64') === blob.sha256;
      if (good) blob.content = content;
      log({
        event: 'blob',
        blob: request.url.slice(1),
        method: request.method,
        length: content.length,
        good: !!good,
      });
      response.writeHead(good ? 200 : 400, { etag: `"${md5.toString('hex')}"` }).end();
    });
});
await new Promise((done) => store.listen(0, '127.0.0.1', done));

function blobCreate({ contentMd5, contentSha256Base64, contentLength }) {
  const blob = blobs.add({
    md5: contentMd5,
    sha256: contentSha256Base64,
    length: Number(contentLength),
  });
  const url = `http://127.0.0.1:${store.address().port}/${blob.id}`;
  return { blobId: blob.id, uploadUrl: url, blobIds: [blob.id], uploadUrls: { items: [url] } };
}

// --- sandboxes ---

let nextPort = 20000 + ((process.pid * 97) % 8000); // below the ports that the kernel hands out

function bindable(port) {
  return new Promise((done) => {
    const server = net.createServer().once('error', () => done(false));
    server.listen(port, '127.0.0.1', () => server.close(() => done(true)));
  });
}

async function freePort() {
  for (;;) {
    const port = nextPort;
    nextPort = port >= 31999 ? 20000 : port + 1;
    if (await bindable(port)) return port;
  }
}

// Kill what was started in a sandbox, in whatever group: it has the sandbox's id in its environment.
function killAll(sandbox) {
  for (const pid of fs.readdirSync('/proc').filter((name) => /^\d+$/.test(name))) {
    try {
      if (
        fs
          .readFileSync(`/proc/${pid}/environ`, 'latin1')
          .split('\0')
          .includes(`MODAL_SANDBOX_ID=${sandbox.id}`)
      ) {
        process.kill(Number(pid), 'SIGKILL');
      }
    } catch {
      // it has ended, or is not ours
    }
  }
}

// Text of a process, kept from its start and told to those who wait for more.
class Output {
  constructor(pipe) {
    Object.assign(this, { chunks: [], ended: false, waiting: new Set() });
    pipe?.on('data', (data) => this.change(() => this.chunks.push(data)));
    pipe?.on('close', () => this.change(() => (this.ended = true)));
  }
  change(how) {
    how();
    for (const wake of this.waiting) wake();
    this.waiting.clear();
  }
  more(ms) {
    return new Promise((done) => {
      this.waiting.add(done);
      setTimeout(done, ms);
    });
  }
  async *from(offset, signal) {
    for (;;) {
      const all = Buffer.concat(this.chunks);
      if (offset < all.length) yield [all.subarray(offset), offset];
      offset = Math.max(offset, all.length);
      if (signal.aborted || (this.ended && offset === Buffer.concat(this.chunks).length)) return;
      await this.more(500);
    }
  }
}

function start(argv, options) {
  const child = spawn(argv[0], argv.slice(1), {
    ...options,
    detached: true,
    stdio: ['pipe', 'pipe', 'pipe'],
  });
  const process = { child, out: [new Output(child.stdout), new Output(child.stderr)] };
  child.stdin.on('error', () => {});
  process.done = new Promise((done) => {
    child.on('error', () => done({ code: 127, signal: 0 }));
    child.on('exit', (code, signal) => {
      setTimeout(() => process.out.forEach((out) => out.change(() => (out.ended = true))), 500);
      done({ code, signal: signal ? os.constants.signals[signal] : 0 });
    });
  });
  return process;
}

function end(sandbox, result, why) {
  if (sandbox.result) return;
  sandbox.result = result;
  clearTimeout(sandbox.timer);
  log({ event: 'ended', sandbox: sandbox.id, why });
  const kill = (signal) => {
    try {
      process.kill(-sandbox.process.child.pid, signal);
    } catch {
      // nobody is left
    }
  };
  kill('SIGTERM');
  setTimeout(() => {
    kill('SIGKILL');
    killAll(sandbox);
    fs.rmSync(sandbox.folder, { recursive: true, force: true });
  }, 1000).unref();
}

// The environment that secrets, sources and variables make, the later ones over the earlier.
function environmentOf(request) {
  const { definition, ephemeralSecrets, secretSources } = request;
  const maps = definition.secretIds.map((id) => secrets.get(id).env);
  maps.push(ephemeralSecrets?.contents ?? {});
  for (const source of secretSources ?? []) {
    maps.push(source.secretId ? secrets.get(source.secretId).env : (source.env?.contents ?? {}));
  }
  maps.push(definition.environmentVariables?.contents ?? {});
  return Object.assign({}, ...maps);
}

function checkDefinition(request, v2) {
  const d = request.definition ?? {};
  const ports = d.openPorts?.ports ?? [];
  apps.get(request.appId);
  need(
    images.get(d.imageId).status === RESULT.success,
    `Image ${d.imageId} is not built`,
    'FAILED_PRECONDITION',
  );
  need(d.entrypointArgs.join('').length <= 65536, 'The command is too long');
  need(d.timeoutSecs > 0 && d.timeoutSecs <= 86400, 'timeout_secs has to be from 1 to 86400');
  need(d.resources, 'resources are needed');
  need(d.workdir === undefined || d.workdir.startsWith('/'), 'workdir has to be absolute');
  need([1, 2, 3].includes(d.networkAccess?.networkAccessType), 'network_access is needed');
  need(d.networkAccess.networkAccessType !== 2 || !ports.length, 'No ports without a network');
  need(!v2 || !d.resources.gpuConfig?.gpuType, 'A GPU needs SandboxCreate', 'FAILED_PRECONDITION');
  d.volumeMounts.forEach((mount) =>
    need(
      volumes.get(mount.volumeId) && mount.mountPath.startsWith('/'),
      'mount_path has to be absolute',
    ),
  );
  need(
    !d.name || !sandboxes.find((x) => x.name === d.name && !x.result),
    `Sandbox '${d.name}' exists`,
    'ALREADY_EXISTS',
  );
}

// Put the mounted files into the sandbox's folder and give their names.
function layOut(sandbox, mountIds) {
  const names = [];
  for (const [name, file] of mountIds.flatMap((id) => [...mounts.get(id).files])) {
    fs.mkdirSync(path.dirname(sandbox.folder + name), { recursive: true });
    fs.writeFileSync(sandbox.folder + name, file.content);
    fs.chmodSync(sandbox.folder + name, file.mode);
    names.push(name);
  }
  return names.sort((a, b) => b.length - a.length);
}

async function sandboxCreate(request, call) {
  const v2 = call.method.endsWith('V2');
  checkDefinition(request, v2);
  const d = request.definition;
  const sandbox = {
    v2,
    fault: call.fault,
    name: d.name,
    appId: request.appId,
    taskId: `ta-${random(v2 ? 26 : 22)}`,
    asked: 0,
    ports: [],
  };
  sandbox.folder = fs.mkdtempSync(path.join(root, 'sandbox-'));
  sandboxes.add(sandbox, `sb-${random(v2 ? 26 : 22)}`);
  let argv = d.entrypointArgs.length ? d.entrypointArgs : ['sleep', `${d.timeoutSecs}`];
  for (const { port, unencrypted } of d.openPorts?.ports ?? []) {
    const real = await freePort();
    sandbox.ports.push({ port, unencrypted, real });
    argv = argv
      .map((arg, i) => (arg === `${port}` && argv[i - 1] === '--port' ? `${real}` : arg))
      .map((arg) => arg.replace(new RegExp(`(--port[ =])${port}\\b`, 'g'), `$1${real}`));
  }
  for (const name of layOut(sandbox, d.mountIds))
    argv = argv.map((arg) => arg.replaceAll(name, sandbox.folder + name));
  if (call.fault === 'exits')
    argv = ['sh', '-c', 'echo the sandbox says this; echo and complains of that >&2; exit 3'];
  if (call.fault === 'init-fails') argv = ['sh', '-c', 'exit 1'];
  const PATH = [process.env.FAKE_PATH, process.env.PATH].filter(Boolean).join(':');
  sandbox.env = {
    PATH,
    HOME: sandbox.folder,
    MODAL_SANDBOX_ID: sandbox.id,
    MODAL_TASK_ID: sandbox.taskId,
    ...environmentOf(request),
  };
  sandbox.process = start(argv, { cwd: sandbox.folder, env: sandbox.env });
  log({
    event: 'started',
    sandbox: sandbox.id,
    argv,
    ports: sandbox.ports,
    pid: sandbox.process.child.pid,
  });
  sandbox.timer = setTimeout(
    () => end(sandbox, { status: RESULT.timeout }, 'timeout'),
    d.timeoutSecs * 1000,
  );
  sandbox.process.done.then(({ code, signal }) => {
    const exitcode = signal ? 128 + signal : code;
    const init = { status: RESULT.initFailure, exception: 'The container could not be set up' };
    end(
      sandbox,
      call.fault === 'init-fails'
        ? init
        : { status: exitcode ? RESULT.failure : RESULT.success, exitcode },
      'exit',
    );
  });
  return {
    sandboxId: sandbox.id,
    metadata: { appId: request.appId },
    ...(v2 ? { taskId: sandbox.taskId, tunnels: [] } : {}),
  };
}

// A V1 sandbox is not scheduled yet when it is asked about for the first time.
async function sandboxGetTaskId({ sandboxId }, call) {
  const sandbox = sandboxes.get(sandboxId);
  if (call.fault === 'full') return {};
  if (sandbox.result && sandbox.fault === 'init-fails') return { taskResult: sandbox.result };
  if (sandbox.asked++ === 0 && !sandbox.v2) return {};
  return { taskId: sandbox.taskId, taskResult: sandbox.result };
}

async function sandboxGetTunnels({ sandboxId, timeout }, call) {
  const sandbox = sandboxes.get(sandboxId);
  need(timeout > 0, 'A timeout is needed');
  if (call.fault === 'waits') {
    await sleep(Math.min(timeout * 1000, 300));
    return { result: { status: RESULT.timeout } };
  }
  if (sandbox.result && sandbox.fault === 'init-fails') return { result: sandbox.result };
  if (sandbox.fault === 'dies') {
    setTimeout(() => end(sandbox, { status: RESULT.failure, exitcode: 137 }, 'killed'), 500);
  }
  const tls = call.fault === 'tls' ? { host: 'localhost', port: 443 } : {};
  const tunnels = sandbox.ports.map(({ port, unencrypted, real }) =>
    unencrypted
      ? { ...tls, unencryptedHost: '127.0.0.1', unencryptedPort: real, containerPort: port }
      : { host: '127.0.0.1', port: real, containerPort: port },
  );
  return {
    result: { status: RESULT.success },
    tunnels: call.fault === 'no-tunnels' ? [] : tunnels,
  };
}

async function sandboxWait({ sandboxId, timeout }, call) {
  const sandbox = sandboxes.get(sandboxId);
  const until = Date.now() + timeout * 1000;
  while (!sandbox.result && Date.now() < until && !call.signal.aborted) await sleep(50);
  return { result: sandbox.result, metadata: { appId: sandbox.appId } };
}

function sandboxTerminate({ sandboxId }) {
  const sandbox = sandboxes.get(sandboxId);
  const existingResult = sandbox.result;
  end(sandbox, { status: RESULT.terminated }, 'terminate');
  return { existingResult };
}

// A batch for each chunk, from behind the last one that the client had. JavaScript's client waits for
// ever when a text is empty, so it alone is spared the one that says that the sandbox boots.
async function* sandboxGetLogs({ sandboxId, fileDescriptor, timeout, lastEntryId }, call) {
  const sandbox = sandboxes.get(sandboxId);
  need(!sandbox.v2, 'Logs of this sandbox are with its router', 'FAILED_PRECONDITION');
  need(fileDescriptor === 1 || fileDescriptor === 2, 'file_descriptor is 1 or 2');
  const out = sandbox.process.out[fileDescriptor - 1];
  const until = Date.now() + timeout * 1000;
  const item = (data) => ({ data, fileDescriptor, timestamp: Date.now() / 1000 });
  let at = Number(lastEntryId.split('-')[0] || 0);
  if (at === 0 && call.headers['x-modal-client-type'] !== '8')
    yield { taskId: sandbox.taskId, items: [item('')] };
  while (Date.now() < until && !call.signal.aborted) {
    if (at < out.chunks.length) {
      at += 1;
      yield {
        taskId: sandbox.taskId,
        entryId: `${at}-0`,
        items: [item(out.chunks[at - 1].toString())],
      };
    } else if (out.ended) {
      yield { taskId: sandbox.taskId, entryId: `${at}-1`, eof: true };
      return;
    } else {
      await out.more(Math.min(500, until - Date.now()));
    }
  }
}

// --- the router of commands ---

const execs = new Map();
const sandboxOf = (taskId) =>
  sandboxes.find((x) => x.taskId === taskId) ?? refuse('NOT_FOUND', `Task '${taskId}' not found`);
const execOf = ({ taskId, execId }) =>
  (sandboxOf(taskId), execs.get(execId)) ?? refuse('NOT_FOUND', `No exec '${execId}'`);
const exitOf = ({ code, signal }) => (signal ? { signal } : { code });

// JavaScript's client demands https here and speaks plain HTTP/2 to it on loopback.
function access(call, found) {
  need(found, 'Sandbox not found', 'NOT_FOUND');
  const scheme =
    process.env.FAKE_TLS || call.headers['x-modal-client-type'] === '8' ? 'https' : 'http';
  const jwt = token('router');
  askers.set(`Bearer ${jwt}`, call.headers['x-modal-token-id']);
  return { jwt, url: `${scheme}://127.0.0.1:${port}` };
}

function stdin(request) {
  const exec = execOf(request);
  if (request.offset === exec.written && request.data.length) {
    exec.written += request.data.length;
    exec.child.stdin.write(request.data);
  }
  if (request.eof) exec.child.stdin.end();
  return {};
}

const routes = {
  async *sandboxStdioReadV2({ taskId, offset, fileDescriptor }, call) {
    const from = sandboxOf(taskId).process.out[fileDescriptor].from(offset, call.signal);
    for await (const [data, startingOffset] of from) yield { data, startingOffset };
  },
  taskExecStart(request) {
    const sandbox = sandboxOf(request.taskId);
    need(request.execId && request.commandArgs.length, 'An exec has an id and a command');
    if (!execs.has(request.execId)) {
      const exec = start(request.commandArgs, {
        cwd: sandbox.folder,
        env: { ...sandbox.env, ...request.env },
      });
      execs.set(request.execId, Object.assign(exec, { written: 0 }));
      exec.done.then((status) => (exec.status = status));
    }
    return {};
  },
  taskExecStdinWrite: stdin,
  async *taskExecStdioRead(request, call) {
    for await (const [data] of execOf(request).out[request.fileDescriptor].from(
      request.offset,
      call.signal,
    ))
      yield { data };
  },
  async taskExecWait(request) {
    return exitOf(await execOf(request).done);
  },
  taskExecPoll(request) {
    const { status } = execOf(request);
    return status ? exitOf(status) : {};
  },
};

// --- the control plane ---

const methods = {
  authTokenGet: () => ({ token: token('auth') }),
  appGetOrCreate: (r) => ({
    appId: named(apps, r.environmentName, r.appName, r.objectCreationType, {}).id,
  }),
  environmentGetOrCreate({ deploymentName }) {
    need(
      !deploymentName.startsWith('nosuch'),
      `Environment '${deploymentName}' not found`,
      'NOT_FOUND',
    );
    return {
      environmentId: 'en-1',
      metadata: {
        name: deploymentName || 'main',
        settings: { imageBuilderVersion: '2025.06', webhookSuffix: '' },
      },
    };
  },
  secretGetOrCreate(r) {
    const env = r.objectCreationType >= 4 ? r.envDict : { ...r.envDict, NAMED_SECRET: 'yes' };
    if (r.objectCreationType === 4) apps.get(r.appId);
    const secret =
      r.objectCreationType >= 4
        ? secrets.add({ env, name: '' })
        : named(secrets, r.environmentName, r.deploymentName, r.objectCreationType, { env });
    const missing = r.requiredKeys.filter((key) => !(key in secret.env));
    need(!missing.length, `Secret is missing key(s): ${missing.join(', ')}`, 'NOT_FOUND');
    return {
      secretId: secret.id,
      metadata: { name: secret.name, keys: Object.keys(secret.env) },
    };
  },
  volumeGetOrCreate: (r) => ({
    volumeId: named(volumes, r.environmentName, r.deploymentName, r.objectCreationType, {}).id,
  }),
  imageGetOrCreate,
  imageJoinStreaming,
  mountBatchedCheckExistence,
  mountPutFile,
  mountGetOrCreate,
  blobCreate,
  sandboxCreate,
  sandboxCreateV2: sandboxCreate,
  sandboxGetTaskId,
  sandboxGetTaskIdV2: sandboxGetTaskId,
  sandboxGetTunnels,
  sandboxGetTunnelsV2: sandboxGetTunnels,
  sandboxWait,
  sandboxWaitV2: sandboxWait,
  sandboxTerminate,
  sandboxTerminateV2: sandboxTerminate,
  sandboxGetLogs,
  taskGetCommandRouterAccess: ({ taskId }, call) => access(call, sandboxOf(taskId)),
  sandboxGetCommandRouterAccess: ({ sandboxId, taskId }, call) =>
    access(call, sandboxId ? sandboxes.get(sandboxId) : sandboxOf(taskId)),
};

// --- the server ---

const streams = new Map(); // by a number that a header carries to the method
let streamCount = 0;
let callCount = 0;

// Let the server tell of each stream before gRPC has it, for the headers and for faults below gRPC.
for (const name of ['createServer', 'createSecureServer']) {
  const create = http2[name];
  http2[name] = (...args) => {
    const server = create(...args);
    const { emit } = server;
    server.emit = (event, stream, headers, ...rest) => {
      if (event !== 'stream') return emit.call(server, event, stream, headers, ...rest);
      const id = `${++streamCount}`;
      streams.set(id, { stream, headers: { ...headers } });
      stream.on('close', () => streams.delete(id)).on('error', () => {});
      return emit.call(server, event, stream, { ...headers, 'x-fake-stream': id }, ...rest);
    };
    return server;
  };
}

// What a message says, short where it carries a file.
function told(definition, message) {
  const json = definition.requestType.toJSON(message);
  if (message.data instanceof Uint8Array) json.data = `sha256:${sha256(message.data)}`;
  return json;
}

const lengths = new WeakMap();

// The definition, with a decoder that remembers how long a message was on the wire.
function measured(definition) {
  const decode = (buffer) => {
    const message = definition.requestType.decode(buffer);
    lengths.set(message, buffer.length);
    return message;
  };
  return { ...definition, requestType: { ...definition.requestType, decode } };
}

function begin(service, definition, message, context) {
  const { stream, headers } = streams.get(context.metadata.get('x-fake-stream'));
  const call = {
    service,
    method: definition.name,
    number: (callCount += 1),
    stream,
    headers,
    signal: context.signal,
    trailer: context.trailer,
  };
  log({
    number: call.number,
    method: call.method,
    message: told(definition, message),
    headers,
    bytes: lengths.get(message),
    canonical: definition.requestType.encode(message).finish().length,
  });
  authorize(call);
  call.fault = faultOf(call);
  return call;
}

const made = new Map(); // answers to calls that create a sandbox, by their key

function unary(service, definition, method) {
  return async (message, context) => {
    const call = begin(service, definition, message, context);
    const key = call.method.startsWith('SandboxCreate') && call.headers['x-idempotency-key'];
    if (call.fault !== 'lost') await applyFault(call, Buffer.alloc(0));
    const answer = made.get(key) ?? (await method(message, call));
    if (key) made.set(key, answer);
    if (call.fault === 'late') await sleep(3000);
    if (call.fault === 'lost') {
      call.fault = 'drop';
      await applyFault(call, Buffer.alloc(0));
    }
    const { responseType } = definition;
    log({
      event: 'answer',
      to: call.number,
      answer: responseType.toJSON(responseType.fromPartial(answer)),
    });
    return answer;
  };
}

function streaming(service, definition, method) {
  return async function* (message, context) {
    const call = begin(service, definition, message, context);
    if (call.fault in wire) {
      const { value } = await method(message, call).next();
      const first = definition.responseType
        .encode(definition.responseType.fromPartial(value ?? {}))
        .finish();
      await applyFault(call, frame(Buffer.from(first)));
    }
    await applyFault(call);
    yield* method(message, call);
  };
}

// Serve those methods of a service that are here; the others are UNIMPLEMENTED.
function serve(server, service, table) {
  const definition = { ...service, methods: {} };
  const implementation = {};
  for (const [name, each] of Object.entries(service.methods)) {
    definition.methods[name] = measured(each);
    const missing = () => refuse('UNIMPLEMENTED', `${each.name} is not in this Modal`);
    const shape = each.responseStream ? streaming : unary;
    implementation[name] = each.requestStream
      ? missing
      : shape(service, each, table[name] ?? missing);
  }
  server.add(definition, implementation);
}

function stop() {
  for (const sandbox of sandboxes.items.values()) {
    if (!sandbox.result) log({ event: 'ended', sandbox: sandbox.id, why: 'the server ends' });
    killAll(sandbox);
  }
  fs.rmSync(root, { recursive: true, force: true });
  process.exit(0);
}

const limit = 100 << 20;
const server = createServer({
  'grpc.max_receive_message_length': limit,
  'grpc.max_send_message_length': limit,
});
serve(server, client, methods);
serve(server, router, routes);
const [cert, keyFile] = (process.env.FAKE_TLS ?? '').split(':');
const credentials = cert
  ? ServerCredentials.createSsl(null, [
      { cert_chain: fs.readFileSync(cert), private_key: fs.readFileSync(keyFile) },
    ])
  : ServerCredentials.createInsecure();
fs.writeFileSync(logFile, '');
const port = await server.listen('127.0.0.1:0', credentials);
const parent = process.ppid;
setInterval(() => process.ppid !== parent && stop(), 500);
process.on('SIGTERM', stop).on('SIGINT', stop);
console.log(port);
