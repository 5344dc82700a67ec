// Addresses of the page: all behind the hash, so that any path of the server works and links can be sent.

export type Route =
  | { page: 'overview' }
  | { page: 'migration'; id: string; event: string | null }
  | { page: 'history'; filter: Record<string, string> }
  | { page: 'recording' }
  | { page: 'service'; service: string; shard: string }
  | { page: 'log'; service: string | null; shard: string; from: number | null; dead: boolean }
  | { page: 'unknown'; path: string };

export function parseRoute(hash: string): Route {
  const [path = '', query = ''] = hash.replace(/^#/, '').split('?', 2);
  const parts = path.split('/').filter((part) => part !== '').map(decode);
  const params = new URLSearchParams(query);
  const [head, first, second, third] = parts;
  if (head === undefined) return { page: 'overview' };
  if (head === 'migrations' && first) return { page: 'migration', id: first, event: second === 'events' && third ? third : null };
  if (head === 'history' || head === 'migrations') return { page: 'history', filter: Object.fromEntries(params) };
  if (head === 'recording') return { page: 'recording' };
  if (head === 'services' && first) return { page: 'service', service: first, shard: second ?? '0' };
  if (head === 'log') {
    const from = params.get('from');
    const position = from == null || !/^\d+$/.test(from) ? null : Number(from);
    return { page: 'log', service: first ?? null, shard: second ?? '0', from: position, dead: params.get('dead') === '1' };
  }
  return { page: 'unknown', path };
}

export const href = {
  overview: '#/',
  history: '#/history',
  recording: '#/recording',
  historyOf: (filter: Record<string, string>) => {
    const set = Object.entries(filter).filter(([, value]) => value !== '');
    return set.length === 0 ? '#/history' : `#/history?${new URLSearchParams(set)}`;
  },
  migration: (id: string) => `#/migrations/${encodeURIComponent(id)}`,
  event: (id: string, event: string) => `#/migrations/${encodeURIComponent(id)}/events/${encodeURIComponent(event)}`,
  service: (of: { service: string; shard: string }) => `#/services/${encodeURIComponent(of.service)}/${encodeURIComponent(of.shard)}`,
  log: (of: { service: string; shard: string }, from?: number | null, dead = false) => {
    const query = [from == null ? '' : `from=${from}`, dead ? 'dead=1' : ''].filter((part) => part !== '').join('&');
    return `#/log/${encodeURIComponent(of.service)}/${encodeURIComponent(of.shard)}${query && `?${query}`}`;
  },
};

function decode(part: string): string {
  try {
    return decodeURIComponent(part);
  } catch {
    return part;
  }
}
