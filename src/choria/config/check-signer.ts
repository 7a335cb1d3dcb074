/*
 * The request signer that the configuration names, and the two secrets that choria proves itself with there: their form, and who may
 * read them. It must never show what is in them.
 */
import { printable, shellWord } from "../../base/printable.js";
import type { ValueSource } from "./client-config.js";
import type { CheckConfigInput, Findings } from "./finding.js";
import { booleanOf, pathOf } from "./parse.js";

const KEY = "plugin.choria.security.request_signer";
const LOOPBACK = new Set(["localhost", "127.0.0.1", "[::1]"]);

/** Looks at it, where there is one and the provider uses it. */
export async function checkSigner(input: CheckConfigInput, findings: Findings): Promise<void> {
  const { config } = input;
  const url = config.values.get(`${KEY}.url`);
  if (config.provider !== "file" && config.provider !== "puppet") return;
  if (booleanOf(config.values.get(`${KEY}.service`)?.value ?? "")) {
    const text = `${KEY}.service is on: requests are signed by a service of the network, and no other signer is asked`;
    findings.add("signer-service", url === undefined ? "note" : "warning", text, `take the line out, to use ${KEY}.url`, {
      source: config.values.get(`${KEY}.service`),
      stockOnly: true,
    });
    return;
  }
  if (url === undefined) {
    for (const name of ["token_file", "seed_file"]) {
      const source = config.values.get(`${KEY}.${name}`);
      if (source === undefined) continue;
      findings.add(
        "signer-no-url",
        "warning",
        `${KEY}.${name} is set, and ${KEY}.url is not: nothing is asked to sign`,
        `write: ${KEY}.url = http://127.0.0.1:PORT/`,
        {
          source,
          stockOnly: true,
        },
      );
    }
    return;
  }
  checkUrl(url, findings);
  await checkSecrets(input, url, findings);
}

function checkUrl(source: ValueSource, findings: Findings): void {
  const parsed = URL.canParse(source.value) ? new URL(source.value) : null;
  if (parsed === null || !/^https?:$/.test(parsed.protocol)) {
    const text = `${KEY}.url is ${printable(source.value, 200)}; choria takes http:// and https:// only`;
    findings.add("signer-url", "error", text, `write: ${KEY}.url = http://127.0.0.1:PORT/, as tokenfwd choria signer prints it`, {
      source,
      stockOnly: true,
    });
  } else if (!LOOPBACK.has(parsed.hostname)) {
    const text = `the signer ${printable(parsed.host)} is on another machine, and choria never verifies who answers there`;
    findings.add("signer-url", "warning", text, "use a signer on loopback: tokenfwd choria signer", { source, stockOnly: true });
  }
}

async function checkSecrets(input: CheckConfigInput, url: ValueSource, findings: Findings): Promise<void> {
  const { config } = input;
  const home = config.home ?? "";
  const token = config.values.get(`${KEY}.token_file`);
  const seed = config.values.get(`${KEY}.seed_file`);
  if (token === undefined) {
    findings.add(
      "signer-token",
      "error",
      `${KEY}.token_file is not set: choria ends with "no token file defined"`,
      `write: ${KEY}.token_file = FILE`,
      {
        source: url,
        stockOnly: true,
      },
    );
    return;
  }
  const tokenPath = pathOf(token.value, home);
  const tokenText = await secretText(input, "token", tokenPath, token, findings);
  if (tokenText !== null && /\s$/.test(tokenText)) {
    const text = `${printable(tokenPath)} ends with a newline or a blank, which choria sends with it: our signer answers 401`;
    findings.add("signer-token", "error", text, withoutNewline(tokenPath), { source: token, stockOnly: true });
  }
  const implied = `${tokenPath.replace(/\.[^./]*$/, "")}.key`;
  if (config.provider === "puppet" && seed !== undefined && pathOf(seed.value, home) !== implied) {
    const text = `the puppet provider ignores ${KEY}.seed_file, and looks for ${printable(implied)}`;
    findings.add("signer-seed", "error", text, "write: plugin.security.provider = file", { source: seed, stockOnly: true });
    return;
  }
  const seedPath = seed === undefined ? implied : pathOf(seed.value, home);
  const seedText = await secretText(input, "seed", seedPath, seed ?? token, findings);
  if (seedText !== null) checkSeed(seedText, seedPath, seed ?? token, findings);
}

/** A command that keeps the file's mode; the shell reads before it empties. */
const withoutNewline = (path: string): string => `printf %s "$(cat ${shellWord(path)})" > ${shellWord(path)}`;

function checkSeed(text: string, path: string, source: ValueSource, findings: Findings): void {
  const where = { source, stockOnly: true };
  const name = printable(path);
  if (/^[0-9a-f]{64}$/i.test(text)) return;
  if (/^[0-9a-f]{64}\s+$/i.test(text)) {
    const what = `the seed ${name} ends with a newline or a blank, which choria does not take (encoding/hex: invalid byte)`;
    findings.add("signer-seed", "error", what, withoutNewline(path), where);
  } else {
    const what = `the seed ${name} is not 64 hexadecimal digits`;
    findings.add("signer-seed", "error", what, "have new secrets made: tokenfwd choria signer --secrets DIR", where);
  }
}

async function secretText(
  { look }: CheckConfigInput,
  what: "token" | "seed",
  path: string,
  source: ValueSource,
  findings: Findings,
): Promise<string | null> {
  const looked = await look(path, "text");
  const where = { source, stockOnly: true };
  if (looked.state !== "file") {
    const text = `the signer's ${what} file ${printable(path)} ${looked.state === "missing" ? "does not exist" : `cannot be read: ${looked.why}`}`;
    findings.add(`signer-${what}`, "error", text, "have the secrets made: tokenfwd choria signer --secrets DIR", where);
    return null;
  }
  if ((looked.mode & 0o077) !== 0) {
    const text = `the signer's ${what} file ${printable(path)} can be read by others (mode 0${looked.mode.toString(8)}): whoever has both can have requests signed`;
    findings.add("mode", "warning", text, `chmod 600 ${shellWord(path)}`, where);
  }
  return looked.bytes.toString("utf8");
}
