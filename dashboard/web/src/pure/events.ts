// Events of one migration from two sources (asked for, and heard live), in order and each once.

import type { Event } from '../api/types';

export function merge(earlier: readonly Event[], heard: readonly Event[]): Event[] {
  const known = new Map<string, Event>();
  for (const event of [...earlier, ...heard]) known.set(nameOf(event), event);
  return [...known.values()].sort((a, b) => a.at_ms - b.at_ms || order(a.id, b.id));
}

function nameOf(event: Event): string {
  return event.id ?? `${event.at_ms} ${event.kind} ${event.title}`;
}

function order(a: string | null, b: string | null): number {
  return Number(a ?? Number.MAX_SAFE_INTEGER) - Number(b ?? Number.MAX_SAFE_INTEGER);
}
