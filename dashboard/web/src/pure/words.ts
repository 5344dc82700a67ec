// What is said about phases, strategies and ends: one sentence each, in the words of the README.

import type { Migration, Service } from '../api/types';

/** What a phase does; shown beside its bar. */
const PHASES: Record<string, string> = {
  prepare: 'Both ends check that they can. Nothing has changed yet.',
  checkpoint: 'The source saves its state while it serves; it is kept until the move ends.',
  transfer: 'The target starts an instance and streams the state into it.',
  restore: 'The target waits until the instance is ready.',
  replay: 'The target applies the log up to near its tail.',
  verify: 'Source and target are compared at one position of the log.',
  pause: 'The source stands still: what arrives waits.',
  handover: 'The target appends the fence, the record that makes it the owner. No return after it.',
  retire: 'A fence to the present owner is on its way; the old replica goes when it counts.',
  'rolling-back': 'A fence to the present owner is on its way; the target then drops what it has.',
  completed: 'The target owns; the source stays as a standby.',
  'rolled-back': 'The owner stays; a step failed or took too long.',
  failed: 'Another fence counted first; the owner is whom that one names.',
  diverged: 'The owner stays; the replicas gave different answers.',
  cancelled: 'The owner stays; somebody asked for it.',
};

const STRATEGIES: Record<string, string> = {
  live: 'Replay while the source serves, then one fence. No pause.',
  precopy: 'Checkpoints while the source serves, a short pause for the last one; nothing is replayed. For services that are not deterministic.',
  ms2m: 'As MS2M: replay while the source serves, which is stopped for the last stretch.',
  'stop-and-copy': 'The source is stopped, saved and loaded elsewhere. To compare with.',
};

const PROOFS: Record<string, string> = {
  state: 'The hashes of both states were equal.',
  'replies only': 'The replies since the load were equal; states were not compared.',
  unproven: 'Nothing was there to compare.',
};

/** What a service demands of a move; nothing was compared yet. */
const DEMANDS: Record<string, string> = {
  state: 'A move must show equal states. No move has shown it yet.',
  replies: 'A move must show equal replies. No move has shown it yet.',
  none: 'Nothing is compared: a move needs “allow unproven”.',
};

export const STRATEGY_NAMES = ['live', 'precopy', 'ms2m', 'stop-and-copy'] as const;

export function phaseMeaning(name: string): string {
  return PHASES[name] ?? '';
}

export function strategyMeaning(name: string): string {
  return STRATEGIES[name] ?? '';
}

export function proofMeaning(name: string | null | undefined): string {
  return name == null ? '' : (PROOFS[name] ?? '');
}

/** What the last move of a service showed; before its first one, what a move must show. */
export function serviceProof(service: Pick<Service, 'last_proof' | 'proof'>): { name: string; meaning: string } {
  if (service.last_proof != null) return { name: service.last_proof, meaning: proofMeaning(service.last_proof) };
  const name = service.proof ?? '–';
  return { name, meaning: DEMANDS[name] ?? '' };
}

/** `delay-board`, or `delay-board/3`: the default shard is not named. */
export function shardName(of: { service: string; shard: string }): string {
  return of.shard === '0' ? of.service : `${of.service}/${of.shard}`;
}

/** What it is: `Move of delay-board from edge-a to edge-b`. */
export function title(migration: Migration): string {
  const what = shardName(migration);
  if (migration.operation === 'retire') return `Retire of the standby of ${what} on ${migration.to}`;
  return `${migration.operation === 'undo' ? 'Undo' : 'Move'} of ${what} from ${migration.from} to ${migration.to}`;
}

/** Whence and whereto; a retirement moves nothing. */
export function route(migration: Migration): string {
  return migration.operation === 'retire' ? `standby on ${migration.to}` : `${migration.from} → ${migration.to}`;
}

/** What Cancel will do, before it is pressed. */
export function cancelConsequences(migration: Migration): string[] {
  return [
    `${migration.from} stays the owner${migration.strategy === 'live' ? '; it has not stopped serving' : ' and serves again if it stands still'}.`,
    `A fence of epoch ${migration.epoch} to ${migration.from} is appended to the log; ${migration.to} drops its replica when it reads it.`,
    `If ${migration.to}’s own fence is already in the log, that one counts and the migration completes: exactly one of them wins.`,
    'Nothing is lost: every acknowledged record stays in the log.',
  ];
}

/** What Undo will do, before it is pressed. */
export function undoConsequences(migration: Migration): string[] {
  const blackout = migration.blackout_ms == null ? '' : ` The move there had a blackout of ${migration.blackout_ms} ms.`;
  const way = migration.standby_until_ms == null
    ? `${migration.from} has no warm standby any more: the state is transferred again, by ${migration.strategy}.`
    : `${migration.from} is still a warm standby: it has applied the log all along, so nothing is transferred.`;
  return [
    `${shardName(migration)} moves back from ${migration.to} to ${migration.from}, as a migration of its own that you can watch and cancel.`,
    `${way}${blackout}`,
    'Everything that was acknowledged since the move stays.',
  ];
}

/** What Retire will do, before it is pressed. */
export function retireConsequences(migration: Migration): string[] {
  return [
    `${migration.from} drops its standby of ${shardName(migration)} and frees what it holds.`,
    `${migration.to} stays the owner and serves on.`,
    'After that this move cannot be undone from a warm standby; moving back is a move like any other.',
  ];
}
