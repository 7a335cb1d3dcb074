/*
 * A fact that is found out when it is first asked for, and once: a second asker gets the same answer, or the same error. It must never
 * look before somebody asks, nor leave behind what it opened for a look.
 */

/** A fact that several checks look at. */
export type Fact<T> = () => Promise<T>;

/** The fact that `find` finds. */
export function lazily<T>(find: () => Promise<T>): Fact<T> {
  let found: Promise<T> | undefined;
  return () => {
    found ??= find();
    return found;
  };
}

/**
 * What is being opened, given to `defer` at once: it is closed at the end of the walk, also when that comes before it is open. What must
 * be closed after it is to be open already.
 */
export function held<T>(
  defer: (close: () => Promise<void>) => void,
  opening: Promise<T>,
  close: (opened: T) => Promise<void> | void,
): Promise<T> {
  defer(() => opening.then(close, () => undefined));
  return opening;
}
