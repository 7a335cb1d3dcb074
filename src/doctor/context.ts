/*
 * What the checks of the workstation and of the way to a bastion look at: the options, which are connect's, and facts that are
 * found out when they are first asked for. What a fact opens is deferred here and taken away at the walk's end, whatever came of it.
 */
import type { Inspection } from "../agent/inspect.js";
import type { Profile } from "../agent/policy.js";
import { TokenfwdError } from "../base/errors.js";
import type { Log } from "../base/log.js";
import type { ResolveOptions } from "../forward/ssh-settings.js";
import type { ForwardUi } from "../forward/types.js";
import type { PinSource } from "../token/host/host.js";
import { type ChoriaFound, findChoriaHere, findChoriaThere } from "./choria/found.js";
import { type Fact, lazily } from "./lazy.js";
import { createWayFacts, type WayFacts } from "./way/facts.js";
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

/** Choria's client configurations. Null where there is none; rejects with E_CHORIA_CONFIG for one that cannot be read. */
export interface ChoriaFacts {
  readonly here: Fact<ChoriaFound | null>;
  /** On the bastion. */
  readonly there: Fact<ChoriaFound | null>;
  /** Whether there is any. Never rejects. */
  readonly isAbout: Fact<boolean>;
}

export interface DoctorContext extends DoctorGround {
  readonly token: TokenFacts;
  readonly choria: ChoriaFacts;
  /** To be asked only where there is a destination. */
  readonly way: WayFacts;
}

/** A context in which nothing has been looked at yet. */
export function createDoctorContext(options: DoctorOptions, surroundings: DoctorSurroundings): DoctorContext {
  const ground: DoctorGround = { ...surroundings, options };
  const token = createTokenFacts(ground);
  const way = createWayFacts(ground, token);
  const here = lazily(() => findChoriaHere(ground.env));
  const there = lazily(async () => {
    const { files, looked } = await way.bastion();
    return findChoriaThere(files, looked.probe.uid === 0);
  });
  const isAbout = lazily(async () => {
    const looks = options.destination === null ? [here()] : [here(), there()];
    // One that cannot be read is one all the same.
    const found = await Promise.all(looks.map((one) => one.catch((thrown) => TokenfwdError.from(thrown).code === "E_CHORIA_CONFIG")));
    return found.some((one) => one !== null && one !== false);
  });
  return { ...ground, token, way, choria: { here, there, isAbout } };
}
