/*
 * Conversations of stock p11-kit clients and servers: every frame must be understood, and written again byte for byte.
 * Where a stock peer writes what we never write, the frame is listed below with the reason; a line that is no longer
 * needed fails the test too.
 */
import { readdirSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { describe, expect, it } from "vitest";
import { DecodeError } from "../../src/base/bytes.js";
import type { AnyCall } from "../../src/cryptoki/calls.js";
import type { AnyArgs } from "../../src/cryptoki/types.js";
import { createFrameDecoder, encodeFrame, type Frame } from "../../src/wire/p11kit/frame.js";
import { DEFAULT_LIMITS } from "../../src/wire/p11kit/limits.js";
import { type Dialect, dialectOfVersion } from "../../src/wire/p11kit/mechanisms.js";
import { decodeRequest, encodeRequest } from "../../src/wire/p11kit/requests.js";
import { decodeResponse, encodeError, encodeResponse } from "../../src/wire/p11kit/responses.js";

interface Conversation {
  readonly name: string;
  readonly source: string;
  readonly client: string;
  readonly server: string;
  readonly dialect: Dialect;
  readonly frames: readonly { readonly dir: "request" | "response"; readonly hex: string }[];
}

const DIRECTORY = join(import.meta.dirname, "../../protocol/vectors/p11kit");

/** `vector#frame index`: why we write it differently. */
const NOT_CANONICAL: Readonly<Record<string, string>> = {
  "40-h-allowed-24#13":
    "the answer to a length query of CKA_ALLOWED_MECHANISMS announces elements and carries none, which stock clients refuse",
  "40-h-allowed-26#13": "the same, still so in 0.26.4",
};

const conversations = readdirSync(DIRECTORY)
  .filter((file) => /^\d\d-.*\.json$/.test(file))
  .map((file) => JSON.parse(readFileSync(join(DIRECTORY, file), "utf8")) as Conversation);

function frameOf(bytes: Buffer): Frame {
  const frames: Frame[] = [];
  createFrameDecoder({ ...DEFAULT_LIMITS, onFrame: (frame) => frames.push(frame) }).push(bytes);
  const [frame] = frames;
  if (frame === undefined || frames.length !== 1) throw new Error(`${frames.length} frames where one was expected`);
  return frame;
}

interface Failure {
  readonly name: string;
  readonly dialect: Dialect;
  /** A whole frame. */
  readonly hex: string;
  /** `closes:<failure of DecodeError>`, `error:<CK_RV in hex>`, or `call`. */
  readonly expect: string;
}

const failures = JSON.parse(readFileSync(join(DIRECTORY, "failures.json"), "utf8")) as readonly Failure[];

function classOf({ hex, dialect }: Failure): string {
  try {
    const request = decodeRequest(frameOf(Buffer.from(hex, "hex")).body, dialect);
    if (request.kind === "unknown") return "error:0x54";
    return request.kind === "refused" ? `error:0x${request.rv.toString(16)}` : "call";
  } catch (thrown) {
    if (thrown instanceof DecodeError) return `closes:${thrown.failure}`;
    throw thrown;
  }
}

/** Decodes and encodes each frame; gives the indices of those that came out differently, with what came out. */
function replay(conversation: Conversation): Map<number, string> {
  const different = new Map<number, string>();
  const calls = new Map<number, { call: AnyCall; args: AnyArgs }>();
  const nullForm = conversation.client.startsWith("0.24.") ? "absent" : "valid";
  for (const [index, { dir, hex }] of conversation.frames.entries()) {
    const bytes = Buffer.from(hex, "hex");
    if (bytes.length === 1) {
      if (dir === "request") expect(dialectOfVersion(bytes.readUInt8(0))).toBe(conversation.dialect);
      continue;
    }
    const { code, options, body } = frameOf(bytes);
    let again: Buffer;
    if (dir === "request") {
      const request = decodeRequest(body, conversation.dialect);
      if (request.kind !== "call") throw new DecodeError("malformed", `${conversation.name}#${index} is no call`, 0);
      // Stock frames of a client always follow its own dialect: nothing here may need the safety net.
      expect(request.dialect).toBe(conversation.dialect);
      calls.set(code, request);
      again = encodeRequest(request.call, request.args, { dialect: conversation.dialect, nullForm });
    } else {
      const made = calls.get(code);
      if (made === undefined) throw new Error(`${conversation.name}#${index} answers no call`);
      const result = decodeResponse(body, made.call, made.args, DEFAULT_LIMITS);
      again = body.readUInt32BE(0) === 0 ? encodeError(result.rv) : encodeResponse(made.call, made.args, result);
    }
    const rewritten = encodeFrame(code, options, again).toString("hex");
    if (rewritten !== hex) different.set(index, rewritten);
  }
  return different;
}

describe("conversations of stock peers", () => {
  it("are there", () => {
    expect(conversations.length).toBeGreaterThan(40);
  });

  it.each(conversations.map((conversation) => [conversation.name, conversation] as const))(
    "%s is written again byte for byte",
    (name, conversation) => {
      const unexpected: Record<string, { theirs: string | undefined; ours: string }> = {};
      for (const [index, ours] of replay(conversation)) {
        if (!(`${name}#${index}` in NOT_CANONICAL)) unexpected[`${name}#${index}`] = { theirs: conversation.frames[index]?.hex, ours };
      }
      expect(unexpected).toEqual({});
    },
  );

  it("differ from ours in every frame that is listed as not canonical", () => {
    const different = new Set(conversations.flatMap((one) => [...replay(one).keys()].map((index) => `${one.name}#${index}`)));
    expect(Object.keys(NOT_CANONICAL).filter((key) => !different.has(key))).toEqual([]);
  });
});

describe("requests that stock peers never send", () => {
  it.each(failures.map((failure) => [failure.name, failure] as const))("%s", (_name, failure) => {
    expect(classOf(failure)).toBe(failure.expect);
  });
});
