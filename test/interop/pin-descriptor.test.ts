/* A PIN behind a descriptor, read by a process of its own as the token host and the bastion's program do it. */
import { type ChildProcess, spawn } from "node:child_process";
import { mkdtempSync, openSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { pathToFileURL } from "node:url";
import { afterEach, beforeEach, expect, it } from "vitest";

let dir: string;
const children: ChildProcess[] = [];
beforeEach(() => {
  dir = mkdtempSync(join(tmpdir(), "tfwd-pin-fd-"));
});
afterEach(() => {
  for (const child of children.splice(0)) child.kill("SIGKILL");
  rmSync(dir, { recursive: true, force: true });
});

const MODULE = pathToFileURL(join(import.meta.dirname, "../../dist/token/host/pin-file.js")).href;
const READ = `const { readPinDescriptor } = await import(${JSON.stringify(MODULE)});`;
const SHOW = `${READ} const pin = await readPinDescriptor(3).catch((error) => ({ bytes: error.code })); console.log(String(pin.bytes)); process.exit(0);`;

function start(script: string, third: "pipe" | number): ChildProcess {
  const child = spawn(process.execPath, ["--input-type=module", "-e", script], { stdio: ["ignore", "pipe", "inherit", third] });
  children.push(child);
  return child;
}
async function said(child: ChildProcess): Promise<string> {
  let text = "";
  child.stdout?.on("data", (chunk: Buffer) => {
    text += chunk.toString();
  });
  await new Promise((resolve) => child.once("close", resolve));
  return text.trim();
}

it("is the first line of a pipe, in whatever pieces it comes", async () => {
  const child = start(SHOW, "pipe");
  const text = said(child);
  const pipe = child.stdio[3] as NodeJS.WritableStream;
  pipe.on("error", () => {});
  pipe.write("12");
  setImmediate(() => pipe.write("34\r\nmore"));
  expect(await text).toBe("1234");
});

it("is the first line of a file, and a pipe or file without a word is E_PIN_SOURCE", async () => {
  const file = join(dir, "pin");
  writeFileSync(file, "5678\nmore\n");
  expect(await said(start(SHOW, openSync(file, "r")))).toBe("5678");
  writeFileSync(file, "");
  expect(await said(start(SHOW, openSync(file, "r")))).toBe("E_PIN_SOURCE");
  const child = start(SHOW, "pipe");
  (child.stdio[3] as NodeJS.WritableStream).end();
  expect(await said(child)).toBe("E_PIN_SOURCE");
});

it("that never comes does not keep the process from ending", async () => {
  const child = start(`${READ} void readPinDescriptor(3); setTimeout(() => process.exit(7), 200);`, "pipe");
  const status = await new Promise((resolve) => child.once("exit", resolve));
  expect(status).toBe(7);
}, 10_000);
