// Points over time, made ready to be drawn: seconds since the migration was accepted, one common x for several lines.

/** x, then one array per line; `null` where a line has no point. */
export type Aligned = [number[], ...(number | null)[][]];

/** Takes column `column` of each of the `lines` (`[[t_ms, value, …]]`) over the union of their times. */
export function align(lines: readonly { points: readonly number[][]; column: number }[], beganMs: number): Aligned {
  const times = new Map<number, number>();
  for (const line of lines) for (const point of line.points) times.set(point[0] ?? 0, 0);
  const sorted = [...times.keys()].sort((a, b) => a - b);
  sorted.forEach((time, index) => times.set(time, index));
  const columns = lines.map((line) => {
    const values: (number | null)[] = new Array<number | null>(sorted.length).fill(null);
    for (const point of line.points) values[times.get(point[0] ?? 0) ?? 0] = point[line.column] ?? null;
    return values;
  });
  return [sorted.map((time) => (time - beganMs) / 1000), ...columns];
}

/** The last known value of a line. */
export function last(values: readonly (number | null)[] | undefined): number | null {
  return values?.findLast((value) => value != null) ?? null;
}

/** The largest value of a line. */
export function most(values: readonly (number | null)[] | undefined): number | null {
  let result: number | null = null;
  for (const value of values ?? []) if (value != null && (result == null || value > result)) result = value;
  return result;
}
