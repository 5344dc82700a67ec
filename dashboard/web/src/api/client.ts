// Asks REST. The one place that knows the token's header and turns problem+json into an error that a person can read.

import type { Check } from './types';

/** No answer after this is an answer: the migrator is away. */
const TIMEOUT_MS = 15_000;
const TOKEN_KEY = 'segue-token';

/** What REST refused, in its own words. */
export class Problem extends Error {
  /** 0: there was no answer. */
  readonly status: number;
  readonly code: string;
  readonly detail: string;
  readonly hint: string | null;
  readonly checks: readonly Check[];
  readonly requestId: string | null;

  constructor(told: { status: number; code: string; title: string; detail?: string | null; hint?: string | null; checks?: readonly Check[]; requestId?: string | null }) {
    super(told.title);
    this.status = told.status;
    this.code = told.code;
    this.detail = told.detail ?? '';
    this.hint = told.hint ?? null;
    this.checks = told.checks ?? [];
    this.requestId = told.requestId ?? null;
  }
}

let onUnauthorized: () => void = () => undefined;

/** Who asks for a token when REST wants one. */
export function whenUnauthorized(ask: () => void): void {
  onUnauthorized = ask;
}

/** Kept for this tab only: gone when it is closed. */
export function token(): string | null {
  return sessionStorage.getItem(TOKEN_KEY);
}

export function setToken(value: string | null): void {
  if (value == null || value === '') sessionStorage.removeItem(TOKEN_KEY);
  else sessionStorage.setItem(TOKEN_KEY, value);
}

export function headers(more: Record<string, string> = {}): Headers {
  const all = new Headers(more);
  const kept = token();
  if (kept != null) all.set('authorization', `Bearer ${kept}`);
  return all;
}

export async function get<T>(path: string, signal?: AbortSignal): Promise<T> {
  return (await ask(path, { headers: headers({ accept: 'application/json' }), ...(signal ? { signal } : {}) })).json() as Promise<T>;
}

export async function post<T>(path: string, body?: unknown, more: { idempotent?: boolean; signal?: AbortSignal } = {}): Promise<T> {
  const head = headers({ accept: 'application/json' });
  if (body !== undefined) head.set('content-type', 'application/json');
  if (more.idempotent) head.set('idempotency-key', key());
  const init: RequestInit = { method: 'POST', headers: head };
  if (body !== undefined) init.body = JSON.stringify(body);
  if (more.signal) init.signal = more.signal;
  const response = await ask(path, init);
  const text = await response.text();
  return (text === '' ? null : JSON.parse(text)) as T;
}

/** Any answer, refusals turned into a `Problem`, silence into one that says so. */
export async function ask(path: string, init: RequestInit): Promise<Response> {
  const limit = AbortSignal.timeout(TIMEOUT_MS);
  const signal = init.signal ? AbortSignal.any([init.signal, limit]) : limit;
  let response: Response;
  try {
    response = await fetch(path, { ...init, signal, cache: 'no-store' });
  } catch (error) {
    if (init.signal?.aborted === true) throw error;
    throw new Problem({
      status: 0,
      code: 'no-answer',
      title: 'The migrator does not answer',
      detail: `${path} gave no answer.`,
      hint: 'Services go on without it; see whether “segue migrator” runs and this address reaches it.',
    });
  }
  if (response.ok) return response;
  if (response.status === 401) onUnauthorized();
  throw await refusal(path, response);
}

/** The problem that an answer tells of. */
export async function refusal(path: string, response: Response): Promise<Problem> {
  const told = await response.json().catch(() => ({})) as Record<string, unknown>;
  const text = (name: string) => (typeof told[name] === 'string' ? (told[name] as string) : null);
  return new Problem({
    status: response.status,
    code: text('code') ?? `http-${response.status}`,
    title: text('title') ?? `${path} answered ${response.status}`,
    detail: text('detail'),
    hint: text('hint'),
    checks: Array.isArray(told.checks) ? (told.checks as Check[]) : [],
    requestId: text('request_id') ?? response.headers.get('x-request-id'),
  });
}

/** 128 random bits. `crypto.randomUUID` is missing where the page comes over plain HTTP from another machine. */
function key(): string {
  return Array.from(crypto.getRandomValues(new Uint8Array(16)), (byte) => byte.toString(16).padStart(2, '0')).join('');
}

/** For people: what was wrong and what to do. */
export function explain(error: unknown): string {
  if (error instanceof Problem) return [error.message, error.detail, error.hint].filter((part) => part != null && part !== '').join(' — ');
  return error instanceof Error ? error.message : String(error);
}
