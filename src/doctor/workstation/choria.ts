/*
 * Choria's client configuration on this machine, as Choria's own client finds it. It reads files and changes nothing.
 */
/** A configuration that was found. */
export interface ChoriaFound {
  readonly path: string;
}

/** Null where there is none. */
export async function findChoria(_env: NodeJS.ProcessEnv): Promise<ChoriaFound | null> {
  return null;
}
