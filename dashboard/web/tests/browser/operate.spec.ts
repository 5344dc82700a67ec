// What an operator comes for: move, watch, undo, cancel, and learn why something is refused.

import { MEASURED, SLOW, ask, expect, latest, move, open, test } from './site';

test('a migration is started by clicking, watched until it completes, and undone', async ({ page, site }) => {
  await open(page, site);
  const order = await move(page, site);
  await expect(page.getByRole('heading', { level: 1 })).toContainText(`Move of ${order.service} from ${order.from} to ${order.to}`);
  await expect(page.getByTestId('sentence')).toContainText(`${order.to} owns ${order.service}`);
  // A target that was a standby needs no checkpoint and no transfer.
  for (const phase of ['prepare', 'replay', 'handover']) await expect(page.locator(`[data-phase=${phase}]`)).toHaveCount(1);
  await expect(page.getByTestId('hashes')).toHaveText('equal');
  if (MEASURED) {
    await expect(page.getByTestId('blackout')).toContainText('ms');
    await expect(page.getByRole('img', { name: /^Latency of requests over time.*handover after/ })).toBeVisible();
  }

  await page.getByTestId('undo').click();
  await expect(page.getByTestId('consequences')).toContainText(`moves back from ${order.to} to ${order.from}`);
  await page.getByTestId('confirm').click();
  await expect(page.getByRole('heading', { level: 1 })).toContainText(`Undo of ${order.service} from ${order.to} to ${order.from}`);
  await expect(page.getByTestId('sentence')).toContainText(`${order.from} owns ${order.service}`);

  await page.getByRole('link', { name: 'Overview', exact: true }).click();
  await expect(page.locator(`[data-service="${order.service}"]`)).toContainText(order.from);
});

test('a running migration is cancelled after its consequences were read', async ({ page, site }) => {
  test.skip(!SLOW, 'the move ends before it can be cancelled');
  if (site.mock) site.mock.world.slowness = 20;
  await open(page, site);
  const order = await move(page, site);
  await page.getByTestId('cancel').click();
  const said = page.getByTestId('consequences');
  await expect(said).toContainText(`${order.from} stays the owner`);
  await expect(said).toContainText('exactly one of them wins');
  await page.getByTestId('confirm').click();
  await expect(page.getByTestId('outcome')).toHaveText('cancelled');
  await expect(page.getByTestId('sentence')).toContainText('The owner stays');
  await expect(page.getByTestId('undo')).toBeDisabled();
});

test('leaving a confirmation changes nothing, and the focus goes back', async ({ page, site }) => {
  await open(page, site);
  await move(page, site);
  await expect(page.getByTestId('undo')).toBeEnabled();
  const before = await latest(site.url);
  await page.getByTestId('undo').click();
  await page.keyboard.press('Escape');
  await expect(page.getByRole('dialog')).toBeHidden();
  await expect(page.getByTestId('undo')).toBeFocused();
  await page.keyboard.press('Enter');
  await page.getByRole('button', { name: 'Leave it as it is' }).click();
  await expect(page.getByRole('dialog')).toBeHidden();
  await expect(page.getByTestId('undo')).toBeFocused();
  expect((await latest(site.url))?.id).toBe(before?.id);
});

test('the plan stands before the button is live, and a node that has the service already is refused', async ({ page, site }) => {
  await open(page, site);
  const order = await site.aMove();
  await page.getByRole('button', { name: `Move ${order.service}` }).click();
  await expect(page.getByTestId('move-service')).toHaveValue(`${order.service}/0`);
  await page.getByTestId('move-node').selectOption(order.from);
  await expect(page.getByTestId('plan-sentence')).toContainText('It cannot start');
  await expect(page.getByTestId('move-start')).toBeDisabled();
  await expect(page.locator('[data-code=target-is-not-owner]')).toHaveAttribute('data-ok', 'false');
  await page.getByTestId('move-node').selectOption(order.to);
  await expect(page.getByTestId('move-start')).toBeEnabled();
  await expect(page.getByRole('dialog').getByRole('row', { name: /^replay/ })).toBeVisible();
});

test('why a move to a dead node is refused is said where it is asked, and on the service’s page', async ({ page, site }) => {
  test.skip(!site.mock, 'needs a node that is silent');
  await open(page, site);
  await page.getByTestId('move').click();
  await page.getByTestId('move-service').selectOption('delay-board/0');
  await page.getByTestId('move-node').selectOption('csd-1');
  await expect(page.locator('[data-code=node-alive]')).toContainText('was last heard');
  await expect(page.locator('[data-code=node-alive]')).toContainText('segue doctor');
  await expect(page.getByTestId('move-start')).toBeDisabled();
  await page.keyboard.press('Escape');
  await page.getByRole('link', { name: 'delay-board' }).first().click();
  await expect(page.getByText('csd-1 cannot take it')).toBeVisible();
  await expect(page.locator('[data-code=node-alive]')).toContainText('segue doctor');
});

test('an event has an address of its own that leads to it', async ({ page, site }) => {
  await open(page, site);
  await move(page, site);
  await expect(page.getByTestId('sentence')).toContainText('Completed');
  const link = page.getByRole('link', { name: /^Link to this event/ }).nth(3);
  const address = await link.getAttribute('href');
  await page.goto('about:blank');
  await open(page, site, address ?? '');
  await expect(page.locator('li[aria-current]')).toHaveCount(1);
  await expect(page.locator('li[aria-current]')).toBeInViewport();
});

test('history filters by service, node and outcome, in its address', async ({ page, site }) => {
  await open(page, site);
  const order = await move(page, site);
  await expect(page.getByTestId('sentence')).toContainText('Completed');
  await page.getByRole('link', { name: 'History', exact: true }).click();
  await page.getByLabel('Outcome').selectOption('completed');
  await page.getByLabel('Service').selectOption(order.service);
  await page.getByLabel('Node').selectOption(order.to);
  await expect(page).toHaveURL(/outcome=completed/);
  await expect(page.locator('tr[data-migration]').first()).toContainText(order.service);
  if (MEASURED) await expect(page.getByTestId('p99')).toContainText('ms');
  const rows = page.locator('tr[data-migration]');
  for (const wanted of ['completed', order.service, order.to]) await expect(rows.filter({ hasNotText: wanted })).toHaveCount(0);
  await expect(rows).not.toHaveCount(0);
  await page.getByLabel('Outcome').selectOption('failed');
  await expect(page.getByText('No migration fits this filter')).toBeVisible();
});

test('the log marks fences, opens a record, and goes to a position', async ({ page, site }) => {
  await open(page, site);
  const order = await move(page, site);
  await expect(page.getByTestId('sentence')).toContainText('Completed');
  const kept = await ask<{ first: number; tail: number }>(site.url, `/v1/log/${order.service}/0`);
  const position = Math.max(kept.first, kept.tail - 30);
  await page.goto(`${site.url}/#/log/${order.service}/0`);
  await page.getByLabel('Position').fill(String(position));
  await page.getByRole('button', { name: 'Go' }).click();
  await expect(page.locator('tr[aria-current]').getByRole('button', { name: `Record ${position}`, exact: true })).toBeVisible();
  await page.getByRole('button', { name: `Record ${position}`, exact: true }).click();
  await expect(page.locator('tr.more dl')).toBeVisible();
  await page.getByRole('link', { name: 'Dead letters' }).click();
  await expect(page.getByText('No dead letters')).toBeVisible();
  if (site.mock) {
    await page.goto(`${site.url}/#/log/${order.service}/0?from=47`);
    await expect(page.locator('tr.fence[aria-current]')).toHaveCount(1);
  }
});

test('a replay that will not converge is said, with both rates', async ({ page, site }) => {
  test.skip(!site.mock, 'needs a target that is too slow');
  const world = site.mock?.world;
  if (!world) return;
  world.slowness = 30;
  await open(page, site);
  await move(page, site);
  const id = [...world.migrations.keys()].at(-1) ?? '';
  const sentence = 'will not converge: 950/s in, 700/s replayed';
  // Told again and again, as a migrator does: each phase of the made-up world begins without a forecast.
  const tell = setInterval(
    () => world.sample(id, { lag_records: 8_000, forecast: { converges: false, in_s: null, arrival_per_s: 950, replay_per_s: 700, sentence } }),
    50,
  );
  try {
    await expect(page.getByTestId('sentence')).toHaveText(sentence);
    await page.getByRole('link', { name: 'Overview', exact: true }).click();
    await expect(page.locator(`[data-migration="${id}"]`)).toContainText(sentence);
    await expect(page.locator(`[data-migration="${id}"]`)).toContainText('8,000');
  } finally {
    clearInterval(tell);
  }
});

test('a drain shows where everything would go before it is done', async ({ page, site }) => {
  test.skip(!site.mock, 'would move everything of the demo');
  await open(page, site);
  await page.getByRole('button', { name: 'Drain edge-a' }).click();
  const dialog = page.getByRole('dialog', { name: 'Drain edge-a' });
  await expect(dialog.getByRole('row', { name: /delay-board/ })).toContainText('edge-b');
  await dialog.getByRole('button', { name: 'Drain: move 1' }).click();
  await expect(dialog.getByRole('link')).toHaveCount(1);
  await dialog.getByRole('link').click();
  await expect(page.getByRole('heading', { level: 1 })).toContainText('Move of delay-board from edge-a to edge-b');
});

test('commands to copy say what the buttons do', async ({ page, site, context }) => {
  await context.grantPermissions(['clipboard-read', 'clipboard-write']);
  await open(page, site);
  const order = await site.aMove();
  await page.getByTestId('move').click();
  await page.getByTestId('move-service').selectOption(`${order.service}/0`);
  await page.getByTestId('move-node').selectOption(order.to);
  await page.getByRole('dialog').getByRole('button', { name: 'CLI' }).click();
  await expect(page.getByRole('dialog').getByText('Copied:')).toBeVisible();
  expect(await page.evaluate(() => navigator.clipboard.readText())).toBe(`segue migrate ${order.service} --to ${order.to} --watch`);
});
