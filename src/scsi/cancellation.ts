/**
 * Whether something is to end early: asked often, and nearly always answered no. The `AbortSignal` is made when it is asked for
 * first, because to make one takes longer than most of what else a command needs.
 */
export class Cancellation {
  #isAborted = false;
  #controller: AbortController | undefined;

  get isAborted(): boolean {
    return this.#isAborted;
  }

  get signal(): AbortSignal {
    if (this.#controller === undefined) {
      this.#controller = new AbortController();
      if (this.#isAborted) this.#controller.abort();
    }
    return this.#controller.signal;
  }

  /** Idempotent. */
  abort(): void {
    this.#isAborted = true;
    this.#controller?.abort();
  }
}
