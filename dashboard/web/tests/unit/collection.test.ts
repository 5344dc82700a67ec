import { describe, expect, it } from 'vitest';

import { Collection } from '../../src/live/collection.svelte';

interface Thing {
  name: string;
  value: number;
}

const things = () => new Collection<Thing>((thing) => thing.name, (a, b) => a.name.localeCompare(b.name));

describe('a collection', () => {
  it('keeps its list and its rows when only values change', () => {
    const all = things();
    all.put([{ name: 'b', value: 1 }, { name: 'a', value: 1 }]);
    const [list, a] = [all.cells, all.find('a')];
    expect(list.map((cell) => cell.key)).toEqual(['a', 'b']);
    all.put([{ name: 'a', value: 2 }]);
    expect(all.cells).toBe(list);
    expect(all.find('a')).toBe(a);
    expect(a?.value.value).toBe(2);
  });

  it('leaves alone what was told again as it was', () => {
    const all = things();
    const first = { name: 'a', value: 1 };
    all.put([first]);
    all.put([{ name: 'a', value: 1 }]);
    expect(all.find('a')?.value).toBe(first);
  });

  it('drops what is no longer there', () => {
    const all = things();
    all.put([{ name: 'a', value: 1 }, { name: 'b', value: 1 }]);
    all.replace([{ name: 'b', value: 3 }, { name: 'c', value: 1 }]);
    expect(all.cells.map((cell) => `${cell.key}${cell.value.value}`)).toEqual(['b3', 'c1']);
    all.replace([]);
    expect(all.cells).toEqual([]);
    expect(all.find('b')).toBeUndefined();
  });
});
