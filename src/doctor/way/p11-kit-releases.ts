/*
 * What is known of p11-kit's releases: which version byte a client offers, and so which mechanisms it sends at all. Pure.
 */
import { MECHANISMS } from "../../cryptoki/mechanisms.js";

export interface P11KitDialect {
  /** The byte that the client offers; 2 is the first with the new dialect of mechanisms. */
  readonly version: 0 | 1 | 2;
}

/** By a release such as `0.24.1-2`, as a package manager writes it; null where it is none. */
export function dialectOf(release: string | null): P11KitDialect | null {
  const [, major, minor, patch] = /^(?:\d+:)?(\d+)\.(\d+)\.(\d+)/.exec(release ?? "") ?? [];
  if (major === undefined) return null;
  const number = Number(major) * 1_000_000 + Number(minor) * 1_000 + Number(patch);
  if (number < 25_000) return { version: 0 };
  return { version: number < 25_006 ? 1 : 2 };
}

/** The mechanisms of these that a stock client of the release hides from its programs and never sends. */
export function hiddenByStock(mechanisms: readonly number[], { version }: P11KitDialect): number[] {
  return mechanisms.filter((type) => {
    const since = MECHANISMS.get(type)?.stockSince ?? null;
    return since === null || since > version;
  });
}
