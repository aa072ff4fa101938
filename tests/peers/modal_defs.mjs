// Modal's own protocol definitions, out of the package modal@0.11.1 that is installed under a folder
// of the build. The package does not export them, so a copy that does is written beside the original.
import fs from 'node:fs';
import path from 'node:path';
import { createRequire } from 'node:module';
import { pathToFileURL } from 'node:url';

export async function load(folder) {
  const dist = path.resolve(folder, 'node_modules/modal/dist');
  const source = fs.readFileSync(path.join(dist, 'index.js'), 'utf8');
  const codecs = [...source.matchAll(/^var (\w+) = \{\n  encode\(message/gm)].map((m) => m[1]);
  const mine = path.join(dist, `definitions-${process.pid}.mjs`);
  fs.writeFileSync(
    mine,
    `${source}
    const codecs = { ${codecs.join(', ')} };
    export { ModalClientDefinition, TaskCommandRouterDefinition, codecs };`,
  );
  try {
    const module = await import(pathToFileURL(mine));
    const require = createRequire(path.join(dist, 'index.js'));
    return {
      client: module.ModalClientDefinition,
      router: module.TaskCommandRouterDefinition,
      codecs: module.codecs,
      sdk: module,
      grpc: require('nice-grpc'),
      ServerCredentials: createRequire(require.resolve('nice-grpc'))('@grpc/grpc-js')
        .ServerCredentials,
    };
  } finally {
    fs.unlinkSync(mine);
  }
}
