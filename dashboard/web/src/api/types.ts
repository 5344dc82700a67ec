// The shapes that REST speaks, under the names the page uses; generated from configs/openapi.json by `npm run types`.

import type { components } from './schema';

type Schemas = components['schemas'];

export type Check = Schemas['Check'];
export type Hashes = Schemas['Hashes'];
export type NewMigration = Schemas['NewMigration'];
export type Node = Schemas['Node'];
export type Plan = Schemas['Plan'];
export type Series = Schemas['Series'];
export type Service = Schemas['Service'];
export type ShardName = Schemas['ShardName'];
export type Status = Schemas['StatusAnswer'];
export type Strategy = Schemas['Strategy'];
export type Version = Schemas['VersionAnswer'];
export type Checkpoint = Schemas['Checkpoint'];
export type DrainMove = Schemas['DrainMove'];
export type Why = Schemas['Why'];

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

/** One record of a log; which fields it has, its kind tells. */
export type LogRecord = Omit<Schemas['LogItem'], 'fields'> & { fields: Record<string, unknown> };
export type LogPage = Omit<Schemas['LogPage'], 'items'> & { items: LogRecord[] };
