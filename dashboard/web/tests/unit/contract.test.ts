import { readFileSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';
import openapi, { astToString } from 'openapi-typescript';
import { expect, it } from 'vitest';

const web = join(dirname(fileURLToPath(import.meta.url)), '../..');

it('the types are those of configs/openapi.json', async () => {
  const nodes = await openapi(new URL(`file://${join(web, '../../configs/openapi.json')}`));
  const committed = readFileSync(join(web, 'src/api/schema.d.ts'), 'utf8');
  expect(committed.slice(committed.indexOf('export interface paths')), 'run npm run types in dashboard/web').toBe(astToString(nodes));
});

it('the lock file names no registry', () => {
  expect(readFileSync(join(web, 'package-lock.json'), 'utf8')).not.toMatch(/"resolved"|https?:\/\/(?!.*(github|opencollective|funding|tidelift|patreon|sponsors))[^"]*registry/);
});
