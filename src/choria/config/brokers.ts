/*
 * The brokers that a client's configuration leads to, in choria's order: the list in it, else SRV records where it wants them,
 * else `puppet`. The resolver is handed in, because the one that counts may be a bastion's. It must never look further than
 * choria would: a broker that is not named there is not the user's.
 */
import { TokenfwdError } from "../../base/errors.js";
import { printable } from "../../base/printable.js";
import type { ClientConfig } from "./client-config.js";

export interface Broker {
  readonly host: string;
  readonly port: number;
}

/** An SRV record, as node:dns has it. */
export interface SrvRecord {
  readonly name: string;
  readonly port: number;
  readonly priority: number;
  readonly weight: number;
}

/** Looks up SRV records; rejects when there are none. */
export type ResolveSrv = (name: string) => Promise<readonly SrvRecord[]>;

const DEFAULT_PORT = 4222;
const PUPPET: Broker = { host: "puppet", port: DEFAULT_PORT };
const RECORDS = ["_mcollective-server._tcp", "_x-puppet-mcollective._tcp"] as const;
const FEDERATION_RECORDS = ["_mcollective-federation_server._tcp", "_x-puppet-mcollective_federation._tcp"] as const;

/** A name is letters, digits, `.`, `_` and `-`: whatever else stands there could be meant for a terminal or a shell. */
const AUTHORITY = /^(?:\[([0-9a-f:.]+(?:%[\w.-]+)?)\]|([\w.-]{1,253}))(?::(\d{1,5}))?$/i;

/**
 * One word of `middleware_hosts`: `nats://HOST:PORT`, `choria://HOST:PORT`, `HOST:PORT`, `[IPV6]:PORT`; without a port it is
 * 4222. Null when it is none of these. (choria itself refuses one without a port: see checkConfig.)
 */
export function parseBroker(text: string): Broker | null {
  const [, scheme = "nats", rest = ""] = /^(?:([a-z][a-z0-9+.-]*):\/\/)?(.*)$/is.exec(text.trim()) ?? [];
  if (!["nats", "choria", "tls"].includes(scheme.toLowerCase())) return null;
  const authority = rest.replace(/\/.*$/s, "").replace(/^.*@/s, "");
  const [, bracketed, plain, port = String(DEFAULT_PORT)] = AUTHORITY.exec(authority) ?? [];
  const host = bracketed ?? plain;
  const number = Number(port);
  return host === undefined || number < 1 || number > 65_535 ? null : { host, port: number };
}

/**
 * The brokers, at least one. `domain` is that of SRV records where the configuration names none (choria asks facter then).
 * Rejects with E_CHORIA_CONFIG for a word that is no broker, and for a federation that cannot be found.
 */
export async function brokersOf(config: ClientConfig, resolveSrv: ResolveSrv, domain: string | null = null): Promise<readonly Broker[]> {
  const federated = config.federations.length > 0;
  const named = federated ? config.federationHosts : config.middlewareHosts;
  if (named.length > 0) return named.map((word) => brokerOrThrow(word, federated));
  const where = config.srvDomain ?? domain;
  if (config.useSrv && where !== null && where !== "") {
    const found = await srvBrokers(where, resolveSrv, federated ? FEDERATION_RECORDS : RECORDS);
    if (found.length > 0) return found;
  }
  if (!federated) return [PUPPET];
  throw new TokenfwdError("E_CHORIA_CONFIG", `no broker of the federation ${printable(config.federations.join(", "))} can be found`, {
    hint: "set plugin.choria.federation_middleware_hosts = nats://HOST:PORT",
  });
}

/** The brokers that SRV records of a domain name, of the first record that is there; none where none is. */
export async function srvBrokers(domain: string, resolveSrv: ResolveSrv, records: readonly string[] = RECORDS): Promise<readonly Broker[]> {
  for (const record of records) {
    const found = await lookUp(`${record}.${domain}`, resolveSrv);
    if (found.length > 0) return found;
  }
  return [];
}

function brokerOrThrow(word: string, federated: boolean): Broker {
  const broker = parseBroker(word);
  if (broker !== null) return broker;
  const key = federated ? "plugin.choria.federation_middleware_hosts" : "plugin.choria.middleware_hosts";
  throw new TokenfwdError("E_CHORIA_CONFIG", `${key} names ${printable(word)}, which is no broker`, {
    hint: `write ${key} = nats://HOST:PORT, several with commas`,
  });
}

/** By priority, within one by weight; the root's dot is taken off. A name without records is an empty list. */
async function lookUp(name: string, resolveSrv: ResolveSrv): Promise<Broker[]> {
  try {
    const records = await resolveSrv(name);
    return [...records]
      .sort((a, b) => a.priority - b.priority || b.weight - a.weight)
      .map((record) => ({ host: record.name.replace(/\.+$/, ""), port: record.port }))
      .filter(({ host, port }) => /^[A-Za-z0-9._-]+$/.test(host) && port > 0);
  } catch {
    return [];
  }
}
