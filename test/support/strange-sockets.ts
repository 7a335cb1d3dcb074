/*
 * What may lie on a socket's path already: somebody else's server, or a socket whose server was killed. For tests; whoever starts one
 * disposes of it.
 */
import { type ChildProcess, spawn } from "node:child_process";
import { lstatSync } from "node:fs";
import { createServer, type Socket } from "node:net";

export interface Stranger extends AsyncDisposable {
  dispose(): Promise<void>;
}

/** A stranger's server on a path: it answers the version byte, or accepts and stays silent. */
export async function startStranger(path: string, answers: boolean): Promise<Stranger> {
  const sockets: Socket[] = [];
  const server = createServer((socket) => {
    sockets.push(socket);
    socket.on("error", () => {});
    socket.on("data", () => answers && socket.write(Buffer.from([0])));
  });
  await new Promise<void>((resolve) => server.listen(path, resolve));
  const dispose = async (): Promise<void> => {
    for (const socket of sockets) socket.destroy();
    await new Promise<void>((resolve) => server.close(() => resolve()));
  };
  return { dispose, [Symbol.asyncDispose]: dispose };
}

/** A socket file whose server was killed. */
export async function deadSocket(path: string): Promise<void> {
  const child: ChildProcess = spawn(
    "python3",
    [
      "-c",
      "import socket,sys,time; s=socket.socket(socket.AF_UNIX); s.bind(sys.argv[1]); s.listen(); print('up',flush=True); time.sleep(600)",
      path,
    ],
    { stdio: ["ignore", "pipe", "ignore"] },
  );
  await new Promise((resolve) => child.stdout?.once("data", resolve));
  const exited = new Promise((resolve) => child.once("exit", resolve));
  child.kill("SIGKILL");
  await exited;
  if (!lstatSync(path).isSocket()) throw new Error(`${path} is no socket`);
}

/** A TCP port of loopback whose packets are thrown away: its queue of connections is full and nobody takes any. */
export async function startBlackHole(): Promise<Stranger & { readonly port: number }> {
  const child = spawn(
    "python3",
    [
      "-c",
      [
        "import socket, time",
        "s = socket.socket(); s.bind(('127.0.0.1', 0)); s.listen(0)",
        "full = [socket.socket() for _ in range(4)]",
        "for one in full: one.setblocking(False); one.connect_ex(s.getsockname())",
        "time.sleep(0.2); print(s.getsockname()[1], flush=True); time.sleep(600)",
      ].join("\n"),
    ],
    { stdio: ["ignore", "pipe", "ignore"] },
  );
  const port = await new Promise<number>((resolve) => child.stdout?.once("data", (text: Buffer) => resolve(Number(text.toString()))));
  const dispose = async (): Promise<void> => {
    const exited = new Promise((resolve) => child.once("exit", resolve));
    child.kill("SIGKILL");
    await exited;
  };
  return { port, dispose, [Symbol.asyncDispose]: dispose };
}
