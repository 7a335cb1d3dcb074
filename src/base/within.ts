/*
 * Waits for something, but only so long. It must never leave a timer behind that keeps the process.
 */

/** Resolves when `work` has settled, however that was, or after `milliseconds`. Never rejects. */
export async function within(milliseconds: number, work: Promise<unknown>): Promise<void> {
  let timer: NodeJS.Timeout | undefined;
  const late = new Promise<void>((resolve) => {
    timer = setTimeout(resolve, milliseconds);
  });
  await Promise.race([work.catch(() => undefined), late]);
  clearTimeout(timer);
}
