/* The list of keys as a document and as text, and where PINs come from on a bastion. */

import { spawnSync } from "node:child_process";
import { X509Certificate } from "node:crypto";
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { Writable } from "node:stream";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { secretBytes } from "../../../src/base/secret.js";
import type { ConnectOptions, KeyEntry, TokenfwdClient } from "../../../src/bastion/client/index.js";
import { createBastionPin } from "../../../src/cli/bastion-pin.js";
import { type KeysAround, keys } from "../../../src/cli/keys-command.js";
import { keysDocument, keysText, summarizeKey } from "../../../src/cli/keys-output.js";
import { createLifetime } from "../../../src/cli/lifetime.js";
import { createUi } from "../../../src/cli/ui.js";
import { CKM } from "../../../src/cryptoki/mechanisms.js";
import { createSoftHsm, type SoftHsm } from "../../support/softhsm.js";

const DAY = 86_400_000;
const RSA: KeyEntry = {
  slot: 1n,
  uri: "pkcs11:token=t;id=%01;object=ops%20key;type=private",
  label: Buffer.from("ops \u202ekey\n"),
  id: Buffer.from([1, 0xfe]),
  type: "RSA",
  bits: 2048,
  curve: null,
  spki: Buffer.from("abc"),
  certificate: null,
  mechanisms: [CKM.CKM_RSA_PKCS, 0x80000001],
};
const EC: KeyEntry = { ...RSA, type: "EC", bits: null, curve: "P-256", spki: null, label: Buffer.alloc(0), id: Buffer.alloc(0) };

let token: SoftHsm;
let der: Buffer;
beforeAll(async () => {
  token = await createSoftHsm({ objects: "rsa", commonName: "ops, team\\+1/O=Example" });
  der = new X509Certificate(readFileSync(token.keys.rsa?.certificateFile ?? "")).raw;
});
afterAll(async () => {
  await token.dispose();
});

describe("the list of keys", () => {
  it("is the pinned document: bits of RSA keys, curves of others, the hash of the public key in hex", () => {
    const document = JSON.parse(keysDocument([RSA, EC].map(summarizeKey)));
    const common = { uri: RSA.uri, certificate: null, mechanisms: ["CKM_RSA_PKCS", "0x80000001"] };
    expect(document).toEqual({
      v: 1,
      keys: [
        {
          ...common,
          label: "ops \\u{202e}key\\x0a",
          id: "01fe",
          type: "RSA",
          bits: 2048,
          spki: "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad",
        },
        { ...common, label: "", id: "", type: "EC", curve: "P-256", spki: null },
      ],
    });
  });

  it("has a certificate's names in one line each, last part first, and its end in UTC", () => {
    const summary = summarizeKey({ ...RSA, certificate: der }).certificate;
    expect(summary?.subject).toBe("O=Example,CN=ops\\, team\\+1");
    expect(summary?.issuer).toBe("CN=tokenfwd test CA");
    expect(summary?.notAfter).toMatch(/^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ$/);
    expect(Date.parse(summary?.notAfter ?? "") / 1000).toBe(Date.parse(new X509Certificate(der).validTo) / 1000);
  });

  it("has a certificate without a name, and one with several parts in one and escapes in it", () => {
    const made = (subject: string): Buffer => {
      const words = ["req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-keyout", "/dev/null"];
      const run = spawnSync("openssl", [...words, "-utf8", "-multivalue-rdn", "-outform", "DER", "-subj", subject]);
      expect(run.status).toBe(0);
      return run.stdout;
    };
    const nameless = summarizeKey({ ...RSA, certificate: made("/") });
    expect(nameless.certificate).toMatchObject({ subject: "", issuer: "" });
    expect(keysText([nameless], 0)).toContain("  cert   (no name)\n");
    expect(summarizeKey({ ...RSA, certificate: made("/O=a\u001b[31m+OU=b/CN=x\ny \\+ \u202ez") }).certificate?.subject).toMatch(
      /^CN=x\\0Ay \\\+ \\u\{202e\}z,(?:O=a\\1B\[31m\+OU=b|OU=b\+O=a\\1B\[31m)$/,
    );
  });

  it("goes on without a certificate that cannot be read", () => {
    expect(summarizeKey({ ...RSA, certificate: Buffer.from("no certificate") }).certificate).toBeNull();
  });

  it("reads as aligned lines with a URI to copy, and marks a certificate near its end", () => {
    const key = summarizeKey({ ...RSA, certificate: der });
    const end = Date.parse(key.certificate?.notAfter ?? "");
    const text = keysText([key, summarizeKey(EC)], end - 3 * DAY);
    expect(text.split("\n").slice(0, 7)).toEqual([
      "ops \\u{202e}key\\x0a",
      "  key    RSA 2048, id 01fe",
      `  uri    '${RSA.uri}'`,
      `  spki   ${key.spki}`,
      "  cert   O=Example,CN=ops\\, team\\+1",
      "  from   CN=tokenfwd test CA",
      `  until  ${key.certificate?.notAfter}  ! expires in 3 days`,
    ]);
    expect(text).toContain("\n\n(no label)\n  key    EC P-256\n");
    expect(keysText([key], end - 15 * DAY)).not.toContain("!");
    expect(keysText([key], end + 1000)).toContain("! has expired");
  });
});

describe("keys", () => {
  const run = async (raw: Parameters<typeof keys>[0], found: readonly KeyEntry[], wantsPin = false) => {
    let written = "";
    let said = "";
    const connected: ConnectOptions[] = [];
    let closed = 0;
    const close = async (): Promise<void> => {
      closed += 1;
    };
    const around: KeysAround = {
      stdout: new Writable({
        write(chunk: Buffer, _encoding, done) {
          written += chunk.toString();
          done();
        },
      }),
      ui: createUi({
        write(text: string) {
          said += text;
          return true;
        },
      }),
      lifetime: createLifetime(() => () => {}),
      env: {},
      now: () => 0,
      async connect(options) {
        connected.push(options);
        const list = async () => {
          if (wantsPin) await options.pin?.({ label: "t", uri: "u" }, new AbortController().signal).catch(() => null);
          return found;
        };
        return { keys: list, close } as unknown as TokenfwdClient;
      },
    };
    const status = await keys(raw, around);
    return { status, written, said, connected, closed };
  };

  it("lists with one connection that brings the list itself, and asks for no PIN", async () => {
    const { status, written, said, connected, closed } = await run({ json: true }, [RSA]);
    expect({ status, said, closed }).toEqual({ status: 0, said: "", closed: 1 });
    expect(JSON.parse(written).keys).toHaveLength(1);
    expect(connected).toMatchObject([{ snapshot: true }]);
    expect(connected[0]).not.toHaveProperty("pin");
  });

  it("says that nothing is visible, and still writes a document", async () => {
    const { status, written, said } = await run({ json: true }, []);
    expect(status).toBe(0);
    expect(JSON.parse(written)).toEqual({ v: 1, keys: [] });
    expect(said).toContain("no key is visible");
  });

  it("hands a PIN source on, and says when nobody had a use for it", async () => {
    const used = await run({ pinSource: "file:/nonexistent/pin" }, [RSA], true);
    expect(used.connected[0]?.pin).toBeTypeOf("function");
    expect(used.said).toBe("");
    expect((await run({ pinSource: "file:/nonexistent/pin" }, [RSA])).said).toContain("--pin-source was not used");
  });
});

describe("a PIN on the bastion", () => {
  const dir = mkdtempSync(join(tmpdir(), "tokenfwd-bastion-pin-"));
  afterAll(() => rmSync(dir, { recursive: true, force: true }));
  const who = { label: "my\u001b token", uri: "pkcs11:token=x" };
  const { signal } = new AbortController();

  it("comes from a file that is ours alone, read when it is needed", async () => {
    const path = join(dir, "pin");
    const provide = createBastionPin({ kind: "file", path }, "tokenfwd sign").provider;
    await expect(provide(who, signal)).rejects.toMatchObject({ code: "E_PIN_SOURCE" });
    writeFileSync(path, "31415926\n", { mode: 0o600 });
    expect((await provide(who, signal))?.toString()).toBe("31415926");
    const open = join(dir, "open");
    writeFileSync(open, "31415926\n", { mode: 0o644 });
    await expect(createBastionPin({ kind: "file", path: open }, "x").provider(who, signal)).rejects.toMatchObject({ code: "E_PIN_SOURCE" });
  });

  it("is asked for on the terminal, with the token's name made printable, and wiped there", async () => {
    const typed = Buffer.from("2718");
    const asked: unknown[] = [];
    const { provider: provide } = createBastionPin({ kind: "ask" }, "tokenfwd sign", () => ({
      terminalState: null,
      confirm: async () => "no",
      async pin(question) {
        asked.push(question);
        return { kind: "given", pin: secretBytes(typed) };
      },
    }));
    expect((await provide(who, signal))?.toString()).toBe("2718");
    expect(asked).toEqual([{ token: "my\\x1b token", who: "tokenfwd sign", notices: [] }]);
    expect(typed).toEqual(Buffer.alloc(4));
  });

  it("is null for a question that was cancelled, and an error where there is no terminal", async () => {
    const { provider: cancelled } = createBastionPin({ kind: "ask" }, "x", () => ({
      terminalState: null,
      confirm: async () => "no",
      pin: async () => ({ kind: "cancelled" }),
    }));
    expect(await cancelled(who, signal)).toBeNull();
    await expect(createBastionPin({ kind: "ask" }, "x", () => null).provider(who, signal)).rejects.toMatchObject({
      code: "E_PIN_SOURCE",
      exitCode: 30,
      hint: expect.stringContaining("--pin-source file:PATH"),
    });
  });
});
