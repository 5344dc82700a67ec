// An answer that a page asked for: its value, or why there is none. A later question overtakes an earlier one.

export class Asked<T> {
  value: T | null = $state.raw(null);
  error: unknown = $state.raw(null);
  busy = $state(false);
  #number = 0;

  async ask(question: () => Promise<T>): Promise<void> {
    this.#number += 1;
    const number = this.#number;
    this.busy = true;
    try {
      const value = await question();
      if (number !== this.#number) return;
      this.value = value;
      this.error = null;
    } catch (error) {
      if (number !== this.#number) return;
      this.error = error;
    }
    this.busy = false;
  }

  forget(): void {
    this.#number += 1;
    this.value = null;
    this.error = null;
    this.busy = false;
  }
}
