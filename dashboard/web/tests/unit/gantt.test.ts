import { describe, expect, it } from 'vitest';

import type { Migration } from '../../src/api/types';
import { handoverAt, layOut, ticks } from '../../src/pure/gantt';
import { migration, service } from '../mock/data';

const T = 1_000_000;

function of(more: Partial<Migration>): Migration {
  return migration(1, service('board', 'edge-a', ['edge-b']), 'edge-b', { accepted_ms: T, ...more });
}

const phase = (name: Migration['phase'], from: number, ms: number | null, attempt = 1) => ({ name, attempt, began_ms: T + from, ms });

describe('the layout', () => {
  const done = of({
    outcome: 'completed', phase: 'completed', ended_ms: T + 100,
    phases: [phase('prepare', 0, 10), phase('replay', 10, 60), phase('handover', 70, 20), phase('completed', 100, 0)],
  });

  it('leaves the source serving until the handover, then the target, without a hole', () => {
    const { serving, handover } = layOut(done, 0);
    expect(serving.map((bar) => [bar.node, bar.role, bar.paused])).toEqual([['edge-a', 'source', false], ['edge-b', 'target', false]]);
    expect(serving[0]?.left).toBe(0);
    expect((serving[0]?.left ?? 0) + (serving[0]?.width ?? 0)).toBeCloseTo(handover ?? 0);
    expect(serving[1]?.left).toBeCloseTo(handover ?? 0);
    expect((serving[1]?.left ?? 0) + (serving[1]?.width ?? 0)).toBeCloseTo(100);
  });

  it('puts each phase where it was, in proportion, and leaves ends out', () => {
    const { phases, spanMs } = layOut(done, 0);
    expect(phases.map((bar) => bar.name)).toEqual(['prepare', 'replay', 'handover']);
    expect(phases[1]?.left).toBeCloseTo((10 / spanMs) * 100);
    expect(phases[1]?.width).toBeCloseTo((60 / spanMs) * 100);
  });

  it('lets a running phase grow with the clock', () => {
    const running = of({ phases: [phase('prepare', 0, 10), phase('checkpoint', 10, null)] });
    const { phases, handover, serving } = layOut(running, T + 50);
    expect(phases[1]).toMatchObject({ running: true, ms: 40 });
    expect((phases[1]?.left ?? 0) + (phases[1]?.width ?? 0)).toBeCloseTo(100);
    expect(handover).toBeNull();
    expect(serving).toEqual([{ left: 0, width: 100, node: 'edge-a', role: 'source', paused: false }]);
  });

  it('shows where the source of a pausing strategy stands still', () => {
    const paused = of({ ...done, strategy: 'precopy', phases: [phase('prepare', 0, 10), phase('transfer', 10, 50), phase('pause', 60, 10), phase('handover', 70, 20)] });
    expect(layOut(paused, 0).serving.map((bar) => [bar.role, bar.paused])).toEqual([['source', false], ['source', true], ['source', true], ['target', false]]);
  });

  it('names a row by attempt, so that a second one has rows of its own', () => {
    const { phases } = layOut(of({ attempt: 2, phases: [phase('prepare', 0, 5), phase('prepare', 5, null, 2)] }), T + 9);
    expect(new Set(phases.map((bar) => bar.key)).size).toBe(2);
  });

  it('has no handover where ownership stayed', () => {
    expect(handoverAt(of({ outcome: 'cancelled', ended_ms: T + 9, phases: [phase('handover', 0, 5)] }))).toBeNull();
  });

  it('stands when the clock of the browser is behind', () => {
    const { phases, spanMs } = layOut(of({ phases: [phase('prepare', 0, null)] }), T - 5_000);
    expect(spanMs).toBeGreaterThan(0);
    expect(phases[0]?.ms).toBe(0);
  });
});

describe('the ticks', () => {
  it.each([1, 7, 124, 183, 999, 60_000, 3_600_000])('are few and round over %d ms', (span) => {
    const all = ticks(span);
    expect(all.length).toBeGreaterThanOrEqual(3);
    expect(all.length).toBeLessThanOrEqual(8);
    expect(all.at(-1)?.left).toBeLessThanOrEqual(100);
  });
});
