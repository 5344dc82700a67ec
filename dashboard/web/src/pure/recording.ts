// Reads a recording: what is missing or of another kind is said by name, before anything is drawn from it.

import type { Recording } from '../api/types';

const FORMAT = 'segue-recording/1';

export function readRecording(text: string): Recording {
  let read: unknown;
  try {
    read = JSON.parse(text);
  } catch {
    throw new Error('this is not JSON. A recording is the file that “Save recording” or segue migration record writes.');
  }
  const recording = (typeof read === 'object' && read != null ? read : {}) as Partial<Recording>;
  if (recording.format !== FORMAT) {
    throw new Error(`its format is ${JSON.stringify(recording.format ?? null)}, this page reads "${FORMAT}".`);
  }
  const migration = recording.migration;
  if (!migration || typeof migration.id !== 'string' || !Array.isArray(migration.phases) || typeof migration.accepted_ms !== 'number') {
    throw new Error('it has no whole "migration".');
  }
  return {
    format: FORMAT,
    version: recording.version ?? 'unknown',
    exported_ms: recording.exported_ms ?? migration.ended_ms ?? migration.accepted_ms,
    migration: { ...migration, plan: migration.plan ?? recording.plan ?? null, hashes: migration.hashes ?? recording.hashes ?? null },
    plan: recording.plan ?? null,
    config: recording.config ?? null,
    events: recording.events ?? [],
    series: { lag: [], arrival: [], replay: [], latency: [], ...recording.series },
    hashes: recording.hashes ?? null,
    decisions: recording.decisions ?? null,
  };
}
