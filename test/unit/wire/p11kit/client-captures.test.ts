/*
 * Conversations of stock clients and servers of three releases, held again by our client: it asks what the stock client asked, in
 * the form that the server's version takes, and understands the stock server's recorded answers.
 */
import { readdirSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { describe, expect, it } from "vitest";
import { CKR } from "../../../../src/cryptoki/rv.js";
import type { AnyResult, CallContext } from "../../../../src/cryptoki/types.js";
import { createP11KitClient } from "../../../../src/wire/p11kit/client.js";
import { createFrameDecoder, encodeFrame, type Frame } from "../../../../src/wire/p11kit/frame.js";
import { DEFAULT_LIMITS } from "../../../../src/wire/p11kit/limits.js";
import { type Dialect, dialectOfVersion } from "../../../../src/wire/p11kit/mechanisms.js";
import { decodeRequest } from "../../../../src/wire/p11kit/requests.js";
import { decodeResponse } from "../../../../src/wire/p11kit/responses.js";
import { TEST_ORIGIN } from "../../../support/wire-peers.js";

interface Conversation {
  readonly name: string;
  readonly client: string;
  readonly server: string;
  readonly dialect: Dialect;
  readonly frames: readonly { readonly dir: "request" | "response"; readonly hex: string }[];
}

const DIRECTORY = join(import.meta.dirname, "../../../../protocol/vectors/p11kit");
const conversations = readdirSync(DIRECTORY)
  .filter((file) => /^\d\d-.*\.json$/.test(file))
  .map((file) => JSON.parse(readFileSync(join(DIRECTORY, file), "utf8")) as Conversation);

function frameOf(hex: string): Frame {
  const frames: Frame[] = [];
  createFrameDecoder({ ...DEFAULT_LIMITS, onFrame: (frame) => frames.push(frame) }).push(Buffer.from(hex, "hex"));
  const [frame] = frames;
  if (frame === undefined) throw new Error("no frame");
  return frame;
}

describe("the recorded conversations", () => {
  it("are of servers of three releases, in both dialects", () => {
    expect(conversations.length).toBeGreaterThan(20);
    expect(new Set(conversations.map(({ dialect }) => dialect)).size).toBe(2);
    expect(new Set(conversations.map(({ server }) => server)).size).toBeGreaterThanOrEqual(3);
  });

  it.each(conversations.map((one) => [one.name, one] as const))("%s is held again", async (_, { dialect, frames }) => {
    const [offered, answered, ...calls] = frames;
    expect([offered?.dir, answered?.dir, dialectOfVersion(Number.parseInt(offered?.hex ?? "", 16))]).toEqual([
      "request",
      "response",
      dialect,
    ]);
    const version = Number.parseInt(answered?.hex ?? "", 16);
    const written: Buffer[] = [];
    const client = createP11KitClient({ write: (bytes) => written.push(Buffer.from(bytes)), end: () => {} });
    client.push(Buffer.from([version]));
    const answers = new Map(
      calls.flatMap(({ dir, hex }) => {
        const frame = frameOf(hex);
        return dir === "response" ? [[frame.code, frame] as const] : [];
      }),
    );
    const ctx: CallContext = { client: "test", origin: TEST_ORIGIN, signal: new AbortController().signal };
    let held = 0;
    for (const { hex } of calls.filter(({ dir }) => dir === "request")) {
      const request = frameOf(hex);
      const answer = answers.get(request.code);
      const asked = decodeRequest(request.body, dialect);
      if (asked.kind !== "call") throw new Error("a request that is no call");
      const result = client.call(asked.call.name, asked.args as never, ctx) as Promise<AnyResult>;
      const sent = frameOf(written.at(-1)?.toString("hex") ?? "");
      expect(decodeRequest(sent.body, dialectOfVersion(version))).toMatchObject({ kind: "call", call: asked.call, args: asked.args });
      if (answer === undefined) {
        // A new client's mechanism at an older server, which closed: ours is written as that server reads it.
        expect([asked.call.name, dialect, dialectOfVersion(version)]).toEqual(["C_SignInit", "new", "legacy"]);
        expect(sent.body.equals(request.body)).toBe(false);
        client.closed();
        expect(await result).toEqual({ rv: CKR.CKR_DEVICE_REMOVED });
        break;
      }
      client.push(encodeFrame(sent.code, answer.options, answer.body));
      const taken = await result;
      expect(taken).toEqual(decodeResponse(answer.body, asked.call, asked.args, DEFAULT_LIMITS));
      // What a client says of an answer that it could not read.
      if (answer.body.readUInt32BE(0) !== 0) expect(taken.rv).not.toBe(CKR.CKR_DEVICE_ERROR);
      held++;
    }
    expect(held).toBeGreaterThan(2);
  });
});
