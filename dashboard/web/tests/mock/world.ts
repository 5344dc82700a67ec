// A made-up system that behaves: migrations take their phases in time, can be cancelled, undone and retired, and everything that
// changes is told as an event. Knows nothing of HTTP.

import type { DrainMove, Event, Migration, NewMigration, Node, Plan, Recording, Service, Strategy } from '../../src/api/types';
import { phaseMeaning } from '../../src/pure/words';
import * as data from './data';

export interface Refusal {
  status: number;
  code: string;
  title: string;
  detail: string;
  hint: string;
  checks?: Plan['checks'];
}

export interface Told {
  /** Only what lasts has an id and can be resumed. */
  id: number | null;
  event: 'migration' | 'service' | 'node';
  data: Event;
}

/** How long a made-up migration takes. */
const MOVE_MS = 1_600;

export class World {
  readonly services = new Map<string, Service>();
  readonly nodes = new Map<string, Node>();
  readonly migrations = new Map<string, Migration>();
  readonly told: (Told & { id: number })[] = [];
  listener: (told: Told) => void = () => undefined;
  /** A factor: larger is slower. */
  slowness = 1;
  #number = 1_000;
  #id = 0;
  #timers = new Set<NodeJS.Timeout>();

  /** The demo's two nodes and a service, one more of each, and a node that is gone. */
  static small(): World {
    const world = new World();
    const board = data.service('delay-board', 'edge-a', ['edge-b', 'csd-1']);
    const ledger = data.service('ledger', 'edge-b', ['edge-a'], { rate_per_s: 42, tail: 7_311, last_proof: 'replies only', proof: 'replies', standbys: ['edge-a'], checkpoint: 7_000, checkpoint_age_ms: 83_000 });
    for (const service of [board, ledger]) world.services.set(service.service, service);
    for (const replica of board.replicas) if (replica.node === 'csd-1') replica.silent = true;
    world.nodes.set('edge-a', data.node('edge-a', 'edge'));
    world.nodes.set('edge-b', data.node('edge-b', 'edge', { load: { cpu_percent: 31, memory_bytes: 131_000_000 } }));
    world.nodes.set('csd-1', data.node('csd-1', 'csd', { silent: true, state: 'silent', heard_ms_ago: 184_000, load: null }));
    world.#placeShards();
    const outcomes = ['completed', 'completed', 'completed', 'cancelled', 'completed', 'rolled-back', 'completed', 'completed', 'diverged', 'completed'] as const;
    for (let number = 1; number <= 40; number += 1) {
      const of = number % 3 === 0 ? ledger : board;
      const to = number % 2 === 0 ? 'edge-a' : 'edge-b';
      const from = to === 'edge-a' ? 'edge-b' : 'edge-a';
      const migration = data.past(number, { ...of, owner: from }, to, Date.now() - (41 - number) * 1_700_000, outcomes[number % outcomes.length] ?? 'completed');
      world.migrations.set(migration.id, migration);
    }
    return world;
  }

  /** 200 services on 50 nodes, 20 of them moving for ever. */
  static large(): World {
    const world = new World();
    const nodes = Array.from({ length: 50 }, (_, index) => `node-${String(index + 1).padStart(2, '0')}`);
    nodes.forEach((name, index) => world.nodes.set(name, data.node(name, ['host', 'edge', 'dpu', 'csd'][index % 4] ?? 'host')));
    for (let index = 0; index < 200; index += 1) {
      const [owner, other] = [nodes[index % 50] ?? '', nodes[(index + 7) % 50] ?? ''];
      world.services.set(`service-${index + 1}`, data.service(`service-${index + 1}`, owner, [other], { standbys: index % 2 === 0 ? [other] : [] }));
    }
    [...world.services.values()].slice(0, 20).forEach((of, index) => {
      const migration = data.migration(2_000 + index, of, nodes[(index + 7) % 50] ?? '', { phase: 'replay', lag_records: 900 });
      of.migration = migration.id;
      world.migrations.set(migration.id, migration);
    });
    world.#placeShards();
    return world;
  }

  /** Everything changes a little and is told: one update of the load page. */
  stir(round: number): void {
    for (const of of this.services.values()) this.#change(of, { rate_per_s: 900 + ((round * 37 + of.tail) % 100), tail: of.tail + 450, lag_records: (round * 7) % 40 });
    for (const node of this.nodes.values()) this.#heard(node, { load: { cpu_percent: (round * 13 + node.name.length) % 100, memory_bytes: 48_000_000 + round * 4_096 } });
    for (const migration of this.migrations.values()) {
      if (migration.outcome != null) continue;
      const left = 900 - ((round * 31) % 800);
      this.#tell(migration, 'lag', `lag ${left}`, { lag_records: left, forecast: forecast(950, 4_200, left) }, false);
    }
  }

  plan(order: NewMigration): Plan | Refusal {
    const of = this.services.get(order.service);
    const target = this.nodes.get(order.to);
    if (!of) return { status: 404, code: 'no-such-service', title: 'There is no such service', detail: order.service, hint: 'segue service ls' };
    const checks = data.allChecks(of, order.to).map((check) => {
      if (check.code === 'node-alive' && target?.silent) return data.check('node-alive', 'The target is heard', false, `${order.to} was last heard ${Math.round(target.heard_ms_ago / 1000)} s ago`, `Start its sidecar again, or see why it cannot reach the broker: segue doctor. Until then choose another node.`);
      if (check.code === 'target-runs-service' && !of.replicas.some((replica) => replica.node === order.to)) return data.check(check.code, check.title, false, `${order.to} does not name ${of.service} in its configuration`, `Add a [[service]] ${of.service} to ${order.to}’s file and restart its sidecar.`);
      if (check.code === 'not-moving' && of.migration != null) return data.check(check.code, check.title, false, `it moves already: ${of.migration}`, 'Wait for it, or cancel it.');
      return check;
    });
    if (of.owner === order.to) checks.push(data.check('target-is-not-owner', 'The target is not the owner already', false, `${order.to} owns ${of.service}`, 'Choose another node.'));
    return data.plan(of, order.to, (order.strategy ?? 'live') as Strategy, checks, MOVE_MS * this.slowness);
  }

  start(order: NewMigration, more: Partial<Migration> = {}): Migration | Refusal {
    const planned = this.plan(order);
    if ('status' in planned) return planned;
    if (!planned.ok) return { status: 409, code: 'checks-failed', title: 'The move cannot start', detail: planned.sentence, hint: 'See the checks.', checks: planned.checks };
    const of = this.services.get(order.service) as Service;
    this.#number += 1;
    const migration = data.migration(this.#number, of, order.to, { plan: planned, reason: order.reason ?? null, ...more });
    this.migrations.set(migration.id, migration);
    this.#change(of, { migration: migration.id });
    this.#tell(migration, 'accepted', `Accepted: ${of.service} from ${of.owner} to ${order.to}`, {});
    this.#phase(migration, 0);
    return this.migrations.get(migration.id) as Migration;
  }

  cancel(id: string): Migration | Refusal {
    const migration = this.migrations.get(id);
    if (!migration) return missing(id);
    if (migration.outcome != null) return { status: 409, code: 'ended', title: 'It has ended already', detail: migration.outcome, hint: 'Undo it instead.' };
    this.#tell(migration, 'cancel-requested', 'Cancel requested', { cancel_requested: true, can_cancel: false });
    this.#enter(id, 'rolling-back');
    this.#later(300, () => this.#end(id, 'cancelled', { why_not_undo: 'it did not complete' }));
    return this.migrations.get(id) as Migration;
  }

  undo(id: string): Migration | Refusal {
    const migration = this.migrations.get(id);
    if (!migration) return missing(id);
    if (!migration.can_undo) return { status: 409, code: 'cannot-undo', title: 'It cannot be undone', detail: migration.why_not_undo ?? '', hint: 'Move it back: segue migrate.' };
    this.#tell(migration, 'undone', 'An undo of it was accepted', { can_undo: false, why_not_undo: 'it was undone' });
    return this.start({ service: migration.service, to: migration.from }, { operation: 'undo', of: id });
  }

  retire(id: string): Migration | Refusal {
    const migration = this.migrations.get(id);
    if (!migration) return missing(id);
    this.#tell(migration, 'retired', `${migration.from} retired its standby`, { can_undo: false, why_not_undo: 'its standby was retired', standby_until_ms: null });
    const of = this.services.get(migration.service);
    if (of) this.#change(of, { standbys: [] });
    return this.migrations.get(id) as Migration;
  }

  recording(id: string): Recording | Refusal {
    const migration = this.migrations.get(id);
    if (!migration) return missing(id);
    return {
      format: 'segue-recording/1', version: '0.1.0', exported_ms: Date.now(), migration, plan: migration.plan ?? null, config: { keep_standby_s: 300 },
      events: this.events(id), series: data.series(migration, migration.ended_ms ?? Date.now()), hashes: migration.hashes ?? null, decisions: [{ at: 'replay', decided: 'verify: lag within the limit' }],
    };
  }

  events(id: string | null): Event[] {
    return this.told.filter((told) => id == null || told.data.migration === id).map((told) => ({ ...told.data, data: null }));
  }

  /** Something measured, which does not last. */
  sample(id: string, change: Partial<Migration>): void {
    const migration = this.migrations.get(id);
    if (migration) this.#tell(migration, 'sample', '', change, false);
  }

  /** Moves all that a node owns to others; only tells where to when `validateOnly`. */
  drain(name: string, validateOnly: boolean): DrainMove[] {
    return (this.nodes.get(name)?.owns ?? []).map((shard) => {
      const to = this.services.get(shard.service)?.replicas.find((replica) => replica.node !== name && !replica.silent)?.node ?? null;
      if (to == null) return { ...shard, to, migration: null, problem: 'no other node that is heard runs it' };
      const started = validateOnly ? null : this.start({ service: shard.service, to });
      return { ...shard, to, migration: started && 'id' in started ? started.id : null, problem: started && 'code' in started ? started.detail : null };
    });
  }

  end(): void {
    for (const timer of this.#timers) clearTimeout(timer);
    this.#timers.clear();
  }

  #phase(started: Migration, index: number): void {
    const name = data.PHASES[index];
    const id = started.id;
    if (this.migrations.get(id)?.cancel_requested) return;
    if (!name) return this.#completed(id);
    this.#enter(id, name);
    const shares = [0.05, 0.2, 0.2, 0.05, 0.35, 0.1, 0.05];
    this.#later((shares[index] ?? 0.1) * MOVE_MS * this.slowness, () => this.#phase(started, index + 1));
  }

  #enter(id: string, name: Migration['phase']): void {
    const migration = this.migrations.get(id);
    if (!migration || migration.outcome != null) return;
    const now = Date.now();
    const phases = migration.phases.map((phase) => (phase.ms == null ? { ...phase, ms: now - phase.began_ms } : phase));
    this.#tell(migration, 'phase', `Phase ${name}`, {
      phase: name, phases: [...phases, { name, attempt: 1, began_ms: now, ms: null }], lag_records: name === 'replay' ? 640 : migration.lag_records ?? null,
      forecast: name === 'replay' ? forecast(950, 4_200, 640) : null, state_bytes: name === 'transfer' ? 1_480_000 : migration.state_bytes ?? null,
      source_position: name === 'transfer' ? 18_100 : migration.source_position ?? null, can_cancel: name !== 'rolling-back',
      ...(name === 'handover' ? { proof: 'state' as const, hashes: { position: 18_400, source: hash(id), target: hash(id), kind: 'state' } } : {}),
    });
  }

  #completed(id: string): void {
    const migration = this.migrations.get(id);
    const of = migration && this.services.get(migration.service);
    if (!migration || !of) return;
    this.#end(id, 'completed', { handover_position: 18_420, can_undo: true, why_not_undo: null, lag_records: 0, standby_until_ms: Date.now() + 300_000 });
    const replicas = of.replicas.map((replica) => ({ ...replica, ...(replica.node === migration.to ? { state: 'following', applied: of.tail } : {}) }));
    this.#change(of, { owner: migration.to, standbys: [migration.from], epoch: of.epoch + 1, replicas });
    this.#placeShards();
    for (const node of this.nodes.values()) this.#heard(node, {});
    this.#later(1_000, () => this.#tell(this.migrations.get(id) as Migration, 'blackout', 'Blackout measured: 9 ms', { blackout_ms: 9 }));
  }

  #end(id: string, outcome: NonNullable<Migration['outcome']>, more: Partial<Migration>): void {
    const migration = this.migrations.get(id);
    if (!migration) return;
    const now = Date.now();
    const phases = migration.phases.map((phase) => (phase.ms == null ? { ...phase, ms: now - phase.began_ms } : phase));
    this.#tell(migration, outcome, `Ended: ${outcome}`, { outcome, phase: outcome, phases, ended_ms: now, total_ms: now - migration.accepted_ms, can_cancel: false, forecast: null, ...more });
    const of = this.services.get(migration.service);
    if (of) this.#change(of, { migration: null });
  }

  #tell(migration: Migration, kind: string, title: string, change: Partial<Migration>, lasting = true): void {
    const next: Migration = { ...migration, ...change };
    this.migrations.set(migration.id, next);
    const event: Event = { id: null, kind: 'migration', at_ms: Date.now(), migration: migration.id, service: migration.service, node: null, title, detail: kind === 'phase' ? phaseMeaning(next.phase) : '', data: next };
    if (!lasting) return this.listener({ id: null, event: 'migration', data: event });
    this.#id += 1;
    const told = { id: this.#id, event: 'migration' as const, data: { ...event, id: this.#id } };
    this.told.push(told);
    this.listener(told);
  }

  #change(of: Service, change: Partial<Service>): void {
    Object.assign(of, change);
    this.listener({ id: null, event: 'service', data: { id: null, kind: 'service', at_ms: Date.now(), migration: null, service: of.service, node: null, title: '', detail: '', data: of } });
  }

  #heard(node: Node, change: Partial<Node>): void {
    Object.assign(node, change);
    this.listener({ id: null, event: 'node', data: { id: null, kind: 'node', at_ms: Date.now(), migration: null, service: null, node: node.name, title: '', detail: '', data: node } });
  }

  #placeShards(): void {
    const of = (service: Service) => ({ service: service.service, shard: service.shard });
    for (const node of this.nodes.values()) {
      node.owns = [...this.services.values()].filter((service) => service.owner === node.name).map(of);
      node.standby_of = [...this.services.values()].filter((service) => service.standbys.includes(node.name)).map(of);
    }
  }

  #later(ms: number, act: () => void): void {
    const timer = setTimeout(() => {
      this.#timers.delete(timer);
      act();
    }, ms);
    this.#timers.add(timer);
  }
}

function hash(id: string): string {
  return data.hash(id);
}

function missing(id: string): Refusal {
  return { status: 404, code: 'no-such-migration', title: 'There is no such migration', detail: `${id} is not in the journal.`, hint: 'segue migration ls names them all.' };
}

function forecast(arrival: number, replay: number, lag: number) {
  const seconds = lag / (replay - arrival);
  return { converges: true, in_s: seconds, arrival_per_s: arrival, replay_per_s: replay, sentence: `will converge in ${seconds.toFixed(1)} s` };
}
