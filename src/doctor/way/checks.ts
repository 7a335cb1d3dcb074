/*
 * The checks of the way to the bastion and of the bastion's side, seen from the workstation, in their order.
 */
import type { Check } from "../check.js";
import type { DoctorContext } from "../context.js";
import { addressCheck } from "./address.js";
import { forwardCheck } from "./forward.js";
import { handshakeCheck } from "./handshake.js";
import { hostKeyCheck } from "./host-key.js";
import { latencyCheck } from "./latency.js";
import { loginCheck } from "./login.js";
import { loginShellCheck } from "./login-shell.js";
import { p11KitCheck } from "./p11-kit.js";
import { pathCheck } from "./path.js";
import { remoteShellCheck } from "./remote-shell.js";
import { resolveCheck } from "./resolve.js";
import { runtimeDirCheck } from "./runtime-dir.js";
import { sessionsCheck } from "./sessions.js";
import { signatureCheck } from "./signature.js";
import { socketCheck } from "./socket.js";
import { sshConfigCheck } from "./ssh-config.js";
import { staleForwardCheck } from "./stale-forward.js";
import { stockMechanismsCheck } from "./stock-mechanisms.js";
import { tcpCheck } from "./tcp.js";
import { terminalCheck } from "./terminal.js";
import { verifyCheck } from "./verify.js";
import { wellKnownCheck } from "./well-known.js";

export const WAY_CHECKS: readonly Check<DoctorContext>[] = [
  sshConfigCheck,
  staleForwardCheck,
  resolveCheck,
  tcpCheck,
  handshakeCheck,
  hostKeyCheck,
  loginCheck,
  remoteShellCheck,
  loginShellCheck,
  sessionsCheck,
  p11KitCheck,
  addressCheck,
  runtimeDirCheck,
  wellKnownCheck,
  pathCheck,
  socketCheck,
  forwardCheck,
  verifyCheck,
  terminalCheck,
  latencyCheck,
  stockMechanismsCheck,
  signatureCheck,
];
