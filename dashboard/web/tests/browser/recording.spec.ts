// A recording is saved, and opened again where no migrator is.

import { readFileSync } from 'node:fs';
import { MEASURED, expect, move, open, test } from './site';

test('a recording opens in the same page without anything being asked', async ({ page, site, context }) => {
  await open(page, site);
  const order = await move(page, site);
  await expect(page.getByTestId('sentence')).toContainText('Completed');
  const saving = page.waitForEvent('download');
  await page.getByRole('button', { name: 'Save recording' }).click();
  const file = await (await saving).path();
  expect(JSON.parse(readFileSync(file, 'utf8'))).toMatchObject({ format: 'segue-recording/1' });

  await page.getByRole('link', { name: 'History', exact: true }).click();
  await page.getByRole('link', { name: 'Open a recording' }).click();
  await context.setOffline(true);
  await page.getByLabel('Recording file').setInputFiles(file);
  await expect(page.getByText('A recording from a file')).toBeVisible();
  await expect(page.getByRole('heading', { level: 1 })).toContainText(`Move of ${order.service} from ${order.from} to ${order.to}`);
  await expect(page.locator('[data-phase=handover]')).toBeVisible();
  if (MEASURED) await expect(page.getByRole('img', { name: /^Latency of requests over time/ })).toBeVisible();
  await expect(page.getByTestId('undo')).toHaveCount(0);
  await page.getByRole('button', { name: 'Close the recording' }).click();
  await expect(page.getByRole('heading', { name: 'Open a recording' })).toBeVisible();
  await context.setOffline(false);
});

test('a file that is no recording is refused by name', async ({ page, site }) => {
  await open(page, site, '#/recording');
  await page.getByLabel('Recording file').setInputFiles({ name: 'notes.json', mimeType: 'application/json', buffer: Buffer.from('{"format":"other"}') });
  await expect(page.getByRole('alert')).toContainText('notes.json: its format is "other"');
});
