// Made-up nodes, services and migrations in the shapes of REST; typed by the same generated types as the page.

import type { Check, Migration, Node, Plan, Series, Service, Strategy } from '../../src/api/types';

export const PHASES = ['prepare', 'checkpoint', 'transfer', 'restore', 'replay', 'verify', 'handover'] as const;
const SHARES = [0.03, 0.22, 0.24, 0.05, 0.34, 0.08, 0.04];

/** Numbers that are the same in every run (mulberry32). */
export function numbers(seed: number): () => number {
  let state = seed;
  return () => {
    state = (state + 0x6d2b79f5) | 0;
    let mixed = Math.imul(state ^ (state >>> 15), 1 | state);
    mixed = (mixed + Math.imul(mixed ^ (mixed >>> 7), 61 | mixed)) ^ mixed;
    return ((mixed ^ (mixed >>> 14)) >>> 0) / 2 ** 32;
  };
}

export function hash(of: string): string {
  const random = numbers([...of].reduce((sum, letter) => (sum * 31 + letter.charCodeAt(0)) | 0, 7));
  return Array.from({ length: 64 }, () => Math.floor(random() * 16).toString(16)).join('');
}

/** Like a ULID: 26 letters, in order of time. */
export function id(number: number): string {
  return `01KB${String(number).padStart(22, '0')}`;
}

export function node(name: string, kind: string, more: Partial<Node> = {}): Node {
  return {
    name, class: kind, arch: kind === 'host' ? 'x86_64' : 'aarch64', admin: '127.0.0.1:7171', incarnation: hash(name).slice(0, 32),
    silent: false, state: 'alive', heard_ms_ago: 40, load: { cpu_percent: 12, memory_bytes: 48_000_000 }, owns: [], standby_of: [], shards: [], ...more,
  };
}

export function service(name: string, owner: string, others: string[], more: Partial<Service> = {}): Service {
  const tail = more.tail ?? 18_204;
  return {
    service: name, shard: '0', owner, epoch: 3, tail, messages_counted: tail - 40, checkpoint: tail - 1_100, checkpoint_age_ms: 11_000,
    lag_records: 0, rate_per_s: 950, proof: 'state', last_proof: 'state', migration: null, standbys: [],
    replicas: [owner, ...others].map((at, index) => ({
      node: at, state: index === 0 ? 'following' : 'none', applied: index === 0 ? tail : 0, listen: `127.0.0.1:808${index + 1}`, silent: false,
      runs_replica: true, trouble: null,
    })),
    ...more,
  };
}

export function plan(of: Service, to: string, strategy: Strategy, checks: Check[], totalMs: number): Plan {
  const ok = checks.every((check) => check.ok || check.severity !== 'error');
  const refused = checks.find((check) => !check.ok && check.severity === 'error');
  const warm = of.standbys.includes(to);
  return {
    ok, service: of.service, shard: of.shard, from: of.owner ?? null, to, strategy, checks,
    phases: ok ? PHASES.map((name, index) => ({
      name, expected_ms: Math.round((SHARES[index] ?? 0) * totalMs), basis: index < 4 ? 'measured' as const : 'estimated' as const, detail: '',
    })) : [],
    total_ms: ok ? totalMs : null, blackout_ms: ok ? 12 : null, converges: ok ? true : null, converges_in_s: ok ? 0.6 : null,
    arrival_per_s: of.rate_per_s ?? null, replay_per_s: 4_200, state_bytes: 1_480_000,
    sentence: ok
      ? `${of.service} moves from ${of.owner} to ${to} in about ${totalMs} ms; blackout about 12 ms; the replay will converge in 0.6 s.${warm ? ' The target is a warm standby.' : ''}`
      : (refused?.detail ?? ''),
  };
}

export function check(code: string, title: string, ok: boolean, detail: string, hint: string | null = null): Check {
  return { code, title, ok, severity: 'error', detail, hint };
}

export function migration(number: number, of: Service, to: string, more: Partial<Migration> = {}): Migration {
  return {
    id: id(number), service: of.service, shard: of.shard, operation: 'move', of: null, strategy: 'live', from: of.owner ?? '', to,
    phase: 'prepare', outcome: null, proof: null, divergence: null, epoch: of.epoch + 1, attempt: 1, accepted_ms: Date.now(), ended_ms: null,
    total_ms: null, lag_records: null, paused: null, state_bytes: null, phases: [], error: null, reason: null, cancel_requested: false,
    keep_standby_s: 300, standby_until_ms: null, can_cancel: true, can_undo: false, why_not_undo: 'it runs', plan: null, source_position: null,
    handover_position: null, blackout_ms: null, planned_blackout_ms: 12, hashes: null, forecast: null, deadline_s: null, max_blackout_ms: null, ...more,
  };
}

/** A migration that ended long ago. */
export function past(number: number, of: Service, to: string, acceptedMs: number, outcome: NonNullable<Migration['outcome']>): Migration {
  const random = numbers(number * 977);
  const totalMs = Math.round(120 + random() * 900);
  const upTo = outcome === 'completed' ? 7 : outcome === 'diverged' ? 6 : 2 + Math.floor(random() * 4);
  let began = acceptedMs;
  const phases = PHASES.slice(0, upTo).map((name, index) => {
    const ms = Math.max(1, Math.round((SHARES[index] ?? 0) * totalMs));
    const phase = { name, attempt: 1, began_ms: began, ms };
    began += ms;
    return phase;
  });
  const done = outcome === 'completed';
  const at = 4_000 + number * 311;
  return migration(number, of, to, {
    accepted_ms: acceptedMs, ended_ms: began, total_ms: began - acceptedMs, outcome, phase: outcome, phases, can_cancel: false,
    why_not_undo: done ? `${of.owner}’s standby was retired after keep_standby` : 'it did not complete', proof: done ? 'state' : null,
    blackout_ms: done ? Math.round((2 + random() ** 3 * 60) * 10) / 10 : null, state_bytes: 1_480_000, source_position: at,
    handover_position: done ? at + 420 : null, plan: plan(of, to, 'live', allChecks(of, to), 520),
    hashes: done ? { position: at + 400, source: hash(`s${number}`), target: hash(`s${number}`), kind: 'state' } : null,
    error: outcome === 'rolled-back' ? `${to}: the service did not become ready within 10 s; see its output, or raise ready_timeout` : outcome === 'diverged' ? `the replies of ${of.owner} and ${to} differ at ${at + 200}` : null,
    divergence: outcome === 'diverged' ? { what: 'replies', after: at + 100, upto: at + 300, position: at + 200, field: 'json:/started_at', owner: '"02:11:05"', target: '"02:11:09"', replies: null } : null,
  });
}

export function allChecks(of: Service, to: string): Check[] {
  return [
    check('service-known', 'The service is known', true, `${of.service} is owned by ${of.owner}`),
    check('node-known', 'The node is known', true, to),
    check('node-alive', 'The target is heard', true, `${to} was heard 40 ms ago`),
    check('source-alive', 'The source is heard', true, `${of.owner} was heard 35 ms ago`),
    check('target-runs-service', 'The target can run it', true, `${to} names ${of.service} in its configuration`),
    check('not-moving', 'It does not move already', true, ''),
    check('converges', 'The replay converges', true, '950/s in, 4,200/s replayed'),
    check('capacity', 'The target has room', true, '48 MB of 2 GB used'),
  ];
}

/** Samples of a migration, from its acceptance to `untilMs`. */
export function series(of: Migration, untilMs: number): Series {
  const result: Series = { lag: [], arrival: [], replay: [], latency: [] };
  const random = numbers(of.accepted_ms % 100_000);
  const phase = (name: string) => of.phases.find((candidate) => candidate.name === name)?.began_ms ?? Infinity;
  const [checkpoint, replay, handover] = [phase('checkpoint'), phase('replay'), phase('handover')];
  let lag = 0;
  const step = Math.max(10, (untilMs - of.accepted_ms) / 120);
  for (let at = of.accepted_ms; at <= untilMs; at += step) {
    const arrival = 930 + random() * 40;
    const speed = at >= replay && lag > 0 ? 3_900 + random() * 500 : at >= replay ? arrival : 0;
    if (at >= checkpoint) lag = Math.max(0, lag + ((arrival - speed) * step) / 1000);
    const busy = at >= checkpoint && at < replay ? 1.6 : at >= handover ? 2.4 : 1;
    result.arrival.push([at, Math.round(arrival)]);
    if (at >= checkpoint) result.lag.push([at, Math.round(lag)]);
    if (at >= replay) result.replay.push([at, Math.round(speed)]);
    result.latency.push([at, 1 + random() * 0.3, busy * (3 + random() * 2), busy * (5 + random() * 4)]);
  }
  return result;
}
