/*
 * PINs that lie ready: in a file (read anew each time) or behind a descriptor (read once and kept). The first line is
 * the PIN. It must never follow a symbolic link, nor read a file that others may read.
 */
import { closeSync, constants, fstatSync, openSync, read as readCallback, readSync } from "node:fs";
import { Socket } from "node:net";
import { promisify } from "node:util";
import { TokenfwdError } from "../../base/errors.js";
import { printable } from "../../base/printable.js";
import { type SecretBytes, secretBytes, wipeable } from "../../base/secret.js";

const MAX_BYTES = 4096;
const read = promisify(readCallback);

/** The first line of these bytes without its line end; wipes the rest. */
function firstLine(bytes: Buffer, length: number): SecretBytes {
  const end = bytes.subarray(0, length).indexOf(0x0a);
  let stop = end < 0 ? length : end;
  if (stop > 0 && bytes[stop - 1] === 0x0d) stop -= 1;
  const pin = Buffer.from(bytes.subarray(0, stop));
  bytes.fill(0);
  if (pin.length === 0) throw new TokenfwdError("E_PIN_SOURCE", "the PIN source is empty", { hint: "its first line must be the PIN" });
  return secretBytes(pin);
}

/** Opens the file after looking at what it really is; throws E_PIN_SOURCE. The caller closes it. */
function openPinFile(path: string): number {
  const shown = printable(path);
  let fd: number;
  try {
    fd = openSync(path, constants.O_RDONLY | constants.O_NOFOLLOW | constants.O_NONBLOCK);
  } catch (error) {
    const code = (error as NodeJS.ErrnoException).code;
    const why = code === "ENOENT" ? "does not exist" : code === "ELOOP" ? "is a symbolic link" : `cannot be read (${code ?? "unknown"})`;
    throw new TokenfwdError("E_PIN_SOURCE", `the PIN file ${shown} ${why}`, {
      cause: error,
      hint: "name a regular file of your own, mode 0600",
    });
  }
  const stat = fstatSync(fd);
  const why = !stat.isFile()
    ? "is not a regular file"
    : stat.uid !== process.getuid?.()
      ? "belongs to another user"
      : (stat.mode & 0o077) !== 0
        ? "can be read or written by others"
        : null;
  if (why === null) return fd;
  closeSync(fd);
  throw new TokenfwdError("E_PIN_SOURCE", `the PIN file ${shown} ${why}`, { hint: `chmod 600 ${shown}, and see that it is yours` });
}

/** Throws E_PIN_SOURCE when the file may not be used; reads nothing. */
export function checkPinFile(path: string): void {
  closeSync(openPinFile(path));
}

/** The PIN in this file. Throws E_PIN_SOURCE. */
export function readPinFile(path: string): SecretBytes {
  const fd = openPinFile(path);
  try {
    const bytes = wipeable(MAX_BYTES);
    return firstLine(bytes, readSync(fd, bytes, 0, MAX_BYTES, 0));
  } finally {
    closeSync(fd);
  }
}

/** The PIN behind a descriptor, up to its first line end or its end; a pipe is closed then. Throws E_PIN_SOURCE. */
export async function readPinDescriptor(fd: number): Promise<SecretBytes> {
  const bytes = wipeable(MAX_BYTES);
  let length = 0;
  try {
    const stat = fstatSync(fd);
    length = stat.isFIFO() || stat.isSocket() ? await readStream(fd, bytes) : await readFile(fd, bytes, stat.isFile());
  } catch (error) {
    bytes.fill(0);
    throw new TokenfwdError("E_PIN_SOURCE", "the PIN descriptor cannot be read", {
      cause: error,
      hint: "open it for reading: fd:3 with 3<FILE",
    });
  }
  return firstLine(bytes, length);
}

/** Fills `bytes` to the first line end, the end, or its own. A regular file is read from its start: its offset is shared with an earlier host. */
async function readFile(fd: number, bytes: Buffer, fromStart: boolean): Promise<number> {
  let length = 0;
  while (length < bytes.length && bytes.indexOf(0x0a) < 0) {
    const { bytesRead } = await read(fd, bytes, length, bytes.length - length, fromStart ? length : null);
    if (bytesRead === 0) break;
    length += bytesRead;
  }
  return length;
}

/** As readFile, without a thread that waits: the process could not end before a pipe that never says anything. */
async function readStream(fd: number, bytes: Buffer): Promise<number> {
  let length = 0;
  for await (const chunk of new Socket({ fd, readable: true, writable: false }) as AsyncIterable<Buffer>) {
    length += chunk.copy(bytes, length);
    chunk.fill(0);
    if (length === bytes.length || bytes.indexOf(0x0a) >= 0) break;
  }
  return length;
}
