// Modal's own client does what the deployment does, against the Modal of fake_modal.mjs. Ends in
// `N passed, N failed`.
//
//   node modal_official.mjs FOLDER PORT            every step, and the failures, to show that the
//                                                  fake is right to the client that it is made for
//   node modal_official.mjs FOLDER PORT CONFIG     only the steps of a deployment that starts, is
//                                                  asked whether it is alive, and stops, for
//                                                  modal_compare.mjs
//
// MODAL_SANDBOX_V2=0 is for the older sandboxes. The fake's FAKE_PATH has to have swerex-remote.
// CONFIG is a file of JSON with the members of a deployment's: image (a name, a path to a Dockerfile
// that copies nothing), app_name, deployment_timeout, modal_sandbox_kwargs; and `registry`, the
// registry's secret (REGISTRY_* or AWS_*), `command`, the sandbox's command.
import assert from 'node:assert/strict';
import fs from 'node:fs';
import path from 'node:path';
import { pathToFileURL } from 'node:url';

const [folder, port, configFile] = process.argv.slice(2);
const server = `http://127.0.0.1:${port}`;
process.env.MODAL_CONFIG_PATH = '/nonexistent';
process.env.MODAL_SERVER_URL = server;
process.env.MODAL_ENVIRONMENT ??= 'main';
const sdk = await import(pathToFileURL(path.resolve(folder, 'node_modules/modal/dist/index.js')));
const v2 = process.env.MODAL_SANDBOX_V2 !== '0';
const sleep = (ms) => new Promise((done) => setTimeout(done, ms));
let passed = 0;
let failed = 0;

async function step(name, what) {
  let timer;
  const late = new Promise((_, no) => {
    timer = setTimeout(() => no(new Error('not done within 30 s')), 30000);
  });
  try {
    await Promise.race([what(), late]);
    passed += 1;
  } catch (error) {
    failed += 1;
    console.log(`FAILED: ${name}: ${error.stack}`);
  }
  clearTimeout(timer);
}

function connect(tokenId = 'ak-fake', tokenSecret = 'as-fake') {
  return new sdk.ModalClient({ tokenId, tokenSecret, logLevel: 'error' });
}

// Ask swerex-remote until it answers.
async function alive(tunnel, token) {
  for (let tries = 0; tries < 100; tries += 1) {
    try {
      const url = `http://${tunnel.unencryptedHost}:${tunnel.unencryptedPort}/is_alive`;
      const answer = await fetch(url, { headers: { 'X-API-Key': token } });
      return (await answer.json()).is_alive;
    } catch {
      await sleep(100);
    }
  }
  return false;
}

// How each of the sandbox's keyword arguments is said to this client.
const kwargs = {
  cpu: (cpu) => ({ cpu }),
  memory: (memoryMiB) => ({ memoryMiB }),
  gpu: (gpu) => ({ gpu }),
  region: (region) => ({ regions: [region].flat() }),
  cloud: (cloud) => ({ cloud }),
  workdir: (workdir) => ({ workdir }),
  env: (env) => ({ env }),
  i6pn_enabled: (i6pn) => ({ i6pn }),
  outbound_cidr_allowlist: (outboundCidrAllowlist) => ({ outboundCidrAllowlist }),
  encrypted_ports: (encryptedPorts) => ({ encryptedPorts }),
  block_network: (blockNetwork) => ({ blockNetwork }),
  secrets: async (list, modal) => ({
    secrets: await Promise.all(
      [list]
        .flat()
        .map((each) =>
          typeof each === 'string'
            ? modal.secrets.fromName(each)
            : modal.secrets.fromObject(each.env),
        ),
    ),
  }),
  async volumes(names, modal) {
    const volumes = {};
    for (const [place, name] of Object.entries(names)) {
      volumes[place] = await modal.volumes.fromName(name);
    }
    return { volumes };
  },
};

async function imageOf(modal, { image, registry }) {
  const secret = registry && (await modal.secrets.fromObject(registry));
  if (fs.existsSync(image)) {
    const [from, ...rest] = fs.readFileSync(image, 'utf8').trimEnd().split('\n');
    const base = modal.images.fromRegistry(from.replace(/^FROM /, ''), secret);
    return rest.length ? base.dockerfileCommands(rest) : base;
  }
  const ecr = /\.dkr\.ecr\./.test(image);
  return ecr ? modal.images.fromAwsEcr(image, secret) : modal.images.fromRegistry(image, secret);
}

async function deploy(config) {
  const modal = connect(process.env.MODAL_TOKEN_ID, process.env.MODAL_TOKEN_SECRET);
  const app = await modal.apps.fromName(config.app_name ?? 'swe-rex', { createIfMissing: true });
  const image = await imageOf(modal, config);
  const params = {
    command: config.command ?? [
      '/usr/bin/env',
      'bash',
      '-c',
      'swerex-remote --port 8880 --auth-token T',
    ],
    timeoutMs: (config.deployment_timeout ?? 3600) * 1000,
    unencryptedPorts: [8880],
  };
  for (const [name, value] of Object.entries(config.modal_sandbox_kwargs ?? {})) {
    Object.assign(params, await kwargs[name](value, modal));
  }
  const sandbox = await modal.sandboxes.create(app, image, params);
  const tunnels = await sandbox.tunnels();
  assert.ok(tunnels[8880]);
  if (!config.command) assert.equal(await alive(tunnels[8880], 'T'), true);
  assert.equal(await sandbox.poll(), null);
  assert.equal(await sandbox.poll(), null);
  await sandbox.terminate();
  sandbox.detach();
  modal.close();
}

// What the client says about a failure, which has to have some words.
async function fails(words, what) {
  await assert.rejects(what, (error) => {
    assert.match(`${error.name} ${error.message}`, words);
    return true;
  });
}

async function everything() {
  const modal = connect();
  const app = await modal.apps.fromName('swe-rex', { createIfMissing: true });
  const login = await modal.secrets.fromObject({ REGISTRY_USERNAME: 'u', REGISTRY_PASSWORD: 'p' });
  const image = modal.images
    .fromRegistry('python:3.11-slim', login)
    .dockerfileCommands(['RUN apt-get update', 'RUN apt-get install -y pipx'])
    .dockerfileCommands(['RUN pipx ensurepath'], { env: { BUILD: '1' } });
  const secret = await modal.secrets.fromObject({ FOO: 'bar' });
  const volume = await modal.volumes.fromName('data', { createIfMissing: true });
  const create = (command, more) =>
    modal.sandboxes.create(app, image, { command, timeoutMs: 60000, ...more });
  let server;

  await step('a server behind a tunnel', async () => {
    server = await create(['bash', '-c', 'swerex-remote --port 8880 --auth-token T'], {
      unencryptedPorts: [8880],
      cpu: 2,
      memoryMiB: 4096,
      regions: ['us-east'],
      workdir: '/root',
      secrets: [secret],
      env: { E1: 'v1' },
      volumes: { '/data': volume },
    });
    assert.match(server.sandboxId, v2 ? /^sb-\w{26}$/ : /^sb-\w{22}$/);
    const tunnels = await server.tunnels();
    assert.equal(await alive(tunnels[8880], 'T'), true);
    assert.equal(await server.poll(), null);
  });
  await step('a command in the sandbox, with input', async () => {
    const process = await server.exec(['sh', '-c', 'cat; echo "$FOO $E1" >&2; exit 4']);
    await process.stdin.writeText('to be said again\n');
    await process.stdin.close?.();
    assert.equal(await process.stdout.readText(), 'to be said again\n');
    assert.equal(await process.stderr.readText(), 'bar v1\n');
    assert.equal(await process.wait(), 4);
  });
  await step('the end of a sandbox', async () => {
    const tunnel = (await server.tunnels())[8880];
    await server.terminate();
    server.detach();
    const again = await modal.sandboxes.fromId(server.sandboxId);
    assert.equal(await again.poll(), 137);
    await sleep(1500);
    await fails(/fetch failed/, () =>
      fetch(`http://${tunnel.unencryptedHost}:${tunnel.unencryptedPort}/`),
    );
  });
  await step('output and status of one that ends', async () => {
    const sandbox = await create([
      'sh',
      '-c',
      'echo out; echo err >&2; sleep 0.5; echo more; exit 3',
    ]);
    assert.equal(await sandbox.stdout.readText(), 'out\nmore\n');
    assert.equal(await sandbox.stderr.readText(), 'err\n');
    assert.equal(await sandbox.wait(), 3);
    assert.equal(await sandbox.poll(), 3);
    sandbox.detach();
  });
  await step('a timeout', async () => {
    const sandbox = await create(['sleep', '60'], { timeoutMs: 1000 });
    assert.equal(await sandbox.wait(), 124);
    sandbox.detach();
  });
  await step('a build that fails', () =>
    fails(/nosuch: not found/, () => modal.images.fromRegistry('nosuch').build(app)),
  );
  await step('a registry that refuses', async () => {
    const wrong = { REGISTRY_USERNAME: 'u', REGISTRY_PASSWORD: 'wrong' };
    const secret = await modal.secrets.fromObject(wrong);
    await fails(/401/, () => modal.images.fromRegistry('private', secret).build(app));
  });
  await step('a volume that is not there', () =>
    fails(/NotFound/, () => modal.volumes.fromName('nosuch-volume')),
  );
  modal.close();
}

// One client for each kind of fault, which asks for it by the id of its token.
async function faults() {
  const cases = [
    ['other credentials', 'ak-other', /UNAUTHENTICATED|Token validation/],
    ['resource_exhausted', 'ak-fake/resource_exhausted:AppGetOrCreate', /RESOURCE_EXHAUSTED/],
    ['unavailable', 'ak-fake/unavailable:AppGetOrCreate', /UNAVAILABLE/],
    ['unavailable twice', 'ak-fake/unavailable:AppGetOrCreate:2', null],
    ['throttled twice', 'ak-fake/throttle:AppGetOrCreate:2', null],
    ['refused once', 'ak-fake/refuse:AppGetOrCreate:1', null],
    ['reset once', 'ak-fake/reset:AppGetOrCreate:1', null],
    ['dropped once', 'ak-fake/drop:AppGetOrCreate:1', null],
    ['reset', 'ak-fake/reset:AppGetOrCreate', /INTERNAL/],
    ['drop', 'ak-fake/drop:AppGetOrCreate', /UNAVAILABLE|INTERNAL/],
    ['prefix', 'ak-fake/prefix:AppGetOrCreate', /INTERNAL|UNKNOWN|UNIMPLEMENTED/],
    ['huge', 'ak-fake/huge:AppGetOrCreate', /RESOURCE_EXHAUSTED/],
    ['compressed', 'ak-fake/compressed:AppGetOrCreate', /Error/],
    ['garbage', 'ak-fake/garbage:AppGetOrCreate', /INTERNAL|UNKNOWN/],
    ['truncated', 'ak-fake/truncated:AppGetOrCreate', /INTERNAL|UNKNOWN/],
    ['none', 'ak-fake/none:AppGetOrCreate', /UNIMPLEMENTED|INTERNAL|UNKNOWN/],
    ['no-trailers', 'ak-fake/no-trailers:AppGetOrCreate', /UNKNOWN|INTERNAL/],
    ['html', 'ak-fake/html:AppGetOrCreate', /UNAVAILABLE/],
    ['no-grpc', 'ak-fake/no-grpc:AppGetOrCreate', /larger than max/],
  ];
  for (const [name, id, words] of cases) {
    await step(name, async () => {
      const modal = connect(id);
      const lookup = () => modal.apps.fromName('swe-rex', { createIfMissing: true });
      if (words) await fails(words, lookup);
      else assert.match((await lookup()).appId, /^ap-/);
      modal.close();
    });
  }
  const sandboxes = [
    ['a quota', 'resource_exhausted:SandboxCreate', /ResourceExhausted|RESOURCE_EXHAUSTED/],
    ['tunnels that are late', 'waits:SandboxGetTunnels', /Timeout/],
    ...(v2 ? [] : [['a sandbox that cannot start', 'init-fails:SandboxCreate', /Conflict/]]),
  ];
  for (const [name, fault, words] of sandboxes) {
    await step(name, async () => {
      const modal = connect(`ak-fake/${fault}`);
      const app = await modal.apps.fromName('swe-rex', { createIfMissing: true });
      const image = modal.images.fromRegistry('debian:12');
      const command = ['sleep', '60'];
      const create = () =>
        modal.sandboxes.create(app, image, { command, timeoutMs: 60000, unencryptedPorts: [8880] });
      await fails(words, async () => {
        const sandbox = await create();
        await sandbox.tunnels();
        await sandbox.terminate();
      });
      modal.close();
    });
  }
  for (const kind of ['never', 'stall']) {
    await step(kind, async () => {
      const modal = connect(`ak-fake/${kind}:AppGetOrCreate`);
      const lookup = modal.apps.fromName('swe-rex', { createIfMissing: true }).catch(() => {});
      const first = await Promise.race([lookup.then(() => 'an answer'), sleep(1000)]);
      assert.equal(first, undefined);
      modal.close();
    });
  }
}

if (configFile) {
  await step('deploy', () => deploy(JSON.parse(fs.readFileSync(configFile, 'utf8'))));
} else {
  await everything().catch((error) => step('the steps', () => Promise.reject(error)));
  await faults();
}
console.log(`${passed} passed, ${failed} failed`);
process.exit(failed ? 1 : 0);
