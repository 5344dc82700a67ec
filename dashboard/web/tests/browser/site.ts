// What the browser tests run against. By default a made-up world of their own, fresh for each test; with BASE_URL a real migrator
// (`segue demo --keep`), where MIGRATOR_STOP and MIGRATOR_START are commands that kill it and bring it back, MOVES_TAKE_LONG says that
// a move lasts for seconds (`--state-mb 256`), and UNDER_LOAD that requests keep coming, so that blackouts and series are measured.
//
// Tests ask the site what there is instead of naming it, so that they hold for both.

import { execSync } from 'node:child_process';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { test as base, expect, type Page } from '@playwright/test';

import type { Migration, Node, Service } from '../../src/api/types';
import { Mock } from '../mock/server';
import { World } from '../mock/world';

const here = dirname(fileURLToPath(import.meta.url));
const BASE_URL = process.env.BASE_URL;
/** An operator’s token, for a migrator that has tokens. */
const TOKEN = process.env.SEGUE_TOKEN;

/** The built page that the mock serves. */
export const PAGE = process.env.SEGUE_PAGE ?? join(here, '../../dist');
export const ARTEFACTS = process.env.SEGUE_ARTEFACTS ?? join(here, '../../../../target/dashboard');

/** Whether there is something to measure. */
export const MEASURED = BASE_URL == null || process.env.UNDER_LOAD != null;
/** Whether a move can be met while it runs. */
export const SLOW = BASE_URL == null || process.env.MOVES_TAKE_LONG != null;

export interface Site {
  url: string;
  /** The made-up world, or `null` against a real migrator. */
  mock: Mock | null;
  /** A service, its owner, and a node that can take it. */
  aMove(): Promise<{ service: string; from: string; to: string }>;
  stop(): Promise<void>;
  start(): Promise<void>;
}

export async function ask<T>(url: string, path: string): Promise<T> {
  const response = await fetch(`${url}${path}`, { headers: TOKEN ? { authorization: `Bearer ${TOKEN}` } : {} });
  if (!response.ok) throw new Error(`${path} answered ${response.status}`);
  return (await response.json()) as T;
}

async function items<T>(url: string, path: string): Promise<T[]> {
  return (await ask<{ items: T[] }>(url, path)).items;
}

async function aMove(url: string) {
  const alive = new Set((await items<Node>(url, '/v1/nodes')).filter((node) => !node.silent).map((node) => node.name));
  for (const service of await items<Service>(url, '/v1/services')) {
    const to = service.replicas.map((replica) => replica.node).find((node) => node !== service.owner && alive.has(node));
    if (service.owner && to && service.migration == null) return { service: service.service, from: service.owner, to };
  }
  throw new Error('no service here can move');
}

export async function latest(url: string): Promise<Migration | undefined> {
  return (await items<Migration>(url, '/v1/migrations?page_size=1'))[0];
}

export const test = base.extend<{ site: Site; offences: string[] }>({
  site: async ({}, use) => {
    if (BASE_URL) {
      const run = (name: string) => {
        const command = process.env[name];
        if (!command) throw new Error(`${name} must hold the command for that`);
        execSync(command, { stdio: 'inherit' });
      };
      await use({ url: BASE_URL, mock: null, aMove: () => aMove(BASE_URL), stop: async () => run('MIGRATOR_STOP'), start: async () => run('MIGRATOR_START') });
      return;
    }
    const mock = new Mock(World.small(), PAGE);
    await mock.start();
    await use({ url: mock.url, mock, aMove: () => aMove(mock.url), stop: () => mock.stop(), start: () => mock.start() });
    mock.world.end();
    await mock.stop();
  },
  // Every test watches: nothing is asked of another host, nothing breaks the content security policy, no script fails.
  offences: [async ({ page, site }, use) => {
    const offences: string[] = [];
    if (TOKEN) await page.addInitScript((token) => sessionStorage.setItem('segue-token', token), TOKEN);
    page.on('request', (request) => {
      const url = request.url();
      if (!url.startsWith(site.url) && !url.startsWith('blob:')) offences.push(`request to ${url}`);
    });
    page.on('pageerror', (error) => offences.push(`script: ${error.message}`));
    page.on('console', (message) => {
      if (/Content Security Policy/i.test(message.text())) offences.push(message.text());
    });
    await use(offences);
    expect(offences).toEqual([]);
  }, { auto: true }],
});

export { expect };

/** Opens a place of the page and waits until it knows the system. */
export async function open(page: Page, site: Site, hash = '#/'): Promise<void> {
  await page.goto(`${site.url}/${hash}`);
  await expect(page.getByTestId('connection')).toHaveText('Live');
}

/** Through the dialog, as a person would: choose, read the plan, press. */
export async function move(page: Page, site: Site): Promise<{ service: string; from: string; to: string }> {
  const order = await site.aMove();
  await page.getByTestId('move').click();
  const start = page.getByTestId('move-start');
  await expect(start).toBeDisabled();
  await page.getByTestId('move-service').selectOption(`${order.service}/0`);
  await page.getByTestId('move-node').selectOption(order.to);
  await expect(page.getByRole('list', { name: 'Checks' })).toBeVisible();
  await expect(start).toBeEnabled();
  await start.click();
  await expect(page).toHaveURL(/#\/migrations\/[0-9A-Za-z]+$/);
  return order;
}
