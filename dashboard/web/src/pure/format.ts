// Numbers, times and sizes as people read them. Pure: the same input gives the same text everywhere.

const GROUPED = new Intl.NumberFormat('en-GB', { maximumFractionDigits: 0 });
/** Stands where something is not known. */
export const UNKNOWN = '–';

type Maybe = number | null | undefined;

/** `1,234`. */
export function count(value: Maybe): string {
  return value == null ? UNKNOWN : GROUPED.format(value);
}

/** `950/s`; below 10 with one digit behind the point. */
export function rate(value: Maybe): string {
  if (value == null) return UNKNOWN;
  return value > 0 && value < 9.95 ? `${value.toFixed(1)}/s` : `${GROUPED.format(value)}/s`;
}

/** A duration: `4.2 ms`, `183 ms`, `4.2 s`, `3 min 05 s`, `2 h 10 min`, `3 d 4 h`. */
export function duration(ms: Maybe): string {
  if (ms == null) return UNKNOWN;
  if (ms < 10) return `${trim(ms)} ms`;
  if (ms < 999.5) return `${Math.round(ms)} ms`;
  if (ms < 59_950) return `${trim(ms / 1000)} s`;
  const seconds = Math.round(ms / 1000);
  if (seconds < 3600) return `${Math.floor(seconds / 60)} min ${two(seconds % 60)} s`;
  const minutes = Math.floor(seconds / 60);
  if (minutes < 48 * 60) return `${Math.floor(minutes / 60)} h ${two(minutes % 60)} min`;
  return `${Math.floor(minutes / 1440)} d ${Math.floor((minutes % 1440) / 60)} h`;
}

/** How long ago, coarse: one number that does not flicker. */
export function age(ms: Maybe): string {
  if (ms == null) return UNKNOWN;
  const seconds = Math.max(0, Math.floor(ms / 1000));
  if (seconds < 60) return `${seconds} s`;
  if (seconds < 3600) return `${Math.floor(seconds / 60)} min`;
  if (seconds < 48 * 3600) return `${Math.floor(seconds / 3600)} h`;
  return `${Math.floor(seconds / 86_400)} d`;
}

/** `512 B`, `1.5 kB`, `64 MB`: decimal, as disks and networks count. */
export function bytes(value: Maybe): string {
  if (value == null) return UNKNOWN;
  const units = ['B', 'kB', 'MB', 'GB', 'TB'];
  let rest = value;
  let unit = 0;
  while (rest >= 999.5 && unit < units.length - 1) {
    rest /= 1000;
    unit += 1;
  }
  return `${unit === 0 || rest >= 99.95 ? Math.round(rest) : trim(rest)} ${units[unit]}`;
}

/** `14 %`. */
export function percent(value: Maybe): string {
  return value == null ? UNKNOWN : `${Math.round(value)} %`;
}

/** `02:11:05`, with milliseconds if asked; the browser's time zone. */
export function clock(atMs: Maybe, withMs = false): string {
  if (atMs == null) return UNKNOWN;
  const date = new Date(atMs);
  const time = `${two(date.getHours())}:${two(date.getMinutes())}:${two(date.getSeconds())}`;
  return withMs ? `${time}.${String(date.getMilliseconds()).padStart(3, '0')}` : time;
}

/** `23 Nov 02:11:05`. */
export function moment(atMs: Maybe): string {
  if (atMs == null) return UNKNOWN;
  const date = new Date(atMs);
  const months = ['Jan', 'Feb', 'Mar', 'Apr', 'May', 'Jun', 'Jul', 'Aug', 'Sep', 'Oct', 'Nov', 'Dec'];
  return `${date.getDate()} ${months[date.getMonth()]} ${clock(atMs)}`;
}

/** The head of a hash. */
export function short(hash: string, length = 12): string {
  return hash.length > length ? `${hash.slice(0, length)}…` : hash;
}

function trim(value: number): string {
  return value.toFixed(1).replace(/\.0$/, '');
}

function two(value: number): string {
  return String(value).padStart(2, '0');
}
