// Events of one migration from two sources (asked for, and heard live), in order and each once.

import type { Event } from '../api/types';

export function merge(earlier: readonly Event[], heard: readonly Event[]): Event[] {
  const known = new Map<string, Event>();
  for (const event of [...earlier, ...heard]) known.set(nameOf(event), event);
  return [...known.values()].sort((a, b) => a.at_ms - b.at_ms || order(a.id, b.id));
}

export function nameOf(event: Event): string {
  return `${event.id ?? event.at_ms} ${event.title}`;
}

function order(a: number | null | undefined, b: number | null | undefined): number {
  return (a ?? Number.MAX_SAFE_INTEGER) - (b ?? Number.MAX_SAFE_INTEGER);
}
