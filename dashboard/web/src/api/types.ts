// The shapes that REST speaks, under the names the page uses.

/** How a migration ended. */
export type Ending = 'completed' | 'rolled-back' | 'failed' | 'diverged' | 'cancelled';
export type Strategy = 'live' | 'precopy' | 'ms2m' | 'stop-and-copy';

export interface PhaseView {
  name: string;
  attempt: number;
  began_ms: number;
  ms: number | null;
}

export interface Check {
  code: string;
  title: string;
  ok: boolean;
  severity: 'error' | 'warning' | 'info';
  detail: string;
  hint: string | null;
}

export interface PlanPhase {
  name: string;
  expected_ms: number | null;
  basis: 'measured' | 'estimated' | 'unknown';
  detail: string;
}

export interface Plan {
  ok: boolean;
  service: string;
  shard: string;
  from: string | null;
  to: string;
  strategy: Strategy;
  checks: Check[];
  phases: PlanPhase[];
  total_ms: number | null;
  blackout_ms: number | null;
  converges: boolean | null;
  converges_in_s: number | null;
  arrival_per_s: number | null;
  replay_per_s: number | null;
  state_bytes: number | null;
  sentence: string;
}

export interface Hashes {
  position: number;
  source: string;
  target: string;
  kind: 'state' | 'replies';
}

export interface Forecast {
  converges: boolean;
  in_s: number | null;
  arrival_per_s: number;
  replay_per_s: number;
  sentence: string;
}

export interface Difference {
  what: string;
  after: number;
  upto: number;
  position: number | null;
  field: string | null;
  owner: string | null;
  target: string | null;
  replies: string | null;
}

export interface Migration {
  id: string;
  service: string;
  shard: string;
  operation: 'move' | 'undo' | 'retire';
  of: string | null;
  strategy: Strategy;
  from: string;
  to: string;
  phase: string;
  outcome: Ending | null;
  proof: string | null;
  divergence: Difference | null;
  epoch: number;
  attempt: number;
  accepted_ms: number;
  ended_ms: number | null;
  total_ms: number | null;
  lag_records: number | null;
  paused?: number | null;
  state_bytes: number | null;
  phases: PhaseView[];
  error: string | null;
  reason: string | null;
  cancel_requested: boolean;
  keep_standby_s: number | null;
  standby_until_ms: number | null;
  can_cancel: boolean;
  can_undo: boolean;
  why_not_undo: string | null;
  plan: Plan | null;
  source_position: number | null;
  handover_position: number | null;
  blackout_ms: number | null;
  planned_blackout_ms: number | null;
  hashes: Hashes | null;
  forecast: Forecast | null;
}

export interface Series {
  lag: number[][];
  arrival: number[][];
  replay: number[][];
  latency: number[][];
}

export interface Replica {
  node: string;
  state: 'none' | 'loading' | 'replaying' | 'following' | 'stopped';
  applied: number;
  listen: string;
  silent: boolean;
  trouble: string | null;
}

export interface Service {
  service: string;
  shard: string;
  owner: string | null;
  epoch: number;
  tail: number;
  messages_counted: number;
  checkpoint: number | null;
  migration: string | null;
  replicas: Replica[];
  standbys: string[];
  rate_per_s: number | null;
  lag_records: number | null;
  checkpoint_age_ms: number | null;
  proof: string | null;
  last_proof: string | null;
}

export interface ShardName {
  service: string;
  shard: string;
}

export interface Node {
  name: string;
  incarnation: string;
  class: string;
  arch: string;
  admin: string;
  silent: boolean;
  heard_ms_ago: number;
  state: 'alive' | 'silent';
  load: { cpu_percent: number | null; memory_bytes: number | null } | null;
  owns: ShardName[];
  standby_of: ShardName[];
}

export interface Event {
  id: string | null;
  kind: string;
  at_ms: number;
  migration: string | null;
  service: string | null;
  node: string | null;
  title: string;
  detail: string | null;
  data: unknown;
}

export interface Why {
  service: string;
  shard: string;
  owner: string | null;
  since_ms: number | null;
  because: string;
  history: { epoch: number; owner: string; cause: string; position: number; at_ms: number | null }[];
  can_move_to: { node: string; ok: boolean; checks: Check[] }[];
}

export interface Checkpoint {
  position: number;
  hash: string;
  bytes: number | null;
  at_ms: number | null;
  pinned: boolean;
  kept: boolean;
}

export interface LogRecord {
  position: number;
  at_ms: number;
  kind: string;
  counts: boolean | null;
  writer: string | null;
  summary: string;
  fields: Record<string, unknown>;
  body: { bytes: number; text: string | null; cut: boolean } | null;
}

export interface LogPage {
  first: number;
  tail: number;
  items: LogRecord[];
}

export interface Status {
  broker: { url: string; kind: string; durability: string };
  time_ms: number;
  role: 'viewer' | 'operator' | null;
  stale_after_ms: number;
}

export interface Version {
  version: string;
  commit: string | null;
  api: string;
  features: string[];
}

export interface Recording {
  format: string;
  version: string;
  exported_ms: number;
  migration: Migration;
  plan: Plan | null;
  config: unknown;
  events: Event[];
  series: Series;
  hashes: Hashes | null;
  decisions: unknown;
}

/** What a migration is ordered with. */
export interface NewMigration {
  service: string;
  shard?: string;
  to: string;
  strategy?: Strategy;
  max_blackout_ms?: number;
  reason?: string;
  allow_unproven?: boolean;
}

/** One of a drain's moves. */
export interface DrainMove {
  service: string;
  shard: string;
  to: string | null;
  migration: string | null;
  problem: string | null;
}
