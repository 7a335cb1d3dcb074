/*
 * The rules of the house as functions from sources to complaints, so that each can be shown to fail. They read text only;
 * what they are applied to is architecture.test.ts's business.
 */
import { posix } from "node:path";
import { importsOf } from "./imports.js";

/** A file by its path from the project's root, with `/`. */
export interface SourceFile {
  readonly path: string;
  readonly text: string;
}

/** What each layer may import besides itself. A layer that is not listed here may not exist. */
const BELOW: Readonly<Record<string, readonly string[]>> = {
  base: [],
  cryptoki: ["base"],
  wire: ["cryptoki", "base"],
  token: ["cryptoki", "base"],
  agent: ["token", "wire", "cryptoki", "base"],
  forward: ["token", "wire", "cryptoki", "base"],
  bastion: ["token", "wire", "cryptoki", "base"],
  // Knows a signer and streams that are handed to it, and so runs on a bastion as well as at the workstation.
  choria: ["cryptoki", "base"],
  // What passed on a stream, and where; it takes part in nothing.
  trace: ["wire", "cryptoki", "base"],
  doctor: ["agent", "forward", "bastion", "choria", "trace", "token", "wire", "cryptoki", "base"],
  cli: ["doctor", "agent", "forward", "bastion", "choria", "trace", "token", "wire", "cryptoki", "base"],
};

/** The one place that may name each outside package. */
const OWNERS: Readonly<Record<string, string>> = {
  pkcs11js: "src/token/driver/",
  ssh2: "src/forward/ssh2/",
  msgpackr: "src/wire/rpc/codec",
  commander: "src/cli/",
  execa: "src/base/run.ts",
  "@nats-io/transport-node": "src/choria/ping/",
};

/** I/O that the wire must not know: it is bytes in, bytes out. */
const NOT_ON_THE_WIRE = new Set(["net", "tls", "http", "https", "http2", "dgram", "fs", "fs/promises", "child_process", "worker_threads"]);

const MAX_LINES = 350;
/** With a sentence "longer than usual because ..." in the head comment. */
const MAX_LINES_WITH_REASON = 600;

const layerOf = (path: string): string | null => /^src\/([^/]+)\//.exec(path)?.[1] ?? null;
const packageOf = (specifier: string): string =>
  specifier
    .split("/")
    .slice(0, specifier.startsWith("@") ? 2 : 1)
    .join("/");

/** Imports run one way: cli -> doctor -> agent, forward, bastion and choria -> token and wire -> cryptoki -> base, and never out of src. */
export function importDirection(files: readonly SourceFile[]): string[] {
  const complaints: string[] = [];
  for (const { path, text } of files) {
    const layer = layerOf(path);
    const below = layer === null ? undefined : BELOW[layer];
    if (layer === null || below === undefined) {
      complaints.push(`${path}: is in no layer of the house`);
      continue;
    }
    for (const { specifier } of importsOf(text)) {
      if (specifier === null || !specifier.startsWith(".")) continue;
      const target = posix.join(posix.dirname(path), specifier);
      const other = layerOf(target);
      if (other !== layer && (other === null || !below.includes(other))) complaints.push(`${path}: may not import ${target}`);
      if (!specifier.endsWith(".js")) complaints.push(`${path}: ${specifier} does not end in .js`);
    }
  }
  return complaints;
}

/** Each outside package is named in one place, Node's own with `node:`, and nothing is loaded by a computed name. */
export function packageOwners(files: readonly SourceFile[]): string[] {
  const complaints: string[] = [];
  for (const { path, text } of files) {
    for (const { specifier } of importsOf(text)) {
      if (specifier === null) complaints.push(`${path}: loads a module by a computed name`);
      else if (!specifier.startsWith(".") && !specifier.startsWith("node:")) {
        const owner = OWNERS[packageOf(specifier)];
        if (owner === undefined) complaints.push(`${path}: ${specifier} is not one of our packages`);
        else if (!path.startsWith(owner)) complaints.push(`${path}: ${specifier} belongs to ${owner}`);
      }
    }
  }
  return complaints;
}

/** The wire never does I/O. */
export function wireIsPure(files: readonly SourceFile[]): string[] {
  return files
    .filter(({ path }) => path.startsWith("src/wire/"))
    .flatMap(({ path, text }) =>
      importsOf(text)
        .filter(({ specifier }) => specifier?.startsWith("node:") === true && NOT_ON_THE_WIRE.has(specifier.slice(5)))
        .map(({ specifier }) => `${path}: the wire may not use ${specifier}`),
    );
}

/** Every source says at its top what it is, and is short. */
export function fileShape(files: readonly SourceFile[]): string[] {
  return files.flatMap(({ path, text }) => {
    const complaints: string[] = [];
    const head = /^(#!.*\n)?\/\*(?!\*)([\s\S]*?)\*\//.exec(text)?.[2] ?? "";
    if (head.replace(/[\s*]/g, "").length < 40) complaints.push(`${path}: has no head comment that says what it is`);
    const lines = text.split("\n").length - 1;
    const most = /longer than usual because \S/.test(head) ? MAX_LINES_WITH_REASON : MAX_LINES;
    if (lines > most) complaints.push(`${path}: ${lines} lines, more than ${most}`);
    return complaints;
  });
}

/** Every error code is explained in the documents. */
export function codesDocumented(codes: readonly string[], documents: readonly SourceFile[]): string[] {
  const words = new Set(documents.flatMap(({ text }) => text.match(/\bE_[A-Z_]+\b/g) ?? []));
  const unknown = [...words].filter((word) => !codes.includes(word)).map((word) => `the documents name ${word}, which does not exist`);
  return [...codes.filter((code) => !words.has(code)).map((code) => `no document names ${code}`), ...unknown];
}

/** No file names a path that exists on one machine only. `homes` are the roots of such paths, such as `/root`. */
export function noMachinePath(files: readonly SourceFile[], homes: readonly string[]): string[] {
  return files.flatMap(({ path, text }) =>
    homes
      .filter((home) => new RegExp(`(?<![\\w.~}*-])${home.replace(/[.*+?^$(){}|[\]\\]/g, "\\$&")}(?=/)`).test(text))
      .map((home) => `${path}: names ${home}/, a path of one machine`),
  );
}
