// Things by key, each with a signal of its own: a row is drawn again only when its own thing changed, the list only when rows
// come or go.

/** One thing. `at` is when it was told (this browser's clock), for ages that go on between two tellings. */
export class Cell<T> {
  value: T = $state.raw() as T;
  at = $state.raw(0);
  /** How the value was told, to see whether it changed. */
  told = '';
  readonly key: string;

  constructor(key: string) {
    this.key = key;
  }
}

export class Collection<T> {
  /** In the order of `before`; replaced as a whole when things come or go. */
  cells: Cell<T>[] = $state.raw([]);
  readonly #byKey = new Map<string, Cell<T>>();
  readonly #keyOf: (value: T) => string;
  readonly #before: (a: T, b: T) => number;
  readonly #overtaken: (told: T, present: T) => boolean;

  /** `overtaken`: what is told is older than what is there; an answer may come behind the event that made it old. */
  constructor(keyOf: (value: T) => string, before: (a: T, b: T) => number, overtaken: (told: T, present: T) => boolean = () => false) {
    this.#keyOf = keyOf;
    this.#before = before;
    this.#overtaken = overtaken;
  }

  /** The thing of that key, if there is one. Reading `cells` first makes the asker wait for it. */
  find(key: string): Cell<T> | undefined {
    return this.cells.length === 0 ? undefined : this.#byKey.get(key);
  }

  /** Adds and replaces; what is equal to what is there stays untouched. */
  put(values: readonly T[]): void {
    let grown = false;
    const now = Date.now();
    for (const value of values) {
      const key = this.#keyOf(value);
      const told = JSON.stringify(value);
      let cell = this.#byKey.get(key);
      if (cell?.told === told || (cell && this.#overtaken(value, cell.value))) continue;
      if (!cell) {
        cell = new Cell<T>(key);
        this.#byKey.set(key, cell);
        grown = true;
      }
      cell.told = told;
      cell.value = value;
      cell.at = now;
    }
    if (grown) this.#list();
  }

  /** What is there from now on, and nothing else. */
  replace(values: readonly T[]): void {
    const keep = new Set(values.map((value) => this.#keyOf(value)));
    const gone = [...this.#byKey.keys()].filter((key) => !keep.has(key));
    for (const key of gone) this.#byKey.delete(key);
    this.put(values);
    if (gone.length > 0) this.#list();
  }

  #list(): void {
    this.cells = [...this.#byKey.values()].sort((a, b) => this.#before(a.value, b.value));
  }
}
