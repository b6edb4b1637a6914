/**
 * How work ends that is done for each block: by a call, once, which costs less than a promise at every level between a
 * request and the wire. What takes several steps stays with promises; here is the way from one to the other.
 */

/** Boxed, since anything can be thrown. */
export interface Failure {
  readonly error: unknown;
}

/** Called once, when the work has ended: without a failure, well. It does not throw. */
export type Ended = (failure?: Failure) => void;

/** Tells `ended` how `work` settles. */
export function tell(work: Promise<unknown>, ended: Ended): void {
  work.then(
    () => ended(),
    (error: unknown) => ended({ error }),
  );
}

/** Settles as what `begin` begins ends. */
export function promised(begin: (ended: Ended) => void): Promise<void> {
  return new Promise((resolve, reject) => {
    begin((failure) => (failure === undefined ? resolve() : reject(failure.error)));
  });
}
