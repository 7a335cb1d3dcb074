/*
 * The facts of the way to the bastion, by the functions that connect itself uses: one connection, on which everything is
 * looked at. It must never write a host key down, and never leave anything on the bastion.
 */
import { randomBytes } from "node:crypto";
import type { Duplex } from "node:stream";
import { TokenfwdError } from "../../base/errors.js";
import { workstationId } from "../../base/paths.js";
import type { Origin } from "../../cryptoki/types.js";
import { checkClientSide, connectBastion } from "../../forward/forward.js";
import type { BastionFiles } from "../../forward/remote/command-files.js";
import type { Place } from "../../forward/remote/place.js";
import type { Pulse } from "../../forward/remote/pulse.js";
import type { Survey } from "../../forward/remote/survey.js";
import { resolveSshSettings, type SshSettings } from "../../forward/ssh-settings.js";
import type { ForwardService, SeenBastion } from "../../forward/types.js";
import type { Verification } from "../../forward/verify.js";
import type { DoctorGround } from "../context.js";
import { type Fact, held, lazily } from "../lazy.js";
import type { TokenFacts } from "../workstation/facts.js";
import { type AgentSide, openAgentSide } from "./agent-side.js";
import { emptyService } from "./empty-service.js";
import { createOwnStreams } from "./own-streams.js";

/** What was told on the way, as the events of connect say it. */
export interface LoginStory {
  /** `SHA256:...` of the bastion's key; null before it was accepted. */
  readonly hostKey: string | null;
  /** Whether known_hosts had it. */
  readonly known: boolean;
  /** What was tried, in words. */
  readonly tried: readonly string[];
}

/** Through sshd, and the four programs that may do it in its place. */
const MOST_WAYS = 5;
/** From a connection there to its stream here. */
const ARRIVAL_MS = 10_000;

/** The proof of the socket. `behind`: what answered it, our agent or a server without a token. */
export type Proof = Verification & { readonly via: string; readonly behind: "agent" | "nothing" };

export interface WayFacts {
  /** What ssh would do. Rejects as resolveSshSettings and checkClientSide. */
  readonly settings: Fact<SshSettings>;
  /** Connected, logged in and looked at. Rejects as connectBastion. */
  readonly bastion: Fact<SeenBastion>;
  /** Holds what there is so far. */
  story(): LoginStory;
  /** What else lies there. */
  readonly survey: Fact<Survey>;
  /** The directory of our socket. Rejects as BastionSteps.claim. */
  readonly place: Fact<Place>;
  /** sshd has made the socket. Rejects as BastionSteps.listen. */
  readonly listening: Fact<void>;
  /** The socket was called from the bastion's side. Rejects as BastionSteps.prove. */
  readonly proof: Fact<Proof>;
  /** How long the way is; null where that cannot be measured. */
  readonly pulse: Fact<Pulse | null>;
  /** Another stream from the bastion's side. Rejects with E_NOT_VERIFIED. */
  dial(): Promise<Duplex>;
  /** A client of our own at the bastion's end of the socket. Rejects with a TokenfwdError. */
  readonly agentSide: Fact<AgentSide>;
  /** Who asks: the origin that connect would give to streams of this forward. */
  readonly origin: Fact<Omit<Origin, "connectId">>;
}

/** Nothing is looked at before it is asked for. */
export function createWayFacts({ options, signal, ask, defer }: DoctorGround, token: TokenFacts): WayFacts {
  const connectId = randomBytes(8).toString("hex");
  const tried: string[] = [];
  let hostKey: string | null = null;
  let known = true;
  const own = createOwnStreams();
  let lost: Promise<never> | null = null;
  /** Rejects with the connection's end when that comes first: whatever broke by it says the same. */
  const unlessLost = async <T>(work: () => Promise<T>): Promise<T> => await Promise.race(lost === null ? [work()] : [lost, work()]);
  const settings = lazily(async () => {
    const resolved = await resolveSshSettings(options.destination ?? "", { ...options.ssh, signal });
    await checkClientSide(resolved);
    return resolved;
  });
  const bastion = lazily(async () => {
    const reaching = {
      settings: withoutTraces(await settings()),
      workstationId: workstationId(),
      connectId,
      ui: {
        ...ask,
        confirmHostKey: async () => false,
        event(name: string, data: Record<string, unknown>) {
          if (data["jump"] === true) return;
          if (name === "hostkey") {
            hostKey = String(data["hostKey"]);
            known = data["known"] === true;
          }
          if (name === "auth" && data["method"] !== undefined) tried.push(`${data["method"]} ${data["key"]}`.trim());
        },
      },
      signal,
      requirePty: false,
    };
    const reached = await held(defer, connectBastion(reaching), (late) => late.close());
    lost = reached.lost.then((error): never => {
      throw error;
    });
    lost.catch(() => {});
    const { login, present, read } = reached.files;
    const files: BastionFiles = {
      login: (program) => unlessLost(() => login(program)),
      present: (paths) => unlessLost(() => present(paths)),
      read: (path, maxBytes) => unlessLost(() => read(path, maxBytes)),
    };
    return { ...reached, files };
  });
  const origin = lazily(async () => {
    const { user, host, port } = await settings();
    return { kind: "forward" as const, destination: options.destination ?? "", user, host, port, hostKeySha256: hostKey };
  });
  const step = async <T>(take: (steps: SeenBastion["steps"]) => Promise<T>): Promise<T> => {
    const { steps } = await bastion();
    return await unlessLost(() => take(steps));
  };
  const service = lazily(async (): Promise<{ readonly behind: Proof["behind"]; readonly service: ForwardService }> => {
    try {
      const [agent, from] = [await token.agent(), await origin()];
      const attach: ForwardService["attach"] = (stream) => agent.attach(stream, from, connectId);
      return { behind: "agent", service: own.guard({ attach, expectedSlots: () => agent.slots() }) };
    } catch {
      // What is wrong with the token is the finding of other checks; the way is looked at all the same.
      signal.throwIfAborted();
      return { behind: "nothing", service: own.guard(emptyService()) };
    }
  });
  const place = lazily(() => step((steps) => steps.claim()));
  const listening = lazily(async () => {
    await place();
    const offered = (await service()).service;
    await step((steps) => steps.listen(offered));
  });
  const proof = lazily(async () => {
    await listening();
    const offered = await service();
    const verification = await own.expecting(MOST_WAYS, () => step((steps) => steps.prove(offered.service)));
    // One of them may be somebody else's, who would wait there for the log-in.
    own.drop();
    return { ...verification, behind: offered.behind };
  });
  const dial = async (): Promise<Duplex> => {
    return await own.expecting(1, async () => {
      const outcome = await step((steps) => steps.dial());
      // The stream there may be open before its other end has come here.
      if (outcome.ok && (await own.arrived(ARRIVAL_MS))) return outcome.value;
      if (outcome.ok) outcome.value.destroy();
      const why = outcome.ok ? `nothing came in ${ARRIVAL_MS / 1000} s` : outcome.reason;
      throw new TokenfwdError("E_NOT_VERIFIED", `the socket on the bastion cannot be opened from there: ${why}`, {
        hint: "run it again",
        reason: "not-verified",
      });
    });
  };
  const agentSide = lazily(async () => {
    const stream = await dial();
    return held(defer, openAgentSide(stream, signal), (opened) => opened.close());
  });
  return {
    settings,
    bastion,
    story: () => ({ hostKey, known, tried }),
    survey: lazily(() => step((steps) => steps.survey())),
    pulse: lazily(() => step((steps) => steps.pulse())),
    place,
    listening,
    proof,
    dial,
    agentSide,
    origin,
  };
}

/** The first of the files is the one to which a key is added that the configuration lets pass: nothing is kept there. */
function withoutTraces(settings: SshSettings): SshSettings {
  const { jump, userKnownHostsFiles } = settings;
  return { ...settings, userKnownHostsFiles: ["/dev/null", ...userKnownHostsFiles], jump: jump === null ? null : withoutTraces(jump) };
}
