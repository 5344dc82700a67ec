// Where the page is (the hash), which theme it wears, and the recording that is open in it.

import type { Recording } from '../api/types';
import { parseRoute, type Route } from '../pure/route';

const THEME_KEY = 'segue-theme';
export const THEMES = ['auto', 'light', 'dark'] as const;
export type Theme = (typeof THEMES)[number];

class Place {
  route: Route = $state.raw(parseRoute(location.hash));
  theme: Theme = $state(readTheme());
  recording: Recording | null = $state.raw(null);
  /** The move dialog is open, perhaps with something chosen. */
  moving: { service?: string; shard?: string; to?: string } | null = $state.raw(null);

  start(): void {
    window.addEventListener('hashchange', () => (this.route = parseRoute(location.hash)));
    this.#wear();
  }

  nextTheme(): void {
    this.theme = THEMES[(THEMES.indexOf(this.theme) + 1) % THEMES.length] ?? 'auto';
    localStorage.setItem(THEME_KEY, this.theme);
    this.#wear();
  }

  #wear(): void {
    if (this.theme === 'auto') delete document.documentElement.dataset.theme;
    else document.documentElement.dataset.theme = this.theme;
  }
}

function readTheme(): Theme {
  const kept = localStorage.getItem(THEME_KEY);
  return THEMES.find((theme) => theme === kept) ?? 'auto';
}

export const place = new Place();
