// What the page knows of the system, kept fresh by one stream of events. Everything that came since the last animation frame is
// taken in at once, so that a burst costs one drawing.

import { Problem, get, setToken, token, whenUnauthorized } from '../api/client';
import { follow } from '../api/follow';
import type { Message } from '../api/sse';
import type { Event, Migration, Node, Service, Status, Version } from '../api/types';
import { isOvertaken } from '../pure/overtaken';
import { Collection } from './collection.svelte';

/** How often ages are drawn again. */
const TICK_MS = 1_000;
/** The wait after a stream that opened but brought nothing else. */
const AGAIN_MS = 2_000;
/** After this silence the data counts as stale, or later if the migrator says so: heartbeats come every 5 s, and one may be late. */
const STALE_AFTER_MS = 12_000;
/** A tab that is hidden for so long gives its connection up: browsers have six for one address, and each tab holds one. */
const HIDDEN_MS = 30_000;
/** Events that are kept for the migration pages; the older ones are asked for. */
const EVENTS_MAX = 2_000;

const text = new Intl.Collator('en', { numeric: true });
const serviceKey = (service: { service: string; shard: string }) => `${service.service}/${service.shard}`;

class Live {
  readonly services = new Collection<Service>(serviceKey, (a, b) => text.compare(serviceKey(a), serviceKey(b)));
  readonly nodes = new Collection<Node>((node) => node.name, (a, b) => text.compare(a.name, b.name));
  readonly migrations = new Collection<Migration>((migration) => migration.id, (a, b) => b.accepted_ms - a.accepted_ms || text.compare(b.id, a.id), isOvertaken);
  /** The latest events, oldest first. */
  events: Event[] = $state.raw([]);
  status: Status | null = $state.raw(null);
  version: Version | null = $state.raw(null);
  connection: 'connecting' | 'live' | 'lost' = $state('connecting');
  /** Whether everything was fetched once. */
  loaded = $state(false);
  /** Why the last attempt to connect failed. */
  trouble: unknown = $state.raw(null);
  /** When the migrator was last heard (this browser's clock). */
  heardAt = $state.raw(0);
  now = $state.raw(Date.now());
  needsToken = $state(false);
  /** Whether a token that was given has been refused. */
  tokenRefused = $state(false);
  /** Raised when everything must be asked for again: by another token, or a connection that came back. */
  round = $state(0);

  readonly staleAfterMs = $derived(Math.max(STALE_AFTER_MS, this.status?.stale_after_ms ?? 0));
  readonly stale = $derived(this.loaded && (this.connection === 'lost' || this.now - this.heardAt > this.staleAfterMs));
  readonly mayChange = $derived(this.status?.role !== 'viewer');

  #stop: () => void = () => undefined;
  /** Which connection it is: what an earlier one still wanted is dropped. */
  #connectionNumber = 0;
  /** Of the last event, to go on behind it after a break. */
  #lastId = '';
  #giveUp: ReturnType<typeof setTimeout> | undefined;
  /** The connection was given up because nobody looks. */
  #resting = false;
  #waiting: Message[] = [];
  #frame = 0;
  /** The server's clock minus ours. */
  #ahead = 0;

  start(): void {
    whenUnauthorized(() => this.#askForToken());
    setInterval(() => (this.now = Date.now()), TICK_MS);
    this.#connect();
    document.addEventListener('visibilitychange', () => this.#seen(!document.hidden));
  }

  #seen(visible: boolean): void {
    clearTimeout(this.#giveUp);
    if (!visible) {
      this.#giveUp = setTimeout(() => {
        this.#connectionNumber += 1;
        this.#stop();
        this.#resting = true;
      }, HIDDEN_MS);
    } else if (this.#resting) {
      this.#resting = false;
      this.#connect();
    }
  }

  /** The server's wall clock, as far as it is known. */
  serverNow(): number {
    return this.now + this.#ahead;
  }

  useToken(value: string): void {
    setToken(value);
    this.needsToken = false;
    this.#connect();
  }

  /** At once, instead of after the wait. */
  retry(): void {
    this.#connect();
  }

  #askForToken(): void {
    this.tokenRefused = token() != null;
    this.needsToken = true;
  }

  #connect(): void {
    this.#stop();
    this.#connectionNumber += 1;
    this.#stop = follow({
      url: '/v1/events',
      from: this.#lastId,
      opened: () => void this.#opened(),
      heard: () => this.#heard(),
      message: (message) => this.#take(message),
      lost: (error) => this.#lost(error),
    });
  }

  async #opened(): Promise<void> {
    this.#heard();
    const number = this.#connectionNumber;
    try {
      await this.#fetchAll();
      if (number !== this.#connectionNumber) return;
      this.connection = 'live';
      this.trouble = null;
      this.round += 1;
    } catch (error) {
      if (number !== this.#connectionNumber) return;
      this.#lost(error);
      // The stream may be well while this failed; both are needed, so both begin anew.
      setTimeout(() => {
        if (number === this.#connectionNumber && !this.needsToken) this.#connect();
      }, AGAIN_MS);
    }
  }

  async #fetchAll(): Promise<void> {
    const [status, services, nodes, running, latest] = await Promise.all([
      get<Status>('/v1/status'),
      get<{ items: Service[] }>('/v1/services'),
      get<{ items: Node[] }>('/v1/nodes'),
      get<{ items: Migration[] }>('/v1/migrations?running=true&page_size=200'),
      get<{ items: Migration[] }>('/v1/migrations?page_size=50'),
    ]);
    this.status = status;
    this.#ahead = status.time_ms - Date.now();
    this.services.replace(services.items);
    this.nodes.replace(nodes.items);
    this.migrations.put([...latest.items, ...running.items]);
    this.#endUnheard(running.items);
    this.loaded = true;
    this.version ??= await get<Version>('/version').catch(() => null);
  }

  /** Migrations that ended while nobody listened are asked for one by one. */
  #endUnheard(running: readonly Migration[]): void {
    const runs = new Set(running.map((migration) => migration.id));
    for (const { value } of this.migrations.cells) {
      if (value.outcome == null && !runs.has(value.id)) void this.fetchMigration(value.id).catch(() => undefined);
    }
  }

  async fetchMigration(id: string): Promise<Migration> {
    const migration = await get<Migration>(`/v1/migrations/${encodeURIComponent(id)}`);
    this.migrations.put([migration]);
    return migration;
  }

  #heard(): void {
    this.heardAt = Date.now();
  }

  #lost(error: unknown): void {
    if (error instanceof Problem && error.status === 401) this.#askForToken();
    this.connection = 'lost';
    this.trouble = error;
  }

  #take(message: Message): void {
    this.#lastId = message.id;
    if (message.event === 'heartbeat') return;
    this.#waiting.push(message);
    // A hidden tab draws no frames; what waits is then taken in when it is shown again, or when it becomes much.
    if (this.#waiting.length > EVENTS_MAX) this.#apply();
    else if (this.#frame === 0) this.#frame = requestAnimationFrame(() => this.#apply());
  }

  #apply(): void {
    cancelAnimationFrame(this.#frame);
    this.#frame = 0;
    const messages = this.#waiting;
    this.#waiting = [];
    const events: Event[] = [];
    const services: Service[] = [];
    const nodes: Node[] = [];
    const migrations: Migration[] = [];
    for (const message of messages) {
      if (message.event === 'reset') {
        void this.#opened();
        continue;
      }
      const event = parse(message);
      if (!event) continue;
      // Without data, what it told of is gone: the next fetch drops it.
      if (message.event === 'service' && event.data) services.push(event.data as Service);
      else if (message.event === 'node' && event.data) nodes.push(event.data as Node);
      else if (message.event === 'migration') {
        if (event.data) migrations.push(event.data as Migration);
        // What does not last (a sample of the lag) has no place of its own in the history.
        if (event.id != null) events.push({ ...event, data: null });
      }
    }
    this.services.put(services);
    this.nodes.put(nodes);
    this.migrations.put(migrations);
    if (events.length > 0) this.events = [...this.events, ...events].slice(-EVENTS_MAX);
  }
}

function parse(message: Message): Event | null {
  try {
    return JSON.parse(message.data) as Event;
  } catch {
    return null;
  }
}

export const live = new Live();
