// The migrator goes away and comes back; tokens; a viewer.

import { expect, move, open, test } from './site';

test('a migrator that is gone makes the page say that it is stale; when it is back, the page is live again by itself', async ({ page, site }) => {
  await open(page, site);
  const order = await site.aMove();
  await site.stop();
  await expect(page.getByTestId('stale')).toContainText('This is stale');
  await expect(page.getByTestId('stale')).toContainText('Services go on without the migrator');
  await expect(page.getByTestId('connection')).toContainText('Stale');
  await expect(page.locator(`[data-service="${order.service}"]`), 'what was known stays').toBeVisible();
  await site.start();
  await expect(page.getByTestId('stale')).toBeHidden();
  await expect(page.getByTestId('connection')).toHaveText('Live');
  await move(page, site);
  await expect(page.getByTestId('sentence')).toContainText('Completed');
});

test('what happened while the page was cut off is there afterwards, by resuming', async ({ page, site }) => {
  test.skip(!site.mock, 'looks at what the server was asked');
  const mock = site.mock;
  if (!mock) return;
  await open(page, site);
  await move(page, site);
  await expect(page.getByTestId('sentence')).toContainText('Completed');
  await site.stop();
  await expect(page.getByTestId('stale')).toBeVisible();
  const id = [...mock.world.migrations.keys()].at(-1) ?? '';
  mock.world.retire(id);
  await site.start();
  await expect(page.getByTestId('undo')).toBeDisabled();
  await expect(page.getByText('its standby was retired')).toBeVisible();
  expect(Number(mock.resumed.at(-1)), 'asked to go on behind the last event').toBeGreaterThan(0);
});

test('a migrator that says nothing over an open connection makes the page stale too', async ({ page, site }) => {
  test.skip(!site.mock, 'needs a migrator that is stopped, not killed');
  if (!site.mock) return;
  await open(page, site);
  await page.waitForTimeout(6_000);
  await expect(page.getByTestId('stale'), 'heartbeats keep it live').toBeHidden();
  site.mock.hushed = true;
  await expect(page.getByTestId('stale')).toContainText('This is stale');
  site.mock.hushed = false;
  await expect(page.getByTestId('stale')).toBeHidden();
  await expect(page.getByTestId('connection')).toHaveText('Live');
});

test('a tab that nobody looks at gives its connection up, and takes it up again', async ({ page, site }) => {
  test.skip(!site.mock, 'counts the server’s streams');
  const mock = site.mock;
  if (!mock) return;
  await page.clock.install();
  await open(page, site);
  const show = (visible: boolean) => page.evaluate((hidden) => {
    Object.defineProperty(document, 'hidden', { configurable: true, get: () => hidden });
    document.dispatchEvent(new Event('visibilitychange'));
  }, !visible);
  expect(mock.streams).toBe(1);
  await show(false);
  await page.clock.fastForward(31_000);
  await expect.poll(() => mock.streams).toBe(0);
  await show(true);
  await expect.poll(() => mock.streams).toBe(1);
  await expect(page.getByTestId('connection')).toHaveText('Live');
});

test('a page that never reached the migrator says so and recovers', async ({ page, site }) => {
  await page.route('**/v1/**', (route) => route.abort());
  await page.goto(`${site.url}/`);
  await expect(page.getByTestId('stale')).toContainText('the migrator does not answer');
  await page.unroute('**/v1/**');
  // The page tries by itself too: where that comes first, the button is gone before it can be clicked.
  await page.getByRole('button', { name: 'Try now' }).click({ timeout: 5_000 }).catch(() => undefined);
  await expect(page.getByTestId('connection')).toHaveText('Live');
});

test('a token is asked for once, a wrong one is refused, and it is kept for the tab only', async ({ page, site }) => {
  test.skip(!site.mock, 'needs a migrator with tokens');
  if (site.mock) site.mock.token = 'right';
  await page.goto(`${site.url}/`);
  const dialog = page.getByRole('dialog', { name: 'This migrator asks for a token' });
  await dialog.getByLabel('Bearer token').fill('wrong');
  await dialog.getByRole('button', { name: 'Use this token' }).click();
  await expect(dialog.getByRole('alert')).toContainText('refused');
  await dialog.getByLabel('Bearer token').fill('right');
  await page.keyboard.press('Enter');
  await expect(page.getByTestId('connection')).toHaveText('Live');
  await page.reload();
  await expect(page.getByTestId('connection')).toHaveText('Live');
  expect(await page.evaluate(() => [sessionStorage.getItem('segue-token'), JSON.stringify(localStorage), document.cookie])).toEqual(['right', '{}', '']);
});

test('a viewer sees everything and can change nothing', async ({ page, site }) => {
  test.skip(!site.mock, 'needs a viewer’s token');
  if (site.mock) site.mock.role = 'viewer';
  await open(page, site);
  await expect(page.getByTestId('move')).toBeDisabled();
  for (const name of [/^Move /, /^Drain /]) for (const button of await page.getByRole('button', { name }).all()) await expect(button).toBeDisabled();
});
