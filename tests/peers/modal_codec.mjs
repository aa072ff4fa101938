// Our codec of protobuf against the one in Modal's own client, over generated values: what one
// encodes, the other has to decode to the same. Ends in `N passed, N failed`.
//
//   node modal_codec.mjs FOLDER PROGRAM [VALUES [SEED]]
//
// `PROGRAM --list` prints a line for each of its messages: its name in the protocol and the numbers
// of the fields that it knows. Then it reads lines `MESSAGE HEX`, decodes and encodes again, and
// answers each with a line of hex (or nothing, for an empty message), or `!` and why it cannot.
import assert from 'node:assert/strict';
import { spawnSync } from 'node:child_process';
import { load } from './modal_defs.mjs';

const [folder, program, values = '60', seedText = '1'] = process.argv.slice(2);
const { codecs } = await load(folder);
let state = Number(seedText) >>> 0;

// A generator whose values depend on nothing but the seed.
function random(below) {
  state = (state + 0x6d2b79f5) >>> 0;
  let t = Math.imul(state ^ (state >>> 15), state | 1);
  t ^= t + Math.imul(t ^ (t >>> 7), t | 61);
  return ((t ^ (t >>> 14)) >>> 0) % below;
}
const pick = (list) => list[random(list.length)];

// --- what the official encoder says about its fields ---

const member = 'message\\.(\\w+)';
const tag = 'writer\\.uint32\\((\\d+)\\)';
const shapes = [
  [
    'one',
    `if \\(${member} !== (void 0|[^)]+)\\) \\{ ${tag}\\.(\\w+)\\(message\\.\\w+\\)`,
    [1, 3, 4, 2],
  ],
  ['bytes', `if \\(${member}\\.length !== 0\\) \\{ ${tag}\\.(bytes)\\(`, [1, 2, 3]],
  [
    'message',
    `if \\(${member} !== void 0\\) \\{ (\\w+)\\.encode\\(message\\.\\w+, ${tag}`,
    [1, 3, 2],
  ],
  ['list', `for \\(const v of ${member}\\) \\{ ${tag}\\.(\\w+)\\(v\\)`, [1, 2, 3]],
  [
    'packed',
    `${tag}\\.fork\\(\\); for \\(const v of ${member}\\) \\{ writer\\.(\\w+)\\(v\\)`,
    [2, 1, 3],
  ],
  ['messages', `for \\(const v of ${member}\\) \\{ (\\w+)\\.encode\\(v, ${tag}`, [1, 3, 2]],
  [
    'map',
    `Object\\.entries\\(${member}\\)\\.forEach\\(\\(\\[key, value\\]\\) => \\{ (\\w+)\\.encode\\(` +
      ` ?\\{ key(?:: key)?, value \\}, ${tag}`,
    [1, 3, 2],
  ],
];

// The fields of a message: shape, name, type, and whether an unset one differs from a zero.
const cache = new Map();
function fieldsOf(name) {
  if (cache.has(name)) return cache.get(name);
  const text = codecs[name].encode.toString().replace(/\s+/g, ' ');
  const fields = new Map();
  for (const [shape, pattern, [field, number, type, zero]] of shapes) {
    for (const match of text.matchAll(new RegExp(pattern, 'g'))) {
      fields.set(Number(match[number]) >>> 3, {
        shape,
        name: match[field],
        type: match[type],
        present: zero !== undefined && match[zero] === 'void 0',
        text: zero !== undefined && match[zero].startsWith('"'),
      });
    }
  }
  cache.set(name, fields);
  return fields;
}

// --- values ---

const words = ['', 'a', 'ap-1', 'köln', '日本', '🦀', 'a b\n"', '\u0000', 'x'.repeat(130)];
const scalars = {
  bool: () => true,
  int32: () => pick([1, 2, 127, 128, -1, -(2 ** 31), 2 ** 31 - 1, random(2 ** 31)]),
  uint32: () => pick([1, 127, 128, 16384, 2 ** 32 - 1, random(2 ** 32)]),
  int64: () => pick([1, 300, -1, 2 ** 40, -(2 ** 53) + 1]),
  uint64: () => pick([1, 300, 2 ** 40, 2 ** 53 - 1]),
  float: () => Math.fround(pick([55, 0.2, -1.5, 3e38, Infinity, random(1000) / 7])),
  double: () => pick([1.5e9, -0.25, 1e-300, random(1e6) / 3]),
  string: () => pick(words),
  bytes: () => Buffer.from(Array.from({ length: pick([0, 1, 3, 200]) }, () => random(256))),
};

function scalar({ type, text }) {
  const value = scalars[type]();
  return text && type.endsWith('64') ? String(value) : value;
}

// Members of which a message has one at most.
const choices = {
  MountPutFileRequest: [['data', 'dataBlobId']],
  BlobCreateResponse: [
    ['uploadUrl', 'multipart'],
    ['uploadUrls', 'multiparts'],
  ],
  GenericResult: [['data', 'dataBlobId']],
  SecretSource: [['secretId', 'env']],
  Probe: [['tcpPort', 'execCommand']],
  TaskExecPollResponse: [['code', 'signal']],
  TaskExecWaitResponse: [['code', 'signal']],
};

const many = (what) => Array.from({ length: random(4) }, what);
const makers = {
  one: scalar,
  bytes: scalar,
  message: ({ type }, depth) => value(type, depth - 1),
  list: (field) => many(() => scalar(field)),
  packed: (field) => many(() => scalar(field)),
  messages: ({ type }, depth) => many(() => value(type, depth - 1)),
  map({ type }, depth) {
    const field = fieldsOf(type).get(2);
    const one = () => [`k${random(1000)}`, makers[field.shape](field, depth - 1)];
    return Object.fromEntries(many(one));
  },
};

// A message in which about two of three fields that are known are set.
function value(name, depth) {
  const out = {};
  for (const [number, field] of fieldsOf(name)) {
    if (known.get(name)?.numbers.has(number) && depth > 0 && random(3)) {
      out[field.name] = makers[field.shape](field, depth);
    }
  }
  for (const group of choices[name] ?? []) {
    const kept = pick(group);
    for (const other of group) if (other !== kept) delete out[other];
  }
  return codecs[name].fromPartial(out);
}

// A field that nobody knows, of each type of wire.
function unknown() {
  return pick(['c03e05', 'c13e0102030405060708', 'c23e03616263', 'c53e01020304']);
}

// --- the comparison ---

const results = { passed: 0, failed: 0 };
function check(name, what) {
  try {
    what();
    results.passed += 1;
  } catch (error) {
    results.failed += 1;
    if (results.failed <= 20) console.log(`FAILED: ${name}: ${error.message}`);
  }
}

function run(args, input) {
  const [command, ...first] = program.split(' ');
  const { stdout, stderr, status, error } = spawnSync(command, [...first, ...args], {
    input,
    encoding: 'utf8',
    maxBuffer: 1 << 28,
    timeout: 60000,
  });
  assert.equal(status, 0, `${program}: ${error ?? ''} ${stderr}`);
  return stdout.replace(/\n$/, '').split('\n');
}

const hexOf = (bytes) => Buffer.from(bytes).toString('hex');
const plain = (message) =>
  JSON.parse(JSON.stringify(message, (_, x) => (x === Infinity ? 'inf' : x)));

// What the official decoder says, or null if it refuses.
function official(name, hex) {
  try {
    return codecs[name].decode(Buffer.from(hex, 'hex'));
  } catch {
    return null;
  }
}

// Our messages by name: the numbers of their fields. One of ours may stand for the newer message of a
// sandbox as well, so a field has to be in one of the two.
const known = new Map();
const both = (name) =>
  [name, name.replace(/(Request|Response)$/, 'V2$1')].filter((each) => codecs[each]);
for (const line of run(['--list'])) {
  const [name, ...numbers] = line.split(/[ ,]+/).filter(Boolean);
  const names = both(name);
  check(`${name} is a message of Modal's`, () => assert.ok(names.length, 'there is none'));
  for (const number of numbers.map(Number)) {
    check(`${name} has field ${number}`, () =>
      assert.ok(
        names.some((each) => fieldsOf(each).has(number)),
        'it has not',
      ),
    );
  }
  for (const each of names) known.set(each, { table: name, numbers: new Set(numbers.map(Number)) });
}
check('the program knows messages', () => assert.ok(known.size > 0));

const asked = [];
for (const [name, { table }] of known) {
  for (let i = 0; i < Number(values); i += 1) {
    const message = value(name, 5);
    const hex = hexOf(codecs[name].encode(message).finish());
    asked.push({ kind: 'value', name, table, hex });
    asked.push({ kind: 'unknown fields', name, table, hex: unknown() + hex + unknown() });
    const cut = hex.slice(0, 2 * random(hex.length / 2));
    if (hex) asked.push({ kind: 'cut', name, table, hex: cut });
  }
}
const answers = run([], asked.map(({ table, hex }) => `${table} ${hex}\n`).join(''));
check('an answer to each line', () => assert.equal(answers.length, asked.length));
for (const [i, { kind, name, hex }] of asked.entries()) {
  check(`${name}, ${kind}: ${hex}`, () => {
    const answer = answers[i] ?? '';
    const expected = official(name, hex);
    if (expected === null) {
      assert.equal(answer[0], '!', `decoded what is cut: ${answer}`);
      return;
    }
    assert.notEqual(answer[0], '!', answer);
    const ours = official(name, answer);
    assert.ok(ours, `undecodable: ${answer}`);
    assert.deepEqual(plain(ours), plain(expected), `another value: ${answer}`);
    const length = codecs[name].encode(expected).finish().length;
    assert.equal(answer.length / 2, length, `another length: ${answer}`);
  });
}
console.log(`${results.passed} passed, ${results.failed} failed`);
process.exit(results.failed ? 1 : 0);
