/*
 * Gets to the socket from the bastion's side, to verify it: through sshd, else through a program that is already there.
 * It must never take a way that does not work for a socket that does not.
 */

import type { Duplex } from "node:stream";
import { TokenfwdError } from "../base/errors.js";
import { printable, shellWord } from "../base/printable.js";
import { type BridgeTool, openBridge } from "./remote/bridge.js";
import type { Outcome, Transport } from "./transport.js";
import type { ForwardService, ForwardUi } from "./types.js";
import { type NonceWatch, type Verification, verifyStream } from "./verify.js";

const PREFERENCE: readonly BridgeTool[] = ["nc", "socat", "perl", "python3"];

interface PlaceVerification {
  /** null: nothing lets us look from there, and `why` says what is missing. */
  readonly result: Verification | null;
  /** `direct-streamlocal`, or the program. */
  readonly via: string;
  readonly why: string;
}

/** What it takes to get to a socket from the bastion's side. */
export interface WayIn {
  readonly transport: Transport;
  readonly tools: readonly BridgeTool[];
  readonly path: string;
  /** Whether a program can run beside what runs already. */
  readonly mayExec: boolean;
}

export interface ProofDeps extends WayIn {
  readonly watch: NonceWatch;
  readonly service: Pick<ForwardService, "expectedSlots" | "offerVersion">;
  readonly ui: Pick<ForwardUi, "event">;
  readonly warn: (text: string) => void;
}

/**
 * Fails unless the socket leads here; not passed only where nothing lets us look from the bastion's side.
 * @throws TokenfwdError E_NOT_VERIFIED, E_SOCKET_FOREIGN
 */
export async function provePlace({ watch, service, ui, warn, ...wayIn }: ProofDeps): Promise<Verification & { readonly via: string }> {
  const { path } = wayIn;
  const slots = await service.expectedSlots();
  const { result, via, why } = await verifyPlace(wayIn, watch, slots, service.offerVersion);
  if (result === null) {
    ui.event("verify", { verified: "no", reason: why });
    warn(`the socket could not be verified from the bastion: ${why}`);
    return { passed: false, answered: false, foreign: false, reason: why, via };
  }
  if (result.passed) {
    ui.event("verify", { verified: "rpc", via, rttMs: result.rttMs });
    return { ...result, via };
  }
  if (result.foreign) {
    throw new TokenfwdError("E_SOCKET_FOREIGN", `somebody else answers on ${printable(path)}: ${result.reason}`, {
      hint: `find out who listens there (on the bastion: fuser ${shellWord(path)})`,
      reason: "socket-foreign",
    });
  }
  throw new TokenfwdError("E_NOT_VERIFIED", `the socket on the bastion does not lead to this agent: ${result.reason}`, {
    hint: "connect again; if it stays, run with TOKENFWD_LOG set and report it",
    reason: "not-verified",
  });
}

/** A connection to a socket that has been proved: through sshd, else through the first program that starts. */
export async function reachPlace({ transport, tools, path, mayExec }: WayIn): Promise<Outcome<Duplex>> {
  let outcome = await transport.openRemote(path);
  for (const tool of mayExec ? PREFERENCE : []) {
    if (outcome.ok) break;
    if (!tools.includes(tool)) continue;
    const bridge = await openBridge(transport, tool, path);
    if ("stream" in bridge) outcome = { ok: true, value: bridge.stream };
  }
  return outcome;
}

/** Verifies the socket, by the first way that leads to it. */
async function verifyPlace(
  { transport, tools, path, mayExec }: WayIn,
  watch: NonceWatch,
  slots: readonly bigint[],
  offerVersion: 0 | 2 = 2,
): Promise<PlaceVerification> {
  const opened = await transport.openRemote(path);
  if (opened.ok) return { result: await verifyStream(opened.value, watch, slots, offerVersion), via: "direct-streamlocal", why: "" };
  const closedWay = "sshd does not open the socket for us (AllowStreamLocalForwarding remote, or AllowTcpForwarding remote)";
  if (!mayExec) return { result: null, via: "none", why: `${closedWay}, and MaxSessions 1 leaves no room for another way` };
  let last: PlaceVerification | null = null;
  const refusals: string[] = [];
  for (const tool of PREFERENCE.filter((one) => tools.includes(one))) {
    const bridge = await openBridge(transport, tool, path);
    if ("reason" in bridge) {
      refusals.push(bridge.reason);
      continue;
    }
    last = { result: await verifyStream(bridge.stream, watch, slots, offerVersion), via: tool, why: "" };
    // A program that cannot do it (an nc without -U) says nothing about the socket; only an answer ends the search.
    if (last.result?.passed === true || last.result?.answered === true) break;
  }
  if (last !== null) return last;
  const missing = refusals.length === 0 ? ", and the bastion has none of nc, socat, perl, python3" : `; ${refusals.join("; ")}`;
  return { result: null, via: "none", why: `${closedWay}${missing}` };
}
