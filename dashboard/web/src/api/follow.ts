// Follows a stream of server-sent events for as long as it is wanted: connects, reads, and connects again from where it was.

import { Problem, headers, refusal } from './client';
import { SseParser, type Message } from './sse';

/** Heartbeats come every 5 s; silence for three of them is a dead connection that nobody closed. */
const IDLE_MS = 15_000;
const FIRST_WAIT_MS = 500;
const LONGEST_WAIT_MS = 5_000;

export interface Following {
  url: string;
  /** The id to go on behind; empty: from now on. */
  from?: string;
  /** Connected; everything that is not resumed by id must be fetched now. */
  opened: () => void;
  message: (message: Message) => void;
  /** Bytes came, heartbeats included. */
  heard: () => void;
  /** The connection is gone or was refused; it is tried again unless the refusal was a 401. */
  lost: (error: unknown) => void;
  /** For tests. */
  fetch?: typeof fetch;
  idleMs?: number;
  firstWaitMs?: number;
}

/** Begins; the function that it gives ends it. */
export function follow(following: Following): () => void {
  const stop = new AbortController();
  void run(following, stop.signal);
  return () => stop.abort();
}

async function run(following: Following, stop: AbortSignal): Promise<void> {
  const firstWait = following.firstWaitMs ?? FIRST_WAIT_MS;
  let parser = new SseParser(following.from);
  let wait = firstWait;
  while (!stop.aborted) {
    try {
      await connection(following, parser, stop, () => (wait = parser.retryMs ?? firstWait));
      following.lost(null);
    } catch (error) {
      if (stop.aborted) return;
      following.lost(error);
      if (error instanceof Problem && error.status === 401) return;
    }
    await pause(wait * (0.75 + Math.random() / 2), stop);
    wait = Math.min(LONGEST_WAIT_MS, wait * 2);
    // What was cut in the middle is forgotten; the id of the last whole message is not.
    parser = new SseParser(parser.lastEventId);
  }
}

async function connection(following: Following, parser: SseParser, stop: AbortSignal, connected: () => void): Promise<void> {
  const silence = new AbortController();
  const idleMs = following.idleMs ?? IDLE_MS;
  let timer = setTimeout(() => silence.abort(), idleMs);
  try {
    const head = headers({ accept: 'text/event-stream' });
    if (parser.lastEventId !== '') head.set('last-event-id', parser.lastEventId);
    const ask = following.fetch ?? fetch;
    const response = await ask(following.url, { headers: head, cache: 'no-store', signal: AbortSignal.any([stop, silence.signal]) });
    if (!response.ok || !response.body) throw await refusal(following.url, response);
    connected();
    following.opened();
    const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
    for (;;) {
      const { value, done } = await reader.read();
      if (done) return;
      clearTimeout(timer);
      timer = setTimeout(() => silence.abort(), idleMs);
      following.heard();
      for (const message of parser.push(value)) following.message(message);
    }
  } finally {
    clearTimeout(timer);
    silence.abort();
  }
}

function pause(ms: number, stop: AbortSignal): Promise<void> {
  return new Promise((resolve) => {
    const timer = setTimeout(resolve, ms);
    stop.addEventListener('abort', () => {
      clearTimeout(timer);
      resolve();
    }, { once: true });
  });
}
