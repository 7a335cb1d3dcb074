/*
 * The facts of the workstation, each by the functions that connect itself uses. It must never log in, and never choose one of
 * several tokens or keys.
 */
import { type AgentPort, createAgent } from "../../agent/agent.js";
import { type Inspection, inspectToken } from "../../agent/inspect.js";
import { chooseModule, discoverModules } from "../../token/discovery/discover.js";
import type { SeenModule } from "../../token/discovery/look.js";
import { createTokenHost, type TokenHost } from "../../token/host/host.js";
import type { DoctorGround } from "../context.js";
import { type Fact, held, lazily } from "../lazy.js";
import { type HeldKey, readHeldKeys } from "./key-parts.js";

export interface TokenFacts {
  /** The modules that discovery looks at, with their tokens. Not needed where --module names one. */
  readonly seen: Fact<readonly SeenModule[]>;
  /** The path of the module that connect would use. Rejects as findModule. */
  readonly module: Fact<string>;
  /** The module in its process. Rejects as createTokenHost. */
  readonly host: Fact<TokenHost>;
  /** The tokens that --token means, and their public objects. Rejects as inspectToken. */
  readonly inspection: Fact<Inspection>;
  /** The key that connect would expose, `all`, or null. Rejects as connect's choice. */
  readonly key: Fact<string | null>;
  /** What the token shows of the keys that would be exposed. Rejects as readHeldKeys. */
  readonly heldKeys: Fact<readonly HeldKey[]>;
  /** The agent as connect makes it. Nothing is unlocked. */
  readonly agent: Fact<AgentPort>;
}

/** Nothing is looked at before it is asked for. */
export function createTokenFacts({ options, signal, log, defer, chooseKey, loadTimeoutMs }: DoctorGround): TokenFacts {
  const seen = lazily(() => held(defer, discoverModules({ objects: false, signal, log }), () => {}));
  const module = lazily(async () => options.module ?? chooseModule(options.token, await seen()));
  const host = lazily(async () => {
    const { pinSource, holdMs } = options;
    const limit = loadTimeoutMs === undefined ? {} : { loadTimeoutMs };
    const modulePath = await module();
    const opening = createTokenHost({ modulePath, pinSource, holdMs, signal, log, ...limit });
    return held(defer, opening, (opened) => opened.close());
  });
  const inspection = lazily(async () => inspectToken(await host(), options.token, signal));
  const key = lazily(async () => chooseKey(options.key, await inspection(), signal));
  const heldKeys = lazily(async () => readHeldKeys(await host(), await inspection(), await key(), signal));
  const agent = lazily(async () => {
    const { token, profile, allowRawRsa, pinSource } = options;
    const pinMode = pinSource.kind === "client" ? "client" : "ask";
    const parts = { host: await host(), key: await key(), inspection: await inspection() };
    return held(defer, createAgent({ ...parts, token, profile, allowRawRsa, pinMode }), (made) => made.close());
  });
  return { seen, module, host, inspection, key, heldKeys, agent };
}
