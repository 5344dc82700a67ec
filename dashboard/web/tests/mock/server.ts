// Serves the built page and a made-up world over HTTP, as the migrator does. Can go away and come back on the same port.

import { readFileSync, existsSync } from 'node:fs';
import { createServer, type IncomingMessage, type Server, type ServerResponse } from 'node:http';
import type { AddressInfo } from 'node:net';
import { extname, join } from 'node:path';

import type { NewMigration } from '../../src/api/types';
import * as answers from './answers';
import type { Refusal, Told, World } from './world';

const TYPES: Record<string, string> = { '.html': 'text/html; charset=utf-8', '.js': 'text/javascript; charset=utf-8', '.css': 'text/css; charset=utf-8', '.svg': 'image/svg+xml' };
const HEARTBEAT_MS = 5_000;

export class Mock {
  world: World;
  /** What a request must carry; `null`: nothing. */
  token: string | null = null;
  role: 'viewer' | 'operator' = 'operator';
  /** Connections stay open and nothing comes, as from a process that was stopped. */
  hushed = false;
  /** `Last-Event-ID` of every stream that was opened. */
  readonly resumed: (string | undefined)[] = [];
  #server: Server | null = null;
  #port = 0;
  #streams = new Set<ServerResponse>();
  readonly #page: string;

  constructor(world: World, page: string) {
    this.world = world;
    this.#page = page;
    if (!existsSync(join(page, 'index.html'))) throw new Error(`${page} holds no page: run npm run build first`);
    world.listener = (told) => this.#tell(told);
  }

  /** How many streams are open now. */
  get streams(): number {
    return this.#streams.size;
  }

  get url(): string {
    return `http://127.0.0.1:${this.#port}`;
  }

  async start(): Promise<void> {
    const server = createServer((request, response) => this.#answer(request, response));
    this.#server = server;
    await new Promise<void>((resolve, reject) => server.once('error', reject).listen(this.#port, '127.0.0.1', resolve));
    this.#port = (server.address() as AddressInfo).port;
  }

  /** As if killed: connections break. */
  async stop(): Promise<void> {
    const server = this.#server;
    this.#server = null;
    this.#streams.clear();
    if (!server) return;
    await new Promise<void>((resolve) => {
      server.close(() => resolve());
      server.closeAllConnections();
    });
  }

  #tell(told: Told): void {
    const text = `${told.id == null ? '' : `id: ${told.id}\n`}event: ${told.event}\ndata: ${JSON.stringify(told.data)}\n\n`;
    for (const stream of this.#streams) stream.write(text);
  }

  #answer(request: IncomingMessage, response: ServerResponse): void {
    if (this.hushed) return;
    const url = new URL(request.url ?? '/', this.url);
    if (!url.pathname.startsWith('/v1') && url.pathname !== '/version') return this.#file(url.pathname, response);
    if (this.token != null && request.headers.authorization !== `Bearer ${this.token}`) {
      return problem(response, { status: 401, code: 'no-token', title: 'A token is needed', detail: 'This migrator has tokens.', hint: 'Send Authorization: Bearer …' });
    }
    if (request.headers.accept === 'text/event-stream') return this.#stream(request, response);
    let body = '';
    request.on('data', (part: Buffer) => (body += part.toString()));
    request.on('end', () => {
      const order = body === '' ? null : (JSON.parse(body) as NewMigration);
      if (request.method === 'POST' && this.role === 'viewer') {
        return problem(response, { status: 403, code: 'not-an-operator', title: 'This token may only look', detail: 'Its role is viewer.', hint: 'Use an operator’s token.' });
      }
      const answer = answers.answer(this.world, this.role, request.method ?? 'GET', url, order);
      if ('refusal' in answer) return problem(response, answer.refusal);
      response.writeHead(answer.status ?? 200, { 'content-type': 'application/json' }).end(JSON.stringify(answer.body));
    });
  }

  #stream(request: IncomingMessage, response: ServerResponse): void {
    const last = request.headers['last-event-id'];
    this.resumed.push(typeof last === 'string' ? last : undefined);
    response.writeHead(200, { 'content-type': 'text/event-stream', 'cache-control': 'no-store' });
    response.write('retry: 200\n\n');
    if (last != null) {
      for (const told of this.world.told) if (told.id > Number(last)) response.write(`id: ${told.id}\nevent: ${told.event}\ndata: ${JSON.stringify(told.data)}\n\n`);
    }
    this.#streams.add(response);
    const beat = setInterval(() => this.hushed || response.write('event: heartbeat\ndata: {}\n\n'), HEARTBEAT_MS);
    response.on('close', () => {
      clearInterval(beat);
      this.#streams.delete(response);
    });
  }

  #file(path: string, response: ServerResponse): void {
    const file = join(this.#page, path === '/' ? 'index.html' : path);
    if (!file.startsWith(this.#page) || !existsSync(file)) return void response.writeHead(404).end();
    response.writeHead(200, { 'content-type': TYPES[extname(file)] ?? 'application/octet-stream', 'content-security-policy': "default-src 'self'" });
    response.end(readFileSync(file));
  }
}

function problem(response: ServerResponse, told: Refusal): void {
  response.writeHead(told.status, { 'content-type': 'application/problem+json' });
  response.end(JSON.stringify({ type: 'about:blank', checks: [], request_id: 'r-1', ...told }));
}
