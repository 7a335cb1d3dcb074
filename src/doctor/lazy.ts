/*
 * A fact that is found out when it is first asked for, and once: a second asker gets the same answer, or the same error. It must never
 * look before somebody asks.
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
