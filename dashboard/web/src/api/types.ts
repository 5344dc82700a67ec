// The shapes that REST speaks, under the names the page uses; generated from configs/openapi.json by `npm run types`.

import type { components } from './schema';

type Schemas = components['schemas'];

export type Check = Schemas['Check'];
export type Forecast = Schemas['Forecast'];
export type Hashes = Schemas['Hashes'];
export type NewMigration = Schemas['NewMigration'];
export type Node = Schemas['Node'];
export type PhaseTime = Schemas['PhaseTime'];
export type Plan = Schemas['Plan'];
export type PlannedPhase = Schemas['PlannedPhase'];
export type Series = Schemas['Series'];
export type Service = Schemas['Service'];
export type ShardName = Schemas['ShardName'];
export type Status = Schemas['StatusAnswer'];
export type Strategy = Schemas['Strategy'];
export type Version = Schemas['VersionAnswer'];
export type Ending = Schemas['Ending'];

/** Where source and target differ; REST tells it as a plain object. */
export interface Difference {
  what: string;
  after: number;
  upto: number;
  position?: number | null;
  field?: string | null;
  owner?: string | null;
  target?: string | null;
  replies?: string | null;
}

export type Migration = Omit<Schemas['Migration'], 'divergence'> & { divergence?: Difference | null };

/** Something that happened; what `data` is, its kind tells. */
export type Event = Omit<Schemas['Event'], 'data'> & { data: unknown };

/** One migration, whole, as a file. */
export type Recording = Omit<Schemas['Recording'], 'migration' | 'events' | 'config' | 'decisions'> & {
  migration: Migration;
  events: Event[];
  config: unknown;
  decisions: unknown;
};

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

/** One of a drain's moves. */
export interface DrainMove {
  service: string;
  shard: string;
  to: string | null;
  migration: string | null;
  problem: string | null;
}
