// Server-sent events, read from a stream of our own: EventSource cannot send an Authorization header.
//
// Pure: text in, messages out, as in the HTML standard (section 9.2.6). Who connects, and again, is follow.ts.

export interface Message {
  /** The last id that was told, for `Last-Event-ID`; empty before the first. */
  id: string;
  event: string;
  data: string;
}

export class SseParser {
  #buffer = '';
  #started = false;
  /** Told in the part that is being read; counts from its blank line on, so that what was cut is told again. */
  #told = '';
  #id = '';
  #event = '';
  #data: string[] = [];
  /** What the server asks to wait before connecting again. */
  retryMs: number | null = null;

  constructor(lastEventId = '') {
    this.#told = this.#id = lastEventId;
  }

  get lastEventId(): string {
    return this.#id;
  }

  /** Takes the next part of the stream, cut anywhere, and gives the messages that are complete with it. */
  push(text: string): Message[] {
    this.#buffer += text;
    if (!this.#started && this.#buffer.length > 0) {
      this.#started = true;
      if (this.#buffer.startsWith('\uFEFF')) this.#buffer = this.#buffer.slice(1);
    }
    const messages: Message[] = [];
    let start = 0;
    for (;;) {
      const end = lineEnd(this.#buffer, start);
      if (end == null) break;
      const message = this.#line(this.#buffer.slice(start, end.at));
      if (message) messages.push(message);
      start = end.next;
    }
    this.#buffer = this.#buffer.slice(start);
    return messages;
  }

  #line(line: string): Message | null {
    if (line === '') return this.#dispatch();
    if (line.startsWith(':')) return null;
    const colon = line.indexOf(':');
    const field = colon < 0 ? line : line.slice(0, colon);
    const value = colon < 0 ? '' : line.slice(line[colon + 1] === ' ' ? colon + 2 : colon + 1);
    if (field === 'data') this.#data.push(value);
    else if (field === 'event') this.#event = value;
    else if (field === 'id' && !value.includes('\0')) this.#told = value;
    else if (field === 'retry' && /^\d+$/.test(value)) this.retryMs = Number(value);
    return null;
  }

  #dispatch(): Message | null {
    const data = this.#data;
    const event = this.#event || 'message';
    this.#data = [];
    this.#event = '';
    this.#id = this.#told;
    return data.length === 0 ? null : { id: this.#id, event, data: data.join('\n') };
  }
}

/** The next end of a line: LF, CRLF, or a CR that is not the last character so far (a LF may follow). */
function lineEnd(text: string, from: number): { at: number; next: number } | null {
  for (let index = from; index < text.length; index += 1) {
    if (text[index] === '\n') return { at: index, next: index + 1 };
    if (text[index] !== '\r') continue;
    if (index + 1 === text.length) return null;
    return { at: index, next: text[index + 1] === '\n' ? index + 2 : index + 1 };
  }
  return null;
}
