// For everybody: by keyboard alone, by screen reader, in light and dark, at 390 px.

import { AxeBuilder } from '@axe-core/playwright';
import type { Page } from '@playwright/test';
import { expect, move, open, test } from './site';

/** Tab until something is focused; fails when it is not reached. */
async function tabTo(page: Page, wanted: string): Promise<void> {
  for (let presses = 0; presses < 60; presses += 1) {
    await page.keyboard.press('Tab');
    if (await page.evaluate((selector) => document.activeElement?.matches(selector), wanted)) return;
  }
  throw new Error(`${wanted} is not reached by Tab`);
}

test('a service is moved, and the move undone, by keyboard alone', async ({ page, site }) => {
  const order = await site.aMove();
  await open(page, site);
  await page.keyboard.press('Tab');
  await expect(page.getByRole('link', { name: 'Skip to content' })).toBeFocused();
  await tabTo(page, '[data-testid=move]');
  await page.keyboard.press('Enter');
  await expect(page.getByRole('dialog')).toBeVisible();
  // The focus begins at what is to be chosen, not at the button that closes.
  await expect(page.locator('dialog select:focus')).toBeVisible();
  await tabTo(page, '[data-testid=move-service]');
  await page.keyboard.type(order.service);
  await tabTo(page, '[data-testid=move-node]');
  await page.keyboard.type(order.to);
  await expect(page.getByTestId('move-start')).toBeEnabled();
  await tabTo(page, '[data-testid=move-start]');
  await page.keyboard.press('Enter');
  await expect(page.getByTestId('sentence')).toContainText(`${order.to} owns ${order.service}`);
  await expect(page.getByTestId('undo')).toBeEnabled();
  await tabTo(page, '[data-testid=undo]');
  await page.keyboard.press('Enter');
  await tabTo(page, '[data-testid=confirm]');
  await page.keyboard.press('Enter');
  await expect(page.getByTestId('sentence')).toContainText(`${order.from} owns ${order.service}`);
});

test('the theme follows the system and can be set, and stays set', async ({ page, site }) => {
  await page.emulateMedia({ colorScheme: 'dark' });
  await open(page, site);
  const background = () => page.evaluate(() => getComputedStyle(document.documentElement).backgroundColor);
  const dark = await background();
  await page.getByRole('button', { name: /^Theme/ }).click();
  await expect(page.getByRole('button', { name: /^Theme: light/ })).toBeVisible();
  expect(await background()).not.toBe(dark);
  await page.reload();
  await expect(page.getByRole('button', { name: /^Theme: light/ })).toBeVisible();
  await page.getByRole('button', { name: /^Theme/ }).click();
  expect(await background()).toBe(dark);
});

for (const scheme of ['light', 'dark'] as const) {
  test(`axe finds nothing serious on any page, ${scheme}`, async ({ page, site }) => {
    await page.emulateMedia({ colorScheme: scheme, reducedMotion: 'reduce' });
    const clean = async (where: string) => {
      const { violations } = await new AxeBuilder({ page }).withTags(['wcag2a', 'wcag2aa', 'wcag21a', 'wcag21aa', 'wcag22aa', 'best-practice']).analyze();
      const serious = violations.filter(({ impact }) => impact === 'serious' || impact === 'critical');
      expect(serious.map(({ id, nodes }) => `${where}: ${id}: ${nodes.map(({ html }) => html).join(' ')}`)).toEqual([]);
    };
    await open(page, site);
    await clean('overview');
    const order = await site.aMove();
    await page.getByTestId('move').click();
    await clean('move dialog, empty');
    await page.getByTestId('move-service').selectOption(`${order.service}/0`);
    await page.getByTestId('move-node').selectOption(order.from);
    await expect(page.getByTestId('plan-sentence')).toBeVisible();
    await clean('move dialog, refused');
    await page.keyboard.press('Escape');
    await move(page, site);
    await clean('migration, running');
    await expect(page.getByTestId('sentence')).toContainText('Completed');
    await clean('migration, completed');
    await page.getByTestId('undo').click();
    await clean('undo');
    await page.keyboard.press('Escape');
    for (const hash of ['#/history', `#/log/${order.service}/0`, `#/services/${order.service}/0`, '#/recording', '#/nowhere']) {
      await page.goto(`${site.url}/${hash}`);
      await page.waitForTimeout(400);
      await clean(hash);
    }
  });
}

test('nothing is wider than a telephone', async ({ page, site }) => {
  await page.setViewportSize({ width: 390, height: 800 });
  const order = await site.aMove();
  for (const hash of ['#/', '#/history', `#/log/${order.service}/0`, `#/services/${order.service}/0`, '#/recording']) {
    await open(page, site, hash);
    await page.waitForTimeout(300);
    expect(await page.evaluate(() => document.documentElement.scrollWidth), hash).toBeLessThanOrEqual(390);
  }
  await page.goto(`${site.url}/#/`);
  await move(page, site);
  await expect(page.getByTestId('sentence')).toContainText('Completed');
  expect(await page.evaluate(() => document.documentElement.scrollWidth), 'migration').toBeLessThanOrEqual(390);
});
