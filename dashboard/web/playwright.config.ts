// The browser tests: real Chromium, against the made-up world by default, or a real migrator by BASE_URL (see tests/browser/site.ts).
import { defineConfig } from '@playwright/test';

const artefacts = process.env.SEGUE_ARTEFACTS ?? '../../target/dashboard';

export default defineConfig({
  testDir: 'tests/browser',
  outputDir: `${artefacts}/playwright`,
  fullyParallel: false,
  // One at a time: the load page measures time, and two cores are all there is.
  workers: 1,
  // Generous: hangs end here, nothing is measured by it.
  timeout: 60_000,
  expect: { timeout: 20_000 },
  reporter: [['list']],
  use: {
    browserName: 'chromium',
    viewport: { width: 1280, height: 800 },
    screenshot: 'only-on-failure',
    launchOptions: {
      executablePath: process.env.CHROMIUM ?? '/usr/bin/chromium',
      args: ['--no-sandbox', '--disable-gpu', '--disable-quic', '--no-first-run', '--disable-background-networking', '--disable-component-update', '--disable-sync'],
    },
  },
});
