import { once } from "node:events";
import { connect } from "node:net";
import type { Duplex } from "node:stream";
import { describe, expect, it } from "vitest";
import { hostPort, type Loopback, listenLoopback } from "../../../src/choria/loopback.js";

/** Listens on a free port and answers the first stream that comes as well. */
async function listening(options: { host?: string; maxConnections?: number } = {}) {
  const streams: Duplex[] = [];
  let came: (stream: Duplex) => void = () => {};
  const first = new Promise<Duplex>((resolve) => {
    came = resolve;
  });
  const loopback = await listenLoopback({ host: "127.0.0.1", port: 0, ...options }, (stream) => {
    streams.push(stream);
    came(stream);
  });
  return { loopback, streams, first };
}

describe("listenLoopback", () => {
  it("hands over each connection as a stream, and says which free port it got", async () => {
    const { loopback, first } = await listening();
    try {
      expect(loopback.port).toBeGreaterThan(0);
      const client = connect(loopback.port, loopback.host);
      client.end("hello");
      const stream = await first;
      expect(String((await once(stream, "data"))[0])).toBe("hello");
      // The other half is still ours.
      stream.end("bye");
      expect(String((await once(client, "data"))[0])).toBe("bye");
    } finally {
      await loopback.close();
    }
  });

  it.each(["0.0.0.0", "::", "192.0.2.1", "localhost", "127.0.0.1.example.net", "127.1", "127.0.0.999", "", "::ffff:127.0.0.1"])(
    "listens on no other address: %s",
    async (host) => {
      await expect(listenLoopback({ host, port: 0 }, () => undefined)).rejects.toMatchObject({
        code: "E_USAGE",
        message: expect.stringContaining("is no loopback address"),
      });
    },
  );

  it("says that a port is taken, and how to get another", async () => {
    const { loopback } = await listening();
    try {
      await expect(listenLoopback({ host: "127.0.0.1", port: loopback.port }, () => undefined)).rejects.toMatchObject({
        code: "E_CHORIA",
        message: `cannot listen on 127.0.0.1:${loopback.port}: another program listens there`,
        hint: "leave the port out, and a free one is taken",
      });
    } finally {
      await loopback.close();
    }
  });

  it("ends every connection when it closes, and may be closed twice", async () => {
    const { loopback, first } = await listening();
    const client = connect(loopback.port, loopback.host);
    client.on("error", () => undefined);
    await first;
    const ended = once(client, "close");
    await Promise.all([loopback.close(), loopback.close(), ended]);
    await expect(reach(loopback)).rejects.toMatchObject({ code: "ECONNREFUSED" });
  });

  it("closes a connection too many at once", async () => {
    const { loopback, streams, first } = await listening({ maxConnections: 1 });
    try {
      const kept = connect(loopback.port, loopback.host);
      await first;
      const extra = connect(loopback.port, loopback.host);
      await once(extra, "close");
      expect(streams).toHaveLength(1);
      kept.destroy();
    } finally {
      await loopback.close();
    }
  });

  it("writes an address the way URLs have it", () => {
    expect(hostPort({ host: "127.0.0.1", port: 1 })).toBe("127.0.0.1:1");
    expect(hostPort({ host: "::1", port: 4222 })).toBe("[::1]:4222");
  });
});

async function reach({ host, port }: Loopback): Promise<void> {
  await once(connect(port, host), "connect");
}
