// Compare what two clients sent to the Modal of fake_modal.mjs for the same steps: for each method,
// call by call, the messages field by field and the headers. A difference has to be a row below,
// which says why it is meant. Ends in `N passed, N failed`.
//
//   node modal_compare.mjs OFFICIAL.jsonl OURS.jsonl [COMMAND]
//
// COMMAND is a regular expression for the command of our sandbox, with a blank between arguments.
import fs from 'node:fs';

const [officialFile, oursFile, command = '.'] = process.argv.slice(2);
const decimal = /^\d+(\.\d+)?$/;
const uuid = /^[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}$/;

// Intended differences: [method, field, test of (official, ours), reason]. Fields are named as in
// JSON of protobuf with their indices, headers as `headers.NAME`; undefined is one that is not there.
const intended = [
  [/./, /^headers\.user-agent$/, (a, b) => b?.length > 0, 'each client gives its own name'],
  [
    /./,
    /^headers\.x-modal-client-(type|version)$/,
    (a, b) => /^\d/.test(b),
    'which kind of client it is like, and which version',
  ],
  [
    /./,
    /^headers\.x-modal-libmodal-version$/,
    (a, b) => b === undefined || !b.startsWith('modal-js/'),
    "the name of Modal's own library, which ours is not",
  ],
  [
    /./,
    /^headers\.(grpc-accept-encoding|accept-encoding)$/,
    (a, b) => b === undefined || b === 'identity',
    'ours wants nothing compressed',
  ],
  [/./, /^headers\.content-length$/, (a, b) => decimal.test(b), 'ours knows the length beforehand'],
  [
    /./,
    /^headers\.content-type$/,
    (a, b) => /^application\/grpc(\+proto)?$/.test(b),
    'both names are valid',
  ],
  [/./, /^headers\.x-idempotency-key$/, (a, b) => uuid.test(b), 'random, one for each call'],
  [
    /./,
    /^headers\.x-modal-timestamp$/,
    (a, b) => b === undefined || decimal.test(b),
    "of Python's client, JavaScript's has none",
  ],
  [
    /./,
    /^headers\.grpc-timeout$/,
    (a, b) => b === undefined || /^\d{1,8}[HMSmun]$/.test(b),
    'whether the server is told how long the client waits',
  ],
  [
    /^(?!.*V2$)/,
    /^headers\.x-modal-auth-token$/,
    (a, b) => a === undefined || b === undefined,
    'the older calls do not need it: JavaScript has it for all, Python for the newer ones',
  ],
  [
    /^(Secret|Mount)GetOrCreate$/,
    /^(objectCreationType|appId|environmentName)$/,
    (a, b) =>
      [a, b].every((x) => x === undefined || /_(ANONYMOUS|EPHEMERAL)|^ap-0$|^main$/.test(x)),
    "one without a name is the app's, as from Python, or the environment's, as from JavaScript",
  ],
  [
    /^ImageGetOrCreate$/,
    /^namespace$/,
    (a, b) => /WORKSPACE/.test(`${a} ${b}`),
    'as from Python; JavaScript leaves the same default out',
  ],
  [
    /^SandboxCreate(V2)?$/,
    /^definition\.entrypointArgs$/,
    (a, b) => new RegExp(command).test(b),
    'ours starts its own server, which is mounted',
  ],
  [
    /./,
    /^headers\.x-modal-(python-version|node|platform)$/,
    (a, b) => b === undefined,
    "of Python's client, about its Python and its machine",
  ],
  [
    /^ImageGetOrCreate$/,
    /^image\.(gpuConfig|imageRegistryConfig)$/,
    (a, b) => a === '{}' && b === undefined,
    'empty messages of Python, which JavaScript leaves out too',
  ],
  [
    /^VolumeGetOrCreate$/,
    /^createOptions$/,
    (a, b) => a === '{}' && b === undefined,
    'an empty message of Python, which JavaScript leaves out too',
  ],
  [
    /^SandboxGetLogs$/,
    /^lastEntryId$/,
    (a, b) => a === '0-0' && b === undefined,
    'the beginning, as Python says it',
  ],
  [
    /^SandboxGetTaskId(V2)?$/,
    /^timeout$/,
    (a, b) => a === undefined && b > 0,
    'the definitions ask new clients to say how long they wait',
  ],
];

// The secret with the token of our server, which is not on the command line, and what names it.
const ourKey = /^SWEREX_/;
const OURS = 'secret of our server';

// Calls that only one side makes, or makes another number of times, and why.
const otherCalls = {
  AuthTokenGet: 'only the newer sandboxes need its token',
  MountBatchedCheckExistence: 'our server is mounted',
  MountPutFile: 'our server is mounted',
  MountGetOrCreate: 'our server is mounted',
  BlobCreate: 'our server is mounted',
  SandboxWait: 'how often it is asked is the caller’s',
  SandboxWaitV2: 'how often it is asked is the caller’s',
  SandboxGetTaskId: 'how often it is asked is the client’s',
  SandboxGetTaskIdV2: 'ours gives the address of the logs',
};

const results = { passed: 0, failed: 0 };
const used = new Map();

function check(good, text) {
  results[good ? 'passed' : 'failed'] += 1;
  if (!good) console.log(`FAILED: ${text}`);
}

function flatten(value, place, out) {
  if (value === undefined) return out;
  if (value !== null && typeof value === 'object') {
    const names = Object.keys(value);
    if (!names.length) out[place] = Array.isArray(value) ? '[]' : '{}';
    for (const name of names) flatten(value[name], place ? `${place}.${name}` : name, out);
  } else {
    out[place] = value;
  }
  return out;
}

// What a secret holds, without what is our server's.
const holds = ({ envDict = {} }) =>
  Object.fromEntries(Object.entries(envDict).filter(([key]) => !ourKey.test(key)));

// The calls of a recording, with ids in the order of their appearance in place of random ones. Secrets
// are told by what they hold, because one client may make more of them than the other.
function read(file) {
  const text = fs.readFileSync(file, 'utf8');
  const entries = text
    .split('\n')
    .filter(Boolean)
    .map((line) => JSON.parse(line));
  const names = new Map();
  const counts = {};
  for (const { method, number, message } of entries) {
    if (method !== 'SecretGetOrCreate') continue;
    const made = entries.find((entry) => entry.event === 'answer' && entry.to === number);
    const keys = Object.keys(holds(message)).sort().join('+') || OURS;
    if (made) names.set(made.answer.secretId, `secret ${message.deploymentName ?? keys}`);
  }
  const replaced = text.replace(
    /\b(ap|st|im|mo|vo|sb|ta|bl)-[A-Za-z0-9]{22,26}\b/g,
    (id, prefix) => {
      if (!names.has(id)) {
        counts[prefix] = (counts[prefix] ?? -1) + 1;
        names.set(id, `${prefix}-${counts[prefix]}`);
      }
      return names.get(id);
    },
  );
  return replaced
    .split('\n')
    .filter(Boolean)
    .map((line) => JSON.parse(line))
    .filter((entry) => entry.method && !entry.event);
}

// Take out of our calls what is there for our server alone: its mount and its token. What the newer
// sandbox gets as a secret's id and not in place is put in place.
function withoutOurs(calls) {
  const inline = official.some(({ method }) => method === 'SandboxCreateV2');
  const sources = calls
    .filter(({ method }) => method === 'SandboxCreateV2')
    .flatMap(({ message }) => message.secretSources ?? []);
  const secrets = new Map();
  for (const call of calls.filter(({ method }) => method === 'SecretGetOrCreate')) {
    const contents = holds(call.message);
    const name = `secret ${Object.keys(contents).sort().join('+')}`;
    call.drop = !call.message.deploymentName && !Object.keys(contents).length;
    if (call.message.deploymentName) continue;
    call.message.envDict = contents;
    secrets.set(name, contents);
    if (inline && sources.some(({ secretId }) => secretId === name)) call.drop = true;
  }
  for (const { message, method } of calls.filter((call) => /^SandboxCreate/.test(call.method))) {
    const { definition } = message;
    if (mountsOfOurs) delete definition.mountIds;
    const ids = (definition.secretIds ?? []).filter((id) => id !== `secret ${OURS}`);
    definition.secretIds = ids.length ? ids : undefined;
    if (method !== 'SandboxCreateV2' || !message.secretSources) continue;
    message.secretSources = message.secretSources
      .filter(({ secretId }) => secretId !== `secret ${OURS}`)
      .map((source) =>
        secrets.has(source.secretId) ? { env: { contents: secrets.get(source.secretId) } } : source,
      );
  }
  return calls.filter((call) => !call.drop);
}

// A call as fields; the sandbox's command is one.
function flatCall({ method, message, headers, bytes, canonical }) {
  const { ':authority': authority, 'x-modal-auth-token': token, ...rest } = headers;
  if (token) rest['x-modal-auth-token'] = 'a token';
  rest.authority = authority.replace(/:\d+$/, '');
  const args = message.definition?.entrypointArgs;
  if (args) message.definition.entrypointArgs = args.join(' ');
  const fields = flatten(message, '', {});
  for (const [name, value] of Object.entries(rest)) fields[`headers.${name}`] = value;
  return { method, fields, bytes, canonical };
}

function compareCalls(name, a, b) {
  for (const field of new Set([...Object.keys(a.fields), ...Object.keys(b.fields)])) {
    const [official, ours] = [a.fields[field], b.fields[field]];
    if (official === ours) {
      check(true);
      continue;
    }
    const row = intended.findIndex(
      ([method, place, test]) => method.test(a.method) && place.test(field) && test(official, ours),
    );
    used.set(row, `${a.method} ${field}`);
    check(row >= 0, `${name}: ${field}: official ${official}, ours ${ours}`);
  }
}

function group(calls) {
  const groups = new Map();
  for (const call of calls) groups.set(call.method, [...(groups.get(call.method) ?? []), call]);
  return groups;
}

const official = read(officialFile);
const mountsOfOurs = !official.some(({ method }) => method === 'MountGetOrCreate');
const ours = withoutOurs(read(oursFile));
check(official.length > 0 && ours.length > 0, 'a recording is empty');
for (const { method, bytes, canonical } of [...official, ...ours]) {
  check(
    bytes === canonical,
    `${method}: unknown fields or defaults, ${bytes} bytes not ${canonical}`,
  );
}
// Secrets and volumes may be made in any order.
const keyOf = ({ message }) =>
  JSON.stringify([message.deploymentName ?? '', message.envDict ?? '']);
const sorted = (calls) =>
  /^(Secret|Volume)/.test(calls[0]?.method)
    ? [...calls].sort((a, b) => (keyOf(a) < keyOf(b) ? -1 : 1))
    : calls;
const [theirGroups, ourGroups] = [group(official), group(ours)];
for (const method of new Set([...theirGroups.keys(), ...ourGroups.keys()])) {
  const [a, b] = [theirGroups, ourGroups].map((groups) => sorted(groups.get(method) ?? []));
  check(
    a.length === b.length || method in otherCalls,
    `${method}: ${a.length} calls of the official client, ${b.length} of ours`,
  );
  for (let i = 0; i < Math.min(a.length, b.length); i += 1)
    compareCalls(`${method} ${i}`, flatCall(a[i]), flatCall(b[i]));
}
// Secrets, volumes and files may be made in any order, but before what names them.
const early = /^(Secret|Volume|Mount|Blob|AuthToken)/;
const whenever = /^SandboxGetTaskId/; // for the address of the log
const order = (calls, other) =>
  [...new Set(calls.map((call) => call.method))]
    .filter((method) => other.has(method) && !early.test(method) && !whenever.test(method))
    .join(' ');
for (const [name, calls] of [
  ['official', official],
  ['ours', ours],
]) {
  const create = calls.findIndex((call) => /^SandboxCreate/.test(call.method));
  check(
    !calls.some((call, i) => i > create && early.test(call.method) && !/^Auth/.test(call.method)),
    `${name}: what the sandbox refers to is made before it`,
  );
}
check(
  order(official, ourGroups) === order(ours, theirGroups),
  `the order of calls: official ${order(official, ourGroups)}, ours ${order(ours, theirGroups)}`,
);
for (const [row, place] of used) {
  if (row >= 0) console.log(`intended: ${place}: ${intended[row][3]}`);
}
console.log(`${results.passed} passed, ${results.failed} failed`);
process.exit(results.failed ? 1 : 0);
