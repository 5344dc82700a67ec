// What the made-up world answers to a request: REST's paths over it.

import type { Checkpoint, LogPage, LogRecord, NewMigration, Status, Version, Why } from '../../src/api/types';
import * as data from './data';
import type { Refusal, World } from './world';

export type Answer = { status?: number; body: unknown } | { refusal: Refusal };

const NOT_FOUND: Answer = { refusal: { status: 404, code: 'no-such-path', title: 'There is nothing here', detail: '', hint: '' } };

export function answer(world: World, role: 'viewer' | 'operator', method: string, url: URL, order: NewMigration | null): Answer {
  const [, head, ...rest] = url.pathname.split('/').filter((part) => part !== '').map(decodeURIComponent);
  if (url.pathname === '/version') return { body: { version: '0.1.0', commit: null, api: 'v1', features: ['nats'] } satisfies Version };
  if (head === 'status') return { body: status(world, role) };
  if (head === 'migrations') return migrations(world, method, url, order, rest);
  if (head === 'services') return services(world, url, rest);
  if (head === 'nodes') return nodes(world, order, rest);
  if (head === 'events') return { body: { items: world.events(null) } };
  if (head === 'log') return rest[2] === 'skips' ? { body: { items: [] } } : { body: log(world, rest[0] ?? '', url) };
  return NOT_FOUND;
}

function status(world: World, role: 'viewer' | 'operator'): Status {
  const running = [...world.migrations.values()].filter((migration) => migration.outcome == null).length;
  return {
    broker: { url: 'segue://127.0.0.1:7070', kind: 'embedded', durability: 'An acknowledged record is on the disk of one node: written by sled, then fdatasync.' },
    journal: { epoch: 2, position: 311, trouble: null }, nodes_alive: 2, nodes_silent: 1, running, time_ms: Date.now(), role, stale_after_ms: 5_000,
  };
}

function migrations(world: World, method: string, url: URL, order: NewMigration | null, [id, what]: string[]): Answer {
  if (id == null) {
    if (method === 'POST' && order) {
      if (url.searchParams.get('validate_only') === 'true') return given(world.plan(order), 200);
      return given(world.start(order), 202);
    }
    return { body: list(world, url) };
  }
  if (what === 'cancel' || what === 'undo' || what === 'retire') return given(world[what](id), 202);
  if (what === 'recording') return given(world.recording(id), 200);
  if (what === 'events') return { body: { items: world.events(id) } };
  const migration = world.migrations.get(id);
  if (!migration) return { refusal: { status: 404, code: 'no-such-migration', title: 'There is no such migration', detail: `${id} is not in the journal.`, hint: 'segue migration ls names them all.' } };
  if (what === 'series') return { body: data.series(migration, Math.min(Date.now(), (migration.ended_ms ?? Date.now()) + 1_000)) };
  return { body: migration };
}

function list(world: World, url: URL) {
  const wanted = (name: string) => url.searchParams.get(name) ?? '';
  const fits = [...world.migrations.values()]
    .filter((migration) => wanted('service') === '' || migration.service === wanted('service'))
    .filter((migration) => wanted('node') === '' || [migration.from, migration.to].includes(wanted('node')))
    .filter((migration) => wanted('outcome') === '' || migration.outcome === wanted('outcome'))
    .filter((migration) => wanted('running') === '' || (migration.outcome == null) === (wanted('running') === 'true'))
    .sort((a, b) => b.accepted_ms - a.accepted_ms);
  const from = Number(wanted('page_token') || 0);
  const size = Math.min(30, Number(wanted('page_size') || 50));
  return { items: fits.slice(from, from + size), next_page_token: from + size < fits.length ? String(from + size) : null };
}

function services(world: World, url: URL, [name, what]: string[]): Answer {
  if (name == null) return { body: { items: [...world.services.values()] } };
  const of = world.services.get(name);
  if (!of) return NOT_FOUND;
  if (what === 'why') {
    const targets = of.replicas.map((replica) => replica.node).filter((node) => node !== of.owner);
    const why: Why = {
      service: name, shard: url.searchParams.get('shard') ?? '0', owner: of.owner ?? null, since_ms: Date.now() - 5_400_000,
      because: `${of.owner} owns it because its fence of epoch ${of.epoch} counted: it was moved there.`,
      history: Array.from({ length: of.epoch }, (_, index) => of.epoch - 1 - index).map((index) => ({ epoch: index + 1, owner: (of.epoch - index) % 2 === 1 ? (of.owner ?? '') : 'edge-b', cause: index === 0 ? 'first' : 'handover', migration: index === 0 ? null : data.id(index), position: 1 + index * 6_000, at_ms: Date.now() - (of.epoch - index) * 5_400_000 })),
      can_move_to: targets.map((node) => {
        const plan = world.plan({ service: name, to: node });
        return { node, ok: 'ok' in plan && plan.ok, checks: 'checks' in plan ? (plan.checks ?? []) : [] };
      }),
    };
    return { body: why };
  }
  if (what === 'checkpoints') {
    const items: Checkpoint[] = [0, 1].map((back) => ({ position: (of.checkpoint ?? 0) - back * 5_000, hash: data.hash(`${name}${back}`), bytes: 1_480_000, at_ms: Date.now() - 11_000 - back * 60_000, pinned: back === 1, kept: true }));
    return { body: { items } };
  }
  return { body: { items: [of] } };
}

function nodes(world: World, order: unknown, [name, what]: string[]): Answer {
  if (name == null) return { body: { items: [...world.nodes.values()] } };
  const node = world.nodes.get(name);
  if (!node) return NOT_FOUND;
  if (what !== 'drain') return { body: node };
  const validateOnly = (order as { validate_only?: boolean } | null)?.validate_only === true;
  return { status: validateOnly ? 200 : 202, body: { moves: world.drain(name, validateOnly) } };
}

function log(world: World, name: string, url: URL): LogPage {
  const of = world.services.get(name);
  const tail = of?.tail ?? 0;
  const count = Number(url.searchParams.get('count') ?? 50);
  const from = Math.max(1, Number(url.searchParams.get('from') ?? tail - count + 1));
  const items: LogRecord[] = [];
  for (let position = from; position <= tail && items.length < count; position += 1) items.push(record(position, tail, of?.owner ?? ''));
  return { first: 1, tail, items };
}

function record(position: number, tail: number, owner: string): LogRecord {
  const base = { position, at_ms: Date.now() - (tail - position), counts: true, verdict: null, writer: owner, body: null };
  if (position % 40 === 7) return { ...base, kind: 'Fence', summary: `epoch ${Math.floor(position / 6_000) + 1} to ${owner}, cause handover`, fields: { epoch: Math.floor(position / 6_000) + 1, owner, cause: 'handover' } };
  if (position % 25 === 4) return { ...base, kind: 'Checkpoint', summary: `state after ${position - 1}, 1.5 MB`, fields: { position: position - 1, manifest: data.hash(String(position)) } };
  if (position % 12 === 5) return { ...base, kind: 'Digest', counts: position % 36 !== 5, verdict: position % 36 !== 5 ? null : 'not the owner', summary: `hash ${data.hash(String(position)).slice(0, 12)} at ${position - 1}`, fields: { position: position - 1, hash: data.hash(String(position)) } };
  const text = '2013,1,1,517,2,830,11,UA,1545,N14228,EWR,IAH,227,1400';
  return { ...base, kind: 'Message', summary: 'POST /flights, 53 B', fields: { session: 'a1f3', sequence: position, method: 'POST', path: '/flights' }, body: { bytes: text.length, text, cut: false } };
}

function given(result: object, status: number): Answer {
  return 'status' in result && typeof result.status === 'number' ? { refusal: result as Refusal } : { status, body: result };
}
