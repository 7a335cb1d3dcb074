/*
 * A secret shows itself nowhere and is gone when it is disposed of.
 */
import { inspect } from "node:util";
import { serialize } from "node:v8";
import { describe, expect, it } from "vitest";
import { secretBytes } from "../../../src/base/secret.js";

describe("a secret", () => {
  it("shows itself nowhere", () => {
    const secret = secretBytes(Buffer.from("hunter2"));
    const shown = [String(secret), `${secret}`, JSON.stringify({ secret }), inspect({ secret }, { depth: 9, showHidden: true })].join();
    expect(shown).not.toContain("hunter2");
    expect(shown).not.toContain(Buffer.from("hunter2").toString("hex"));
    expect(serialize({ ...secret }).includes("hunter2")).toBe(false);
  });

  it("overwrites the bytes it was given when it is disposed of", () => {
    const bytes = Buffer.from("hunter2");
    {
      using secret = secretBytes(bytes);
      expect(secret.bytes.toString()).toBe("hunter2");
      expect(secret.disposed).toBe(false);
    }
    expect(bytes).toEqual(Buffer.alloc(7));
  });
});
