// How the page is built: one script, one style sheet, nothing inlined (the content security policy allows no data: addresses).
import { svelte } from '@sveltejs/vite-plugin-svelte';
import { defineConfig } from 'vite';

export default defineConfig({
  plugins: [svelte()],
  build: {
    // The crate's build script says where to; by hand it is dist/.
    outDir: process.env.SEGUE_PAGE_OUT ?? 'dist',
    emptyOutDir: true,
    assetsInlineLimit: 0,
    target: 'es2022',
    modulePreload: { polyfill: false },
  },
  server: { proxy: { '/v1': process.env.SEGUE_API ?? 'http://127.0.0.1:7272', '/version': process.env.SEGUE_API ?? 'http://127.0.0.1:7272' } },
});
