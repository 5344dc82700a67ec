// Second half of the build: compresses what vite wrote, and fails when the page is too heavy.
//
// Beside each file stands its .gz; the crate embeds both. The limit is on the sum of everything that a browser may fetch.
import { readdirSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { gzipSync } from 'node:zlib';

const LIMIT_BYTES = 150_000;
const root = process.env.SEGUE_PAGE_OUT ?? 'dist';

const files = readdirSync(root, { recursive: true, withFileTypes: true })
  .filter((entry) => entry.isFile() && !entry.name.endsWith('.gz'))
  .map((entry) => join(entry.parentPath, entry.name))
  .sort();
let sum = 0;
for (const file of files) {
  const packed = gzipSync(readFileSync(file), { level: 9 });
  writeFileSync(`${file}.gz`, packed);
  sum += packed.length;
  console.log(`${String(packed.length).padStart(8)} B gzip  ${file.slice(root.length + 1)}`);
}
console.log(`${String(sum).padStart(8)} B gzip  in total, of ${LIMIT_BYTES} allowed`);
if (sum > LIMIT_BYTES) {
  console.error('The page is heavier than it may be: see what grew, or raise LIMIT_BYTES in build/pack.mjs and say why.');
  process.exit(1);
}
