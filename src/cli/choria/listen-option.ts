/*
 * The option --listen, which the services of the group share.
 */
import { printable } from "../../base/printable.js";
import { isLoopback } from "../../choria/loopback.js";
import { usage } from "../options.js";

/** A loopback address with its port, `HOST:PORT` or `[HOST]:PORT`; without one 127.0.0.1 and any free port. Throws E_USAGE. */
export function parseListen(text: string | undefined): { readonly host: string; readonly port: number } {
  if (text === undefined) return { host: "127.0.0.1", port: 0 };
  const [, six, four, port] = /^(?:\[([0-9a-fA-F:.]{2,45})\]|([^:[\]]{1,255})):([0-9]{1,5})$/.exec(text) ?? [];
  const host = six ?? four;
  if (host !== undefined && isLoopback(host) && Number(port) <= 65_535) return { host, port: Number(port) };
  const shown = printable(text, 100);
  throw usage(
    `--listen takes a loopback address and a port, and not ${shown}`,
    "for example --listen 127.0.0.1:8080; port 0 is any free one",
  );
}
