import { describe, expect, it } from 'vitest';

import { isOvertaken } from '../../src/pure/overtaken';
import { actionCommands, moveCommands, quote } from '../../src/pure/commands';
import { merge } from '../../src/pure/events';
import * as format from '../../src/pure/format';
import { readRecording } from '../../src/pure/recording';
import { href, parseRoute } from '../../src/pure/route';
import { align, last, most } from '../../src/pure/series';
import { cancelConsequences, serviceProof } from '../../src/pure/words';
import { migration, service } from '../mock/data';

describe('numbers', () => {
  it.each([[0, '0 ms'], [4.25, '4.3 ms'], [183.4, '183 ms'], [999.7, '1 s'], [4_200, '4.2 s'], [59_960, '1 min 00 s'], [185_000, '3 min 05 s'], [7_800_000, '2 h 10 min'], [273_600_000, '3 d 4 h']])('%d ms are %s', (ms, text) => {
    expect(format.duration(ms)).toBe(text);
  });
  it('are short, grouped, and a dash where not known', () => {
    expect([format.bytes(512), format.bytes(1_480_000), format.bytes(999_999_999)]).toEqual(['512 B', '1.5 MB', '1 GB']);
    expect([format.rate(950), format.rate(4.21), format.rate(0)]).toEqual(['950/s', '4.2/s', '0/s']);
    expect([format.age(11_900), format.age(90_000), format.age(-5)]).toEqual(['11 s', '1 min', '0 s']);
    expect([format.count(18_204), format.percent(11.6), format.short('0123456789abcdef', 4)]).toEqual(['18,204', '12 %', '0123…']);
    expect([format.count, format.rate, format.duration, format.bytes, format.percent, format.age, format.clock, format.moment].map((of) => of(null))).toEqual(Array(8).fill('–'));
  });
});

describe('addresses', () => {
  it('lead to where they were made', () => {
    expect(parseRoute(href.event('01K', '12'))).toEqual({ page: 'migration', id: '01K', event: '12' });
    expect(parseRoute(href.log({ service: 'a b/c', shard: '2' }, 90))).toEqual({ page: 'log', service: 'a b/c', shard: '2', from: 90, dead: false });
    expect(parseRoute(href.log({ service: 'x', shard: '0' }, null, true))).toMatchObject({ from: null, dead: true });
    expect(parseRoute(href.historyOf({ service: 'x y', node: '', outcome: 'failed' }))).toEqual({ page: 'history', filter: { service: 'x y', outcome: 'failed' } });
    expect(parseRoute(href.service({ service: 's', shard: '1' }))).toEqual({ page: 'service', service: 's', shard: '1' });
  });
  it('that nobody made lead nowhere, and never fail', () => {
    expect(parseRoute('')).toEqual({ page: 'overview' });
    expect(parseRoute('#/nowhere')).toMatchObject({ page: 'unknown' });
    expect(parseRoute('#/log/%E0%A4%A/0?from=-1')).toMatchObject({ page: 'log', from: null });
  });
});

describe('a telling that was overtaken', () => {
  const told = (outcome: null | 'completed', attempt: number, phases: number) => ({ outcome, attempt, phases: Array.from({ length: phases }) as never[] });
  it('is one of a migration that has ended since, or has come further', () => {
    expect(isOvertaken(told(null, 1, 3), told('completed', 1, 7))).toBe(true);
    expect(isOvertaken(told(null, 1, 3), told(null, 1, 4))).toBe(true);
    expect(isOvertaken(told(null, 1, 7), told(null, 2, 1))).toBe(true);
  });
  it('is none that tells as much or more', () => {
    expect(isOvertaken(told('completed', 1, 7), told(null, 1, 6))).toBe(false);
    expect(isOvertaken(told('completed', 1, 7), told('completed', 1, 7))).toBe(false);
    expect(isOvertaken(told(null, 2, 1), told(null, 1, 7))).toBe(false);
  });
});

describe('commands to copy', () => {
  it('say all of an order, quoted, and only the name of the token', () => {
    const copies = moveCommands({ service: 'board', to: 'edge-b', strategy: 'precopy', reason: "it's time" }, 'http://h:1', true);
    expect(copies.cli).toBe(`segue migrate board --to edge-b --strategy precopy --reason 'it'\\''s time' --watch`);
    expect(copies.curl).toContain('-H "authorization: Bearer $SEGUE_TOKEN"');
    expect(copies.curl.endsWith('http://h:1/v1/migrations')).toBe(true);
    expect(actionCommands('undo', '01K', 'http://h:1', false)).toEqual({ cli: 'segue migration undo 01K', curl: 'curl -X POST http://h:1/v1/migrations/01K/undo' });
    expect(quote('$(rm)')).toBe("'$(rm)'");
  });
});

describe('events', () => {
  const event = (id: number | null, at: number, title = 'x') => ({ id, kind: 'migration' as const, at_ms: at, migration: 'm', service: null, node: null, title, detail: '', data: null });
  it('that were asked for and heard stand once, in order', () => {
    const merged = merge([event(9, 5), event(10, 5)], [event(10, 5), event(11, 4), event(null, 6), event(null, 6)]);
    expect(merged.map((one) => one.id)).toEqual([11, 9, 10, null]);
  });
});

describe('series', () => {
  it('of different times share one axis in seconds', () => {
    const aligned = align([{ points: [[1_000, 5], [2_000, 6]], column: 1 }, { points: [[1_500, 1, 2]], column: 2 }], 1_000);
    expect(aligned).toEqual([[0, 0.5, 1], [5, null, 6], [null, 2, null]]);
    expect([last(aligned[2]), most(aligned[1]), last([]), most(undefined)]).toEqual([2, 6, null, null]);
  });
});

describe('a recording', () => {
  it('is refused by name where it is none', () => {
    expect(() => readRecording('PNG')).toThrow(/not JSON/);
    expect(() => readRecording('{"format":"segue-recording/9"}')).toThrow(/segue-recording\/9.*this page reads/);
    expect(() => readRecording('{"format":"segue-recording/1"}')).toThrow(/no whole "migration"/);
    expect(() => readRecording('null')).toThrow(/its format is null/);
  });
  it('with little in it opens with the rest empty', () => {
    const read = readRecording(JSON.stringify({ format: 'segue-recording/1', migration: migration(1, service('b', 'x', ['y']), 'y'), series: { lag: [[1, 2]] } }));
    expect(read.series).toEqual({ lag: [[1, 2]], arrival: [], replay: [], latency: [] });
    expect(read.events).toEqual([]);
  });
});

describe('consequences', () => {
  it('of a cancel name who stays and which fence does it', () => {
    const text = cancelConsequences(migration(1, service('b', 'edge-a', ['edge-b']), 'edge-b')).join(' ');
    expect(text).toContain('edge-a stays the owner; it has not stopped serving');
    expect(text).toContain('epoch 4');
  });
});

describe('the proof of a service', () => {
  it('says what a move must show, and not that states were equal, before the first move', () => {
    const proof = serviceProof({ proof: 'state', last_proof: null });
    expect(proof.name).toBe('state');
    expect(proof.meaning).toContain('must show');
    expect(serviceProof({ proof: 'state', last_proof: 'state' }).meaning).toContain('were equal');
    expect(serviceProof({ proof: null, last_proof: null })).toEqual({ name: '–', meaning: '' });
  });
});
