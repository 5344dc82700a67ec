// Percentiles and a histogram with logarithmic edges: blackouts range from under one to thousands of milliseconds.

export interface Bin {
  from: number;
  to: number;
  count: number;
}

/** The nearest-rank percentile (0 < p ≤ 100); `null` of nothing. */
export function percentile(values: readonly number[], p: number): number | null {
  if (values.length === 0) return null;
  const sorted = [...values].sort((a, b) => a - b);
  const rank = Math.ceil((p / 100) * sorted.length);
  return sorted[Math.min(sorted.length, Math.max(1, rank)) - 1] ?? null;
}

/** Edges 1, 2, 5, 10, 20, 50, … that enclose all values; everything below 1 falls into the first bin. */
export function bins(values: readonly number[]): Bin[] {
  if (values.length === 0) return [];
  const low = Math.max(1, Math.min(...values));
  const high = Math.max(1, Math.max(...values));
  const edges: number[] = [];
  for (let decade = 0; ; decade += 1) {
    for (const step of [1, 2, 5]) edges.push(step * 10 ** decade);
    if ((edges.at(-1) ?? 0) > high) break;
  }
  const first = Math.max(0, edges.findLastIndex((edge) => edge <= low));
  const last = edges.findIndex((edge) => edge > high);
  const result: Bin[] = [];
  for (let index = first; index < last; index += 1) {
    result.push({ from: index === 0 ? 0 : (edges[index] ?? 0), to: edges[index + 1] ?? Infinity, count: 0 });
  }
  for (const value of values) {
    const bin = result.find((candidate) => value < candidate.to);
    if (bin) bin.count += 1;
  }
  return result;
}
