/*
 * A socket that passes everything on to another one and writes down what went which way, for tests that count trips or look
 * for a secret on the wire. It must be disposed of by whoever made it.
 */
import { mkdtempSync, rmSync } from "node:fs";
import { connect, createServer, type Socket } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";

export interface TappedConnection {
  readonly sent: { readonly from: "client" | "server"; readonly bytes: Buffer }[];
}

export interface TapProxy {
  readonly socket: string;
  readonly connections: readonly TappedConnection[];
  /** Ends every connection at both sides; new ones are taken. */
  cut(): void;
  dispose(): Promise<void>;
}

/** How often the direction changed from the client to the server and back: what each connection costs over a long link. */
export function roundTrips(connection: TappedConnection): number {
  return connection.sent.filter(({ from }, index) => from === "server" && connection.sent[index - 1]?.from === "client").length;
}

/** Listens in a temporary directory of its own. */
export async function createTapProxy(target: string): Promise<TapProxy> {
  const dir = mkdtempSync(join(tmpdir(), "tokenfwd-tap-"));
  const socket = join(dir, "s");
  const connections: TappedConnection[] = [];
  const open = new Set<Socket>();
  const server = createServer({ allowHalfOpen: true }, (client) => {
    const connection: TappedConnection = { sent: [] };
    connections.push(connection);
    const upstream = connect({ path: target, allowHalfOpen: true });
    for (const [from, here, there] of [["client", client, upstream] as const, ["server", upstream, client] as const]) {
      open.add(here);
      here.on("error", () => there.destroy());
      here.on("data", (bytes: Buffer) => {
        connection.sent.push({ from, bytes: Buffer.from(bytes) });
        there.write(bytes);
      });
      here.on("end", () => there.end());
      here.on("close", () => {
        open.delete(here);
        there.destroy();
      });
    }
  });
  await new Promise<void>((resolve) => server.listen(socket, resolve));
  const cut = (): void => {
    for (const each of open) each.destroy();
  };
  return {
    socket,
    connections,
    cut,
    async dispose() {
      cut();
      await new Promise<void>((resolve) => server.close(() => resolve()));
      rmSync(dir, { recursive: true, force: true });
    },
  };
}
