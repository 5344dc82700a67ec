import { beforeEach, describe, expect, it, vi } from 'vitest';

import { Problem } from '../../src/api/client';
import { follow } from '../../src/api/follow';

/** A stream that gives these parts and then ends, or stays open. */
function body(parts: string[], open = false): (signal?: AbortSignal | null) => Response {
  return (signal) => response(parts, open, signal);
}

function response(parts: string[], open: boolean, signal?: AbortSignal | null): Response {
  const bytes = new TextEncoder();
  const stream = new ReadableStream<Uint8Array>({
    start(controller) {
      for (const part of parts) controller.enqueue(bytes.encode(part));
      if (!open) controller.close();
      else signal?.addEventListener('abort', () => controller.error(signal.reason));
    },
  });
  return new Response(stream, { headers: { 'content-type': 'text/event-stream' } });
}

/** Answers one connection after the other; notes what each asked with. */
function server(answers: ((signal?: AbortSignal | null) => Response)[]) {
  const asked: Headers[] = [];
  const fetch = ((_url: string, init: RequestInit) => {
    asked.push(init.headers as Headers);
    const answer = answers[Math.min(asked.length, answers.length) - 1];
    return answer ? Promise.resolve(answer(init.signal)) : Promise.reject(new TypeError('refused'));
  }) as unknown as typeof globalThis.fetch;
  return { asked, fetch };
}

const nothing = () => undefined;

beforeEach(() => {
  const kept = new Map<string, string>();
  vi.stubGlobal('sessionStorage', { getItem: (key: string) => kept.get(key) ?? null, setItem: (key: string, value: string) => kept.set(key, value), removeItem: (key: string) => kept.delete(key) });
});

describe('a stream that is followed', () => {
  it('goes on behind the last id after a break, and asks with the token', async () => {
    sessionStorage.setItem('segue-token', 'secret');
    const { asked, fetch } = server([body(['id: 4\ndata: a\n\nid: 5\ndata: b\n\nid: 6\ndata: cut']), body(['id: 7\ndata: d\n\n'], true)]);
    const heard: string[] = [];
    const stop = follow({ url: '/v1/events', fetch, firstWaitMs: 1, opened: nothing, heard: nothing, lost: nothing, message: (message) => heard.push(message.data) });
    await vi.waitFor(() => expect(heard).toEqual(['a', 'b', 'd']));
    stop();
    expect(asked[0]?.get('last-event-id')).toBeNull();
    expect(asked[1]?.get('last-event-id')).toBe('5');
    expect(asked[1]?.get('authorization')).toBe('Bearer secret');
  });

  it('connects again when nothing is heard for too long', async () => {
    const { asked, fetch } = server([body([': silent for ever\n'], true), body(['data: back\n\n'], true)]);
    const heard: string[] = [];
    const stop = follow({ url: '/v1/events', fetch, firstWaitMs: 1, idleMs: 20, opened: nothing, heard: nothing, lost: nothing, message: (message) => heard.push(message.data) });
    await vi.waitFor(() => expect(heard).toContain('back'));
    stop();
    expect(asked.length).toBeGreaterThan(1);
  });

  it('tells of a refusal in its own words, and stops at one for want of a token', async () => {
    const refusal = (status: number) => () => new Response(JSON.stringify({ title: `no ${status}`, code: 'x', hint: 'do this' }), { status });
    const { asked, fetch } = server([refusal(503), refusal(401), body([], true)]);
    const lost: unknown[] = [];
    const stop = follow({ url: '/v1/events', fetch, firstWaitMs: 1, opened: nothing, heard: nothing, lost: (error) => lost.push(error), message: nothing });
    await vi.waitFor(() => expect(lost).toHaveLength(2));
    await new Promise((resolve) => setTimeout(resolve, 20));
    stop();
    expect(asked).toHaveLength(2);
    expect(lost.map((error) => (error as Problem).status)).toEqual([503, 401]);
    expect((lost[0] as Problem).hint).toBe('do this');
  });
});
