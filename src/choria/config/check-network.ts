/*
 * How the configuration leads to brokers, and how long it waits. It must never look anything up in the network.
 */
import { printable } from "../../base/printable.js";
import { DEFAULT_MAX_TTL_SECONDS, MIN_TTL_SECONDS } from "../limits.js";
import { parseBroker } from "./brokers.js";
import type { CheckConfigInput, Findings } from "./finding.js";

/** A touch, or a question at the workstation, in seconds. */
const PATIENT = 10;

/** Looks at brokers, collectives and times. */
export function checkNetwork({ config }: CheckConfigInput, findings: Findings): void {
  const federated = config.federations.length > 0;
  const key = federated ? "plugin.choria.federation_middleware_hosts" : "plugin.choria.middleware_hosts";
  const source = config.values.get(key);
  for (const word of federated ? config.federationHosts : config.middlewareHosts) broker(word, key, source, findings);
  if (source === undefined && !config.useSrv) {
    const text = "no broker is named and SRV records are switched off, so choria takes puppet:4222";
    findings.add("no-broker", "warning", text, `write: ${key} = nats://HOST:4222`, { source: config.values.get("plugin.choria.use_srv") });
  } else if (source === undefined) {
    const domain = config.srvDomain ?? "the domain that facter names";
    const text = `no broker is named: choria looks for the SRV records _mcollective-server._tcp of ${printable(domain)}, then takes puppet:4222`;
    findings.add("srv", "note", text, `if that is not meant, write: ${key} = nats://HOST:4222`);
  }
  const main = config.values.get("main_collective");
  if (main !== undefined && !config.collectives.includes(config.mainCollective)) {
    const text = `main_collective is ${printable(config.mainCollective)}, which is not one of the collectives ${printable(config.collectives.join(", "))}`;
    findings.add(
      "collective",
      "error",
      text,
      `write: collectives = ${printable([...config.collectives, config.mainCollective].join(", "))}`,
      {
        source: main,
      },
    );
  }
  const ttl = config.values.get("ttl");
  if (ttl !== undefined && config.ttl < MIN_TTL_SECONDS) {
    const text = `ttl is ${config.ttl}: servers drop a request with less than ${MIN_TTL_SECONDS}, and say nothing`;
    findings.add("ttl", "error", text, "write: ttl = 60", { source: ttl });
  } else if (ttl !== undefined && config.ttl > DEFAULT_MAX_TTL_SECONDS) {
    const text = `ttl is ${config.ttl} seconds: so long can anybody who saw a request send it again, and our signer takes at most ${DEFAULT_MAX_TTL_SECONDS}`;
    findings.add("ttl", "warning", text, "write: ttl = 60, or raise --max-ttl of the signer", { source: ttl });
  }
  if (config.discoveryTimeout < PATIENT && signsWithToken(config.provider, config.values)) {
    const text = `discovery_timeout is ${config.discoveryTimeout}: a touch or a confirmation must happen within it, or nobody is discovered`;
    findings.add("discovery-timeout", "warning", text, `write: discovery_timeout = ${PATIENT}, if signatures wait for a person`, {
      source: config.values.get("discovery_timeout"),
      stockOnly: true,
    });
  }
}

const signsWithToken = (provider: string, values: ReadonlyMap<string, unknown>): boolean =>
  provider === "pkcs11" || values.has("plugin.choria.security.request_signer.url");

function broker(word: string, key: string, source: { readonly path: string; readonly line: number } | undefined, findings: Findings): void {
  const shown = printable(word, 200);
  const parsed = parseBroker(word);
  const scheme = /^([a-z][a-z0-9+.-]*):\/\//i.exec(word)?.[1]?.toLowerCase();
  if (scheme === "ws" || scheme === "wss") {
    findings.add(
      "websocket",
      "error",
      `${shown} is a broker behind a websocket, which the relay cannot reach`,
      `write: ${key} = nats://HOST:4222`,
      {
        source,
      },
    );
  } else if (parsed === null) {
    findings.add("bad-broker", "error", `${key} names ${shown}, which is no broker`, `write: ${key} = nats://HOST:4222`, { source });
  } else if (scheme === "tls") {
    const text = `choria cannot use the scheme of ${shown}; with nats:// it speaks TLS too`;
    findings.add("tls-scheme", "error", text, `write: ${key} = nats://${parsed.host}:${parsed.port}`, { source });
  } else if (!/:\d+$/.test(word.replace(/\/+$/, ""))) {
    findings.add("no-port", "error", `${shown} has no port, and choria refuses it`, `write: ${key} = nats://${parsed.host}:4222`, {
      source,
    });
  }
  if (word.includes("@")) {
    const mend = "write plugin.nats.user and plugin.nats.pass instead";
    findings.add("userinfo", "error", `${key} has a user or a password in a URL, which choria takes off before it connects`, mend, {
      source,
    });
  }
}
