// Pictures of the main pages, kept as artefacts: dark and light, wide and narrow. Those in README are made of them:
// `pngquant --nofs --strip 128 -o dashboard/screenshots/NAME.png target/dashboard/screenshots/NAME-light-wide.png`

import { mkdirSync } from 'node:fs';
import { join } from 'node:path';
import { ARTEFACTS, MEASURED, expect, move, open, test } from './site';

const FOLDER = join(ARTEFACTS, 'screenshots');
mkdirSync(FOLDER, { recursive: true });

for (const scheme of ['light', 'dark'] as const) {
  for (const [name, width] of [['wide', 1280], ['narrow', 390]] as const) {
    test(`the main pages are pictured, ${scheme} and ${name}`, async ({ page, site }) => {
      const picture = (what: string, fullPage = true) => page.screenshot({ path: join(FOLDER, `${what}-${scheme}-${name}.png`), fullPage, animations: 'disabled' });
      await page.emulateMedia({ colorScheme: scheme });
      await page.setViewportSize({ width, height: 800 });
      await open(page, site);
      const order = await site.aMove();
      await page.getByTestId('move').click();
      await picture('move-empty', false);
      await page.getByTestId('move-service').selectOption(`${order.service}/0`);
      await page.getByTestId('move-node').selectOption(order.to);
      await expect(page.getByTestId('plan-sentence')).toBeVisible();
      await picture('move', false);
      await page.keyboard.press('Escape');
      await move(page, site);
      await expect(page.locator('[data-phase=replay]')).toBeVisible();
      await picture('migration-running');
      await page.goto(`${site.url}/#/`);
      await expect(page.getByRole('heading', { name: 'Services' })).toBeVisible();
      await picture('overview');
      await page.goBack();
      await expect(page.getByTestId('sentence')).toContainText('Completed in');
      if (MEASURED) await expect(page.getByTestId('blackout')).not.toHaveText('–');
      await page.waitForTimeout(site.mock ? 4_500 : 6_000);
      await picture('migration');
      await page.goto(`${site.url}/#/history`);
      await expect(page.locator('tr[data-migration]').first()).toBeVisible();
      await picture('history');
      await page.goto(`${site.url}/#/log/${order.service}/0`);
      await expect(page.getByRole('button', { name: /^Record / }).first()).toBeVisible();
      await picture('log', false);
      await page.goto(`${site.url}/#/services/${order.service}/0`);
      await expect(page.getByRole('heading', { name: 'Where it can move' })).toBeVisible();
      await page.waitForTimeout(300);
      await picture('service');
    });
  }
}
