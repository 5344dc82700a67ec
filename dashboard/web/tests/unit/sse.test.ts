import { describe, expect, it } from 'vitest';

import { SseParser } from '../../src/api/sse';

const STREAM = 'retry: 1500\n: a comment\nid: 7\nevent: migration\ndata: {"a":1,\ndata: "b":2}\n\nevent: heartbeat\ndata: {}\n\ndata: last\n\n';

describe('the parser', () => {
  it('gives event, id and the lines of data joined', () => {
    const messages = new SseParser().push(STREAM);
    expect(messages).toEqual([
      { id: '7', event: 'migration', data: '{"a":1,\n"b":2}' },
      { id: '7', event: 'heartbeat', data: '{}' },
      { id: '7', event: 'message', data: 'last' },
    ]);
  });

  it('gives the same wherever the stream is cut', () => {
    const whole = new SseParser().push(STREAM);
    for (let cut = 0; cut <= STREAM.length; cut += 1) {
      const parser = new SseParser();
      expect([...parser.push(STREAM.slice(0, cut)), ...parser.push(STREAM.slice(cut))]).toEqual(whole);
    }
  });

  it.each([['\r\n'], ['\r'], ['\n']])('takes %j as the end of a line, cut anywhere', (end) => {
    const stream = `${STREAM.replaceAll('\n', end)}:${end}`;
    for (let cut = 0; cut <= stream.length; cut += 1) {
      const parser = new SseParser();
      expect([...parser.push(stream.slice(0, cut)), ...parser.push(stream.slice(cut))]).toHaveLength(3);
    }
  });

  it('keeps what is not whole, and dispatches nothing without data', () => {
    const parser = new SseParser();
    expect(parser.push('id: 9\n\nid: 10\ndata: half')).toEqual([]);
    expect(parser.lastEventId).toBe('9');
    expect(parser.push('\n\n')).toEqual([{ id: '10', event: 'message', data: 'half' }]);
  });

  it('drops a byte order mark, an id with NUL, and a wait that is no number', () => {
    const parser = new SseParser('3');
    expect(parser.push('\uFEFFdata: a\nid: x\0\nretry: soon\n\n')).toEqual([{ id: '3', event: 'message', data: 'a' }]);
    expect(parser.retryMs).toBeNull();
  });
});
