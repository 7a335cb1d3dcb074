/*
 * What has to be undone, the last first, however the bench ends: at its end, at an error and at a signal.
 */
export interface CleanUps extends AsyncDisposable {
  add(undo: () => Promise<unknown> | unknown): void;
  /** Safe to call twice. One that fails does not keep the others from being done. */
  dispose(): Promise<void>;
}

export function createCleanUps(): CleanUps {
  const undone: (() => Promise<unknown> | unknown)[] = [];
  const dispose = async (): Promise<void> => {
    for (const undo of undone.splice(0).reverse()) {
      try {
        await undo();
      } catch (error) {
        process.stderr.write(`bench: cleaning up: ${(error as Error).message}\n`);
      }
    }
  };
  return { add: (undo) => undone.push(undo), dispose, [Symbol.asyncDispose]: dispose };
}
