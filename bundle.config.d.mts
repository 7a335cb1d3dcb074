import type { Metafile } from "esbuild";
/** Builds dist/tokenfwd-bastion.cjs in memory. Writes nothing. */
export function bundle(): Promise<{ readonly text: string; readonly metafile: Metafile }>;
