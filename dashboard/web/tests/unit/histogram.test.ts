import { describe, expect, it } from 'vitest';

import { bins, percentile } from '../../src/pure/histogram';

describe('percentiles', () => {
  it('are by the nearest rank', () => {
    const values = Array.from({ length: 100 }, (_, index) => 100 - index);
    expect([50, 95, 99, 100].map((p) => percentile(values, p))).toEqual([50, 95, 99, 100]);
    expect(percentile([7], 99)).toBe(7);
    expect(percentile([], 50)).toBeNull();
  });

  it('leave their input as it was', () => {
    const values = [3, 1, 2];
    percentile(values, 50);
    expect(values).toEqual([3, 1, 2]);
  });
});

describe('the histogram', () => {
  it('counts each value once, on the right side of an edge', () => {
    const result = bins([0.4, 1, 2, 4.9, 5, 17]);
    expect(result).toEqual([
      { from: 0, to: 2, count: 2 },
      { from: 2, to: 5, count: 2 },
      { from: 5, to: 10, count: 1 },
      { from: 10, to: 20, count: 1 },
    ]);
  });

  it.each([[[0]], [[1000]], [[999.9, 12_000]], [[50, 50, 50]]])('encloses %j', (values) => {
    expect(bins(values).reduce((sum, bin) => sum + bin.count, 0)).toBe(values.length);
  });

  it('is empty of nothing', () => {
    expect(bins([])).toEqual([]);
  });
});
