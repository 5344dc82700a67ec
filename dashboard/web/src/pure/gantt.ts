// Places a migration's phases and who serves on one time axis, as fractions of its width. Pure: `now` is handed in.

import type { Migration } from '../api/types';

/** A piece of a lane: `left` and `width` in per cent of the axis. */
export interface Bar {
  left: number;
  width: number;
}

export interface PhaseBar extends Bar {
  /** Names the row: the same phase of a later attempt is another row. */
  key: string;
  name: string;
  attempt: number;
  ms: number | null;
  /** Still under way. */
  running: boolean;
  expectedMs: number | null;
  /** What the plan expected, from this phase's beginning; for comparison. */
  expected: Bar | null;
  /** Where there is room for words: on which side of the bar, and up to where. */
  words: { side: 'left' | 'right'; room: number; at: number };
}

export interface ServingBar extends Bar {
  node: string;
  role: 'source' | 'target';
  /** The source stands still (strategies that pause it). */
  paused: boolean;
}

export interface Tick {
  left: number;
  ms: number;
}

export interface Gantt {
  spanMs: number;
  phases: PhaseBar[];
  serving: ServingBar[];
  /** Where ownership changed hands; `null` if it did not (yet). */
  handover: number | null;
  ticks: Tick[];
}

/** Phases that are an end and take no time. */
const ENDS = new Set(['completed', 'rolled-back', 'failed', 'diverged', 'cancelled']);
/** In these phases of a pausing strategy the source answers nothing. */
const STANDS_STILL: Record<string, ReadonlySet<string>> = {
  precopy: new Set(['pause', 'handover']),
  ms2m: new Set(['pause', 'handover', 'verify']),
  'stop-and-copy': new Set(['checkpoint', 'transfer', 'restore', 'pause', 'verify', 'handover']),
};
/** Room to the right of the end, so that the new owner is seen. */
const AFTER = 0.14;

export function layOut(migration: Migration, nowMs: number): Gantt {
  const began = migration.accepted_ms;
  const endMs = migration.ended_ms ?? Math.max(nowMs, began + 1);
  const spanMs = Math.max(1, endMs - began) * (migration.ended_ms == null ? 1 : 1 + AFTER);
  const at = (ms: number) => clamp(((ms - began) / spanMs) * 100);
  const between = (from: number, to: number): Bar => ({ left: at(from), width: Math.max(0, at(to) - at(from)) });

  const expected = new Map((migration.plan?.phases ?? []).map((phase) => [phase.name, phase.expected_ms]));
  const entered = migration.phases.filter((phase) => !ENDS.has(phase.name));
  const phases = entered.map((phase): PhaseBar => {
    const running = phase.ms == null && migration.ended_ms == null;
    const expectedMs = expected.get(phase.name) ?? null;
    const bar = between(phase.began_ms, phase.ms == null ? endMs : phase.began_ms + phase.ms);
    const planned = expectedMs == null ? null : between(phase.began_ms, phase.began_ms + expectedMs);
    return {
      ...bar,
      key: `${phase.name}-${phase.attempt}-${phase.began_ms}`,
      name: phase.name,
      attempt: phase.attempt,
      ms: phase.ms ?? (running ? Math.max(0, nowMs - phase.began_ms) : null),
      running,
      expectedMs,
      expected: planned,
      words: roomFor(bar.left, Math.max(bar.left + bar.width, planned == null ? 0 : planned.left + planned.width)),
    };
  });

  const handoverMs = handoverAt(migration);
  return {
    spanMs,
    phases,
    serving: serving(migration, handoverMs, began, endMs, between),
    handover: handoverMs == null ? null : at(handoverMs),
    ticks: ticks(spanMs),
  };
}

/** When the target's fence counted: the end of the handover of a move that completed. */
export function handoverAt(migration: Migration): number | null {
  if (migration.outcome !== 'completed' || migration.operation === 'retire') return null;
  const last = migration.phases.findLast((phase) => phase.name === 'handover');
  if (last && last.ms != null) return last.began_ms + last.ms;
  return migration.ended_ms ?? null;
}

function roomFor(left: number, right: number): PhaseBar['words'] {
  return 100 - right >= left ? { side: 'right', room: 100 - right, at: right } : { side: 'left', room: left, at: 100 - left };
}

function serving(
  migration: Migration,
  handoverMs: number | null,
  began: number,
  endMs: number,
  between: (from: number, to: number) => Bar,
): ServingBar[] {
  const still = STANDS_STILL[migration.strategy];
  const until = handoverMs ?? endMs;
  const bars: ServingBar[] = [];
  let from = began;
  const source = (start: number, end: number, paused: boolean) => {
    if (end > start) bars.push({ ...between(start, end), node: migration.from, role: 'source', paused });
  };
  for (const phase of migration.phases) {
    if (!still?.has(phase.name)) continue;
    const end = Math.min(until, phase.ms == null ? endMs : phase.began_ms + phase.ms);
    source(from, Math.min(phase.began_ms, until), false);
    source(Math.max(from, phase.began_ms), end, true);
    from = Math.max(from, end);
  }
  source(from, until, false);
  if (handoverMs != null) {
    const full = between(handoverMs, handoverMs);
    bars.push({ left: full.left, width: 100 - full.left, node: migration.to, role: 'target', paused: false });
  }
  return bars;
}

/** Four to eight round steps along the axis. */
export function ticks(spanMs: number): Tick[] {
  const rough = spanMs / 6;
  const power = 10 ** Math.floor(Math.log10(rough));
  const step = [1, 2, 5, 10].map((factor) => factor * power).find((candidate) => candidate >= rough) ?? power;
  const result: Tick[] = [];
  for (let index = 0; index * step <= spanMs; index += 1) result.push({ left: ((index * step) / spanMs) * 100, ms: index * step });
  return result;
}

function clamp(percent: number): number {
  return Math.min(100, Math.max(0, percent));
}
