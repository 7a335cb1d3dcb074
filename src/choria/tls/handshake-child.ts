/*
 * The process that makes one TLS handshake with the token's key and hands back a session to resume. It exists because OpenSSL's
 * engine holds up the whole process while the token waits for a touch, and ends it when a log-in is refused.
 *
 * Node looks at the broker's certificate only when the handshake is over, which is after the key has signed. So the broker is
 * checked here in between: a client that asks for a stapled OCSP answer is told of it, or that there is none, once the
 * broker's flight is complete and before its own signature. A stranger is not refused but fled from: the process kills
 * itself, for OpenSSL would go on to sign whatever a listener says (docs/adr/0006). It must never outlive its parent.
 */
import { writeSync } from "node:fs";
import { isIP, Socket } from "node:net";
import { checkServerIdentity, connect, createSecureContext, type SecureContext, type TLSSocket } from "node:tls";
import { createLineSplitter, type HandshakeOrder, type HandshakeReport, type TlsFailure } from "./messages.js";

/** The broker's ciphertext. */
export const CIPHER_FD = 3;
/** Order and reports. */
export const CONTROL_FD = 4;
/** The PIN, where the other end wants it from this side: read by the engine itself. */
export const PIN_FD = 5;

const MAX_ORDER_BYTES = 1024 * 1024;

/** At once, for the next thing may be that the process is killed or waits for the token. */
function report(message: HandshakeReport): void {
  writeSync(CONTROL_FD, `${JSON.stringify(message)}\n`);
}

function failureOf(thrown: unknown): TlsFailure {
  if (!(thrown instanceof Error)) return { code: "", message: String(thrown) };
  const { code, opensslErrorStack } = thrown as NodeJS.ErrnoException & { opensslErrorStack?: readonly string[] };
  return { code: code ?? "", message: [thrown.message, ...(opensslErrorStack ?? [])].join("; ") };
}

/** Why the peer is not the broker that it should be; null when it is. */
function strangerFault(socket: TLSSocket, host: string): TlsFailure | null {
  // What Node itself asks when the handshake is over; `authorized` is not set before that.
  const handle = (socket as unknown as { readonly _handle?: { verifyError?(): Error | null | undefined } | null })._handle;
  if (handle === null || handle === undefined || typeof handle.verifyError !== "function")
    return { code: "", message: "this Node does not say whether the certificate is good" };
  const chain = handle.verifyError();
  if (chain !== null && chain !== undefined) return failureOf(chain);
  const name = checkServerIdentity(host, socket.getPeerCertificate(true));
  return name === undefined ? null : failureOf(name);
}

function makeHandshake(context: SecureContext, host: string): void {
  const cipher = new Socket({ fd: CIPHER_FD, readable: true, writable: true });
  const options = { socket: cipher, secureContext: context, host, rejectUnauthorized: true, requestOCSP: true };
  const socket = connect({ ...options, servername: isIP(host) === 0 ? host : "" });
  let isVerified = false;
  let isOver = false;
  const end = (message: HandshakeReport): void => {
    if (isOver) return;
    isOver = true;
    report(message);
    process.exit(0);
  };
  socket.once("OCSPResponse", () => {
    const fault = strangerFault(socket, host);
    if (fault === null) {
      isVerified = true;
      report({ kind: "verified" });
      return;
    }
    try {
      report({ kind: "stranger", ...fault });
    } finally {
      process.kill(process.pid, "SIGKILL");
    }
  });
  socket.once("secureConnect", () => {
    if (!isVerified) end({ kind: "failed", code: "", message: "the handshake went on before the broker was checked" });
    else report({ kind: "secure" });
  });
  // A TLS 1.2 session comes before secureConnect, and before the broker has said that it accepts us.
  socket.on("session", (session: Buffer) => {
    const give = (): void => end({ kind: "ticket", session: session.toString("base64"), validTo: socket.getPeerCertificate().valid_to });
    if (socket.authorized) give();
    else socket.once("secureConnect", give);
  });
  socket.once("error", (error) => end({ kind: "failed", ...failureOf(error) }));
  socket.once("close", () => end({ kind: "failed", code: "ECONNRESET", message: "the broker hung up" }));
  socket.resume();
}

/** Runs on the descriptors of this process and ends it. */
export function runHandshakeChild(): Promise<never> {
  const control = new Socket({ fd: CONTROL_FD, readable: true, writable: false });
  const split = createLineSplitter(MAX_ORDER_BYTES);
  let context: SecureContext | null = null;
  let host = "";
  const take = (line: string): void => {
    if (context !== null) {
      makeHandshake(context, host);
      return;
    }
    const order = JSON.parse(line) as HandshakeOrder;
    host = order.host;
    try {
      context = createSecureContext({
        ca: order.caPem,
        cert: order.certificatePem,
        privateKeyEngine: "pkcs11",
        // The engine reads the PIN itself, so that no string of it lies in this heap.
        privateKeyIdentifier: order.hasPin ? `${order.keyUri}?pin-source=file:/dev/fd/${PIN_FD}` : order.keyUri,
        minVersion: "TLSv1.2",
      });
      report({ kind: "loaded" });
    } catch (thrown) {
      report({ kind: "failed", ...failureOf(thrown) });
      process.exit(0);
    }
  };
  control.on("data", (chunk: Buffer) => {
    for (const line of split(chunk)) take(line);
  });
  for (const ending of ["end", "close", "error"]) control.on(ending, () => process.exit(0));
  return new Promise(() => {});
}
