/*
 * A TCP port of loopback that was free a moment ago. Another process may take it before it is used: whoever asks must be ready
 * to ask again.
 */
import { createServer } from "node:net";

/** See the head comment. */
export async function freePort(): Promise<number> {
  const server = createServer();
  await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
  const address = server.address();
  await new Promise<void>((resolve) => server.close(() => resolve()));
  if (address === null || typeof address === "string") throw new Error("no port");
  return address.port;
}
