// The same operation for the command line and for curl, to copy. Never holds the token itself.

import type { NewMigration } from '../api/types';

export interface Copies {
  cli: string;
  curl: string;
}

export function moveCommands(order: NewMigration, origin: string, authorized: boolean): Copies {
  const cli = ['segue', 'migrate', order.service, '--to', order.to];
  if (order.shard && order.shard !== '0') cli.push('--shard', order.shard);
  if (order.strategy && order.strategy !== 'live') cli.push('--strategy', order.strategy);
  if (order.max_blackout_ms != null) cli.push('--max-blackout-ms', String(order.max_blackout_ms));
  if (order.allow_unproven) cli.push('--allow-unproven');
  if (order.reason) cli.push('--reason', order.reason);
  cli.push('--watch');
  return { cli: line(cli), curl: curl(origin, '/v1/migrations', authorized, order) };
}

/** `cancel`, `undo` and `retire` of a migration. */
export function actionCommands(action: 'cancel' | 'undo' | 'retire', id: string, origin: string, authorized: boolean): Copies {
  return { cli: line(['segue', 'migration', action, id]), curl: curl(origin, `/v1/migrations/${id}/${action}`, authorized) };
}

export function watchCommands(id: string, origin: string, authorized: boolean): Copies {
  const words = ['curl', '-N', ...header(authorized), `${origin}/v1/migrations/${id}/events`];
  return { cli: line(['segue', 'migration', 'watch', id]), curl: line(words) };
}

function curl(origin: string, path: string, authorized: boolean, body?: unknown): string {
  const words = ['curl', '-X', 'POST', ...header(authorized)];
  if (body !== undefined) words.push('-H', 'content-type: application/json', '--data', JSON.stringify(body));
  words.push(`${origin}${path}`);
  return line(words);
}

function header(authorized: boolean): string[] {
  return authorized ? ['-H', '@TOKEN@'] : [];
}

function line(words: string[]): string {
  return words.map((word) => (word === '@TOKEN@' ? '"authorization: Bearer $SEGUE_TOKEN"' : quote(word))).join(' ');
}

/** Quoted for a POSIX shell where needed. */
export function quote(word: string): string {
  return /^[A-Za-z0-9_./:=@%+,-]+$/.test(word) ? word : `'${word.replaceAll("'", `'\\''`)}'`;
}
