/*
 * The way to the bastion: straight, or through one jump host, which is connected, checked and logged in to as the bastion is. It
 * must never leave the connection to a jump host open when the one through it has ended.
 */
import { connect as dial } from "node:net";
import { TokenfwdError } from "../../base/errors.js";
import { printable } from "../../base/printable.js";
import type { SshSettings } from "../ssh-settings.js";
import type { Transport } from "../transport.js";
import type { ForwardUi } from "../types.js";
import { connectOver, type Ssh2Options } from "./transport.js";

const FAMILIES = { any: 0, inet: 4, inet6: 6 } as const;

/**
 * Connects, checks the host key, logs in; the jump host's first, if there is one.
 * @throws TokenfwdError E_SSH, E_SSH_AUTH, E_SSH_UNSUPPORTED, E_HOST_KEY_*, E_INTERRUPTED
 */
export async function connectSsh2(options: Omit<Ssh2Options, "below">): Promise<Transport> {
  const { settings, ui, signal } = options;
  if (settings.jump === null) return await connectOver(() => tcp(settings), options);
  const jump = await connectSsh2({ settings: settings.jump, ui: jumpUi(ui), signal });
  // A jump host that keeps silent holds nobody up who wants to leave.
  const leave = () => void jump.end();
  signal.addEventListener("abort", leave, { once: true });
  if (signal.aborted) leave();
  try {
    await keepQuick(jump);
    const opened = await jump.openTcp(settings.host, settings.port);
    if (!opened.ok) {
      if (signal.aborted) throw new TokenfwdError("E_INTERRUPTED", "interrupted");
      const lost = opened.refused === "closed" ? await jump.closed : null;
      if (lost !== null) throw lost;
      const where = `${printable(settings.host)} port ${settings.port}`;
      throw new TokenfwdError("E_SSH", `the jump host ${printable(settings.jump.host)} does not reach ${where}: ${opened.reason}`, {
        hint: "check the name as the jump host sees it, and AllowTcpForwarding and PermitOpen in its sshd_config",
        reason: "jump-refused",
      });
    }
    const transport = await connectOver(() => opened.value, { ...options, below: jump.closed });
    void transport.closed.then(() => jump.end());
    return {
      ...transport,
      async end() {
        await transport.end();
        await jump.end();
      },
    };
  } catch (error) {
    await jump.end();
    throw error;
  } finally {
    signal.removeEventListener("abort", leave);
  }
}

function tcp(settings: SshSettings) {
  return dial({
    host: settings.host,
    port: settings.port,
    family: FAMILIES[settings.addressFamily],
    ...(settings.bindAddress === null ? {} : { localAddress: settings.bindAddress }),
    // From the first byte on: each delayed packet of the handshake and the login costs 40 ms.
    noDelay: true,
  });
}

/** An idle terminal, without which the jump host's sshd holds small packets back. Where it gives none, it is slower and works. */
async function keepQuick(jump: Transport): Promise<void> {
  const idle = await jump.exec("exec cat", { pty: { cols: 80, rows: 24, term: "dumb" } });
  if (!idle.ok) return;
  idle.value.stream.on("error", () => {}).resume();
  idle.value.stderr.on("error", () => {}).resume();
}

/** What happens at the jump host is told with `jump: true`, because the bastion's own is what counts. */
function jumpUi(ui: ForwardUi): ForwardUi {
  return {
    confirmHostKey: (question) => ui.confirmHostKey(question),
    askPassphrase: (path) => ui.askPassphrase(path),
    askLogin: (question) => ui.askLogin(question),
    event: (name, data) => ui.event(name, { ...data, jump: true }),
  };
}
