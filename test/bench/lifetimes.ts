/** What was started last is ended first. Node 20 has no `AsyncDisposableStack` yet. */
export class Lifetimes implements AsyncDisposable {
  readonly #things: AsyncDisposable[] = [];

  use<T extends AsyncDisposable>(thing: T): T {
    this.#things.push(thing);
    return thing;
  }

  /** Ends all of them, and throws the first error afterwards. */
  async [Symbol.asyncDispose](): Promise<void> {
    const errors: unknown[] = [];
    for (const thing of this.#things.splice(0).reverse()) {
      try {
        await thing[Symbol.asyncDispose]();
      } catch (error) {
        errors.push(error);
      }
    }
    if (errors.length > 0) throw errors[0];
  }
}
