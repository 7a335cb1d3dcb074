/*
 * What the checks of the workstation and of the way to a bastion look at: the options, which are connect's, and facts that are
 * found out when they are first asked for. What a fact opens is deferred here and taken away at the walk's end, whatever came of it.
 */
import type { Inspection } from "../agent/inspect.js";
import type { Profile } from "../agent/policy.js";
import type { Log } from "../base/log.js";
import type { ResolveOptions } from "../forward/ssh-settings.js";
import type { ForwardUi } from "../forward/types.js";
import type { PinSource } from "../token/host/host.js";
import { type Fact, lazily } from "./lazy.js";
import { createWayFacts, type WayFacts } from "./way/facts.js";
import { type ChoriaFound, findChoria } from "./workstation/choria.js";
import { createTokenFacts, type TokenFacts } from "./workstation/facts.js";

/** As connect takes them. */
export interface DoctorOptions {
  /** Null: the workstation alone is looked at. */
  readonly destination: string | null;
  readonly module: string | null;
  readonly token: string | null;
  readonly key: string | null;
  readonly pinSource: PinSource;
  readonly profile: Profile;
  readonly allowRawRsa: boolean;
  readonly allowFullOverForward: boolean;
  readonly holdMs: number | null;
  readonly ssh: Omit<ResolveOptions, "signal">;
}

/** What the command line hands in. */
export interface DoctorSurroundings {
  /** Ends the walk. */
  readonly signal: AbortSignal;
  readonly log: Log;
  readonly env: NodeJS.ProcessEnv;
  /** Registers what was opened; closed in reverse order at the end, each within some seconds. */
  defer(close: () => Promise<void> | void): void;
  /** The key that connect would expose, or its error; nobody is asked. */
  chooseKey(given: string | null, found: Inspection, signal: AbortSignal): Promise<string | null>;
  /** What a log-in to the bastion needs a person for. A host key is not asked about: that it is unknown is a finding. */
  readonly ask: Pick<ForwardUi, "askPassphrase" | "askLogin">;
  /** How long the module may take to load; default as for connect. */
  readonly loadTimeoutMs?: number;
}

/** The context without its facts: what facts are made of. */
export interface DoctorGround extends DoctorSurroundings {
  readonly options: DoctorOptions;
}

export interface DoctorContext extends DoctorGround {
  readonly token: TokenFacts;
  /** Choria's client configuration on this machine; null where there is none. */
  readonly choria: Fact<ChoriaFound | null>;
  /** To be asked only where there is a destination. */
  readonly way: WayFacts;
}

/** A context in which nothing has been looked at yet. */
export function createDoctorContext(options: DoctorOptions, surroundings: DoctorSurroundings): DoctorContext {
  const ground: DoctorGround = { ...surroundings, options };
  const token = createTokenFacts(ground);
  return { ...ground, token, choria: lazily(async () => findChoria(ground.env)), way: createWayFacts(ground, token) };
}
