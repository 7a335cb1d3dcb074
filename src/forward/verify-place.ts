/*
 * Gets to the socket from the bastion's side, to verify it: through sshd, else through a program that is already there.
 * It must never take a way that does not work for a socket that does not.
 */
import { type BridgeTool, openBridge } from "./remote/bridge.js";
import type { Transport } from "./transport.js";
import { type NonceWatch, type Verification, verifyStream } from "./verify.js";

const PREFERENCE: readonly BridgeTool[] = ["nc", "socat", "perl", "python3"];

export interface PlaceVerification {
  /** null: nothing lets us look from there, and `why` says what is missing. */
  readonly result: Verification | null;
  /** `direct-streamlocal`, or the program. */
  readonly via: string;
  readonly why: string;
}

/** Verifies the socket at `path`. `mayExec`: whether a program can run beside what runs already. */
export async function verifyPlace(
  transport: Transport,
  tools: readonly BridgeTool[],
  path: string,
  watch: NonceWatch,
  slots: readonly bigint[],
  mayExec: boolean,
): Promise<PlaceVerification> {
  const opened = await transport.openRemote(path);
  if (opened.ok) return { result: await verifyStream(opened.value, watch, slots), via: "direct-streamlocal", why: "" };
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
    last = { result: await verifyStream(bridge.stream, watch, slots), via: tool, why: "" };
    // A program that cannot do it (an nc without -U) says nothing about the socket; only an answer ends the search.
    if (last.result?.passed === true || last.result?.answered === true) break;
  }
  if (last !== null) return last;
  const missing = refusals.length === 0 ? ", and the bastion has none of nc, socat, perl, python3" : `; ${refusals.join("; ")}`;
  return { result: null, via: "none", why: `${closedWay}${missing}` };
}
