/*
 * A server of ours over a client of ours over somebody's p11-kit server: what a program sees through it has passed through
 * every line of our client. For tests alone. It must end every connection it made when it is closed.
 */
import { mkdtempSync, rmSync } from "node:fs";
import { connect, createServer, type Socket } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { LOCAL_ORIGIN } from "../../src/cryptoki/local-context.js";
import { createP11KitClient } from "../../src/wire/p11kit/client.js";
import { createP11KitServer } from "../../src/wire/p11kit/server.js";

export interface Relay {
  readonly socket: string;
  readonly address: string;
  /** Calls that went through so far. */
  readonly calls: number;
  close(): Promise<void>;
}

/** Listens in a directory of its own; each connection gets one of its own to the server at `path`. */
export async function startRelay(path: string): Promise<Relay> {
  const dir = mkdtempSync(join(tmpdir(), "tfwd-relay-"));
  const socket = join(dir, "s");
  const open = new Set<Socket>();
  let calls = 0;
  const own = (one: Socket): Socket => {
    open.add(one);
    one.on("error", () => one.destroy());
    one.once("close", () => open.delete(one));
    return one;
  };
  const listening = createServer((given) => {
    const program = own(given);
    const stock = own(connect({ path }));
    const client = createP11KitClient({ write: (bytes) => void stock.write(bytes), end: () => stock.end() });
    stock.on("data", (chunk: Buffer) => client.push(chunk));
    stock.once("close", () => client.closed());
    const counted: typeof client.call = (name, args, ctx) => {
      calls++;
      return client.call(name, args, ctx);
    };
    const server = createP11KitServer({
      cryptoki: { call: counted, events: client.events, close: () => client.close() },
      client: "relay",
      origin: { ...LOCAL_ORIGIN, connectId: "relay" },
      write: (bytes) => void program.write(bytes),
      onViolation: () => program.destroy(),
    });
    program.on("data", (chunk: Buffer) => server.push(chunk));
    program.once("close", () => {
      server.end();
      void client.close();
      stock.destroy();
    });
  });
  await new Promise<void>((resolve) => listening.listen(socket, resolve));
  return {
    socket,
    address: `unix:path=${socket}`,
    get calls() {
      return calls;
    },
    async close() {
      const closed = new Promise<void>((resolve) => listening.close(() => resolve()));
      for (const one of open) one.destroy();
      await closed;
      rmSync(dir, { recursive: true, force: true });
    },
  };
}
