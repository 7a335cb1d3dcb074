/*
 * A headless Chromium over its debugging pipe: opens one page, runs expressions in it, presses keys, takes pictures. It opens no port,
 * and whoever starts one must dispose of it, which ends the process by its id.
 */
import { type ChildProcess, spawn } from "node:child_process";
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import type { Duplex, Readable, Writable } from "node:stream";

export interface ChromiumPage {
  /** Opens it and waits until it has loaded. */
  open(url: string): Promise<void>;
  /** The value of an expression in the page; a promise is waited for. Rejects with what it threw. */
  evaluate<T>(expression: string): Promise<T>;
  /** Presses and releases a key, as `KeyboardEvent.key` has it. */
  press(key: string): Promise<void>;
  mouse(type: "mousePressed" | "mouseMoved" | "mouseReleased", x: number, y: number): Promise<void>;
  emulate(options: { readonly width: number; readonly height: number; readonly dark: boolean }): Promise<void>;
  /** A PNG of what is seen. */
  screenshot(): Promise<Buffer>;
  /** What the console, the log and uncaught exceptions have said, and every request for something that is not the page itself. */
  readonly complaints: readonly string[];
  readonly requests: readonly string[];
  dispose(): Promise<void>;
}

type Json = Readonly<Record<string, unknown>>;
interface Waiting {
  resolve(result: Json): void;
  reject(error: Error): void;
}

const START_MS = 30_000;

/** Starts Chromium with a profile of its own, and a page in it. */
export async function startChromium(): Promise<ChromiumPage> {
  const profile = mkdtempSync(join(tmpdir(), "tokenfwd-chromium-"));
  const words = ["--headless=new", "--remote-debugging-pipe", `--user-data-dir=${profile}`, "--no-first-run", "--disable-gpu"];
  // Its sandbox wants another user than root; the page under test is ours.
  const sandbox = process.getuid?.() === 0 ? ["--no-sandbox"] : [];
  const quiet = ["--disable-background-networking", "--disable-component-update", "--disable-sync", "--no-default-browser-check"];
  const child: ChildProcess = spawn("chromium", [...words, ...sandbox, ...quiet, "about:blank"], {
    stdio: ["ignore", "ignore", "ignore", "pipe", "pipe"],
  });
  const waiting = new Map<number, Waiting>();
  const listeners = new Set<(method: string, params: Json) => void>();
  const ended = new Promise<void>((resolve) => {
    const over = (): void => {
      for (const one of waiting.values()) one.reject(new Error("chromium has ended"));
      waiting.clear();
      resolve();
    };
    child.once("error", over);
    child.once("exit", over);
  });
  let nextId = 0;
  let session: string | undefined;

  function receive(message: Json): void {
    const { id, result, error, method, params } = message;
    if (typeof id === "number") {
      const one = waiting.get(id);
      waiting.delete(id);
      if (error === undefined) one?.resolve((result ?? {}) as Json);
      else one?.reject(new Error(JSON.stringify(error)));
    } else for (const listener of listeners) listener(String(method), (params ?? {}) as Json);
  }

  let pending = "";
  const input = child.stdio[3] as Writable;
  input.on("error", () => {});
  (child.stdio[4] as Readable | Duplex).setEncoding("utf8").on("data", (text: string) => {
    const parts = (pending + text).split("\0");
    pending = parts.pop() ?? "";
    for (const part of parts) receive(JSON.parse(part) as Json);
  });

  function send(method: string, params: Json = {}): Promise<Json> {
    const id = ++nextId;
    return new Promise((resolve, reject) => {
      waiting.set(id, { resolve, reject });
      const to = session === undefined ? {} : { sessionId: session };
      input.write(`${JSON.stringify({ id, method, params, ...to })}\0`);
    });
  }

  async function dispose(): Promise<void> {
    child.kill("SIGKILL");
    await ended;
    rmSync(profile, { recursive: true, force: true, maxRetries: 5, retryDelay: 100 });
  }

  const complaints: string[] = [];
  const requests: string[] = [];
  try {
    let late: NodeJS.Timeout | undefined;
    const { targetId } = (await Promise.race([
      send("Target.createTarget", { url: "about:blank" }),
      new Promise<never>((_, reject) => {
        late = setTimeout(() => reject(new Error("chromium does not start")), START_MS);
      }),
    ]).finally(() => clearTimeout(late))) as { targetId: string };
    const attached = await send("Target.attachToTarget", { targetId, flatten: true });
    session = String(attached["sessionId"]);
    for (const domain of ["Page", "Runtime", "Log", "Network"]) await send(`${domain}.enable`);
  } catch (error) {
    await dispose();
    throw error;
  }
  listeners.add((method, params) => {
    if (method === "Runtime.exceptionThrown" || method === "Log.entryAdded" || method === "Runtime.consoleAPICalled")
      complaints.push(JSON.stringify(params));
    if (method === "Network.requestWillBeSent") requests.push(String((params["request"] as Json)["url"]));
  });

  return {
    complaints,
    requests,
    dispose,
    async open(url) {
      const loaded = new Promise<void>((resolve) => {
        const listener = (method: string): void => {
          if (method !== "Page.loadEventFired") return;
          listeners.delete(listener);
          resolve();
        };
        listeners.add(listener);
      });
      await send("Page.navigate", { url });
      await loaded;
    },
    async evaluate(expression) {
      const { result, exceptionDetails } = await send("Runtime.evaluate", { expression, returnByValue: true, awaitPromise: true });
      if (exceptionDetails !== undefined) throw new Error(JSON.stringify(exceptionDetails));
      return (result as Json)["value"] as never;
    },
    async press(key) {
      // What the browser itself does with a key goes by its old number.
      const code = { windowsVirtualKeyCode: { Enter: 13, Escape: 27 }[key] ?? 0 };
      const text = key.length === 1 ? { text: key } : {};
      await send("Input.dispatchKeyEvent", { type: "keyDown", key, ...code, ...text });
      await send("Input.dispatchKeyEvent", { type: "keyUp", key, ...code });
    },
    async mouse(type, x, y) {
      await send("Input.dispatchMouseEvent", { type, x, y, button: "left", buttons: type === "mouseReleased" ? 0 : 1, clickCount: 1 });
    },
    async emulate({ width, height, dark }) {
      await send("Emulation.setDeviceMetricsOverride", { width, height, deviceScaleFactor: 1, mobile: false });
      await send("Emulation.setEmulatedMedia", { features: [{ name: "prefers-color-scheme", value: dark ? "dark" : "light" }] });
    },
    async screenshot() {
      const { data } = await send("Page.captureScreenshot", { format: "png" });
      return Buffer.from(String(data), "base64");
    },
  };
}
