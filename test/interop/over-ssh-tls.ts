/*
 * An `openssl s_server` on loopback that speaks TLS 1.3 only and lets nobody in without a certificate of the given CA. It takes
 * one connection and ends; it must be disposed of even so, and never listens on anything but loopback.
 */
import { type ChildProcess, execFile, spawn } from "node:child_process";
import { join } from "node:path";
import { promisify } from "node:util";

const execute = promisify(execFile);

export interface TlsServerOptions {
  /** Where its key and certificate are made; the caller's, as is its removal. */
  readonly dir: string;
  /** The CA whose clients it takes, and which signs its own certificate. */
  readonly caFile: string;
  readonly caKeyFile: string;
}

export interface TlsServer extends AsyncDisposable {
  readonly port: number;
  /** All that it said, once its one connection has ended. */
  readonly report: Promise<string>;
}

/** Starts the server for `CN=localhost` on a free port. */
export async function startTlsServer({ dir, caFile, caKeyFile }: TlsServerOptions): Promise<TlsServer> {
  const key = join(dir, "tls-server.key");
  const certificate = join(dir, "tls-server.crt");
  const made = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-keyout", key, "-out", certificate];
  await execute("openssl", ["req", "-x509", ...made, "-subj", "/CN=localhost", "-days", "1", "-CA", caFile, "-CAkey", caKeyFile]);
  const words = ["s_server", "-accept", "127.0.0.1:0", "-naccept", "1", "-tls1_3", "-cert", certificate, "-key", key];
  // Its standard input stays open: at its end the server hangs up.
  const child: ChildProcess = spawn("openssl", [...words, "-CAfile", caFile, "-Verify", "1", "-verify_return_error"], {
    stdio: ["pipe", "pipe", "pipe"],
  });
  let said = "";
  const report = new Promise<string>((resolve, reject) => {
    child.once("error", reject);
    child.once("close", () => resolve(said));
  });
  report.catch(() => undefined); // whoever only disposes of it does not read it
  const port = new Promise<number>((resolve, reject) => {
    for (const stream of [child.stdout, child.stderr]) {
      stream?.setEncoding("utf8").on("data", (text: string) => {
        said += text;
        const found = /ACCEPT 127\.0\.0\.1:(\d+)/.exec(said);
        if (found) resolve(Number(found[1]));
      });
    }
    report.then((text) => reject(new Error(`s_server did not start: ${text}`)), reject);
  });
  return {
    port: await port,
    report,
    async [Symbol.asyncDispose]() {
      child.kill("SIGKILL");
      await report.catch(() => undefined);
    },
  };
}
