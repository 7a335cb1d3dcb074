/*
 * One token host shared by many clients: the real log-in, the real objects, and who holds sessions where.
 * It never answers a call itself; each client's Cryptoki does (client.ts).
 */
import type { Cryptoki } from "../cryptoki/types.js";
import { createClientCryptoki } from "./client.js";
import { createSignProofs, type SignProofs } from "./held-sign.js";
import type { TokenHost } from "./host/host.js";
import { createKeyLease, type KeyLease } from "./key-lease.js";
import { createLoginDesk, type LoginDesk, type PinMode } from "./login.js";
import { createObjectRegistry, type HandleAge, type ObjectRegistry, type ObjectView } from "./objects.js";
import type { SessionTable } from "./session-table.js";

/** What the policy lets a client see. */
export interface Visibility {
  /** False hides the slot and answers CKR_SLOT_ID_INVALID for it. */
  readonly slot: (slot: bigint) => boolean;
  /** False hides a token object from every search. */
  readonly object: (object: ObjectView) => boolean;
  /** False answers CKR_ATTRIBUTE_SENSITIVE for this attribute. */
  readonly attribute: (object: ObjectView, type: number) => boolean;
}

/** What all clients of one process of the module have in common. */
export interface Shared {
  readonly host: TokenHost;
  readonly desk: LoginDesk;
  readonly lease: KeyLease;
  readonly objects: ObjectRegistry;
  readonly proofs: SignProofs;
  /** What real handles of a slot depend on now. */
  age(slot: bigint): HandleAge;
  /** The session tables of its clients that are open. */
  readonly tables: Set<SessionTable>;
}

export interface TokenBroker {
  /** A Cryptoki for one client, whose name is that of its CallContext. `close()` frees its sessions; the host lives on. */
  createClient(client: string, visibility: Visibility): Cryptoki;
  readonly login: LoginDesk;
}

/**
 * A broker over a host, or a pool of them: a client stays on one, the one with the fewest clients when it comes. It owns nothing that
 * needs closing: clients own their sessions, the hosts their processes.
 */
export function createTokenBroker(module: TokenHost, pinMode: PinMode): TokenBroker {
  const first = shareHost(module, pinMode, null);
  const all = [first, ...(module.others ?? []).map((other) => shareHost(other, pinMode, first.desk))];
  const emptiest = () => all.reduce((best, one) => (one.tables.size < best.tables.size ? one : best));
  return { login: first.desk, createClient: (client, visibility) => createClientCryptoki(emptiest(), client, visibility) };
}

function shareHost(module: TokenHost, pinMode: PinMode, firstDesk: LoginDesk | null): Shared {
  const lease = createKeyLease(module);
  const { host } = lease;
  // Past the lease: who has it may have to wait for a log-in that another client has begun.
  const desk = createLoginDesk(module, pinMode, firstDesk);
  const tables = new Set<SessionTable>();
  host.keep((quietMs) => [...tables].some((table) => isInUse(table, pinMode, host.epoch, quietMs)));
  return {
    host,
    desk,
    lease,
    objects: createObjectRegistry(host.cryptoki),
    proofs: createSignProofs(),
    age: (slot) => ({ epoch: host.epoch, loginGeneration: desk.generation(slot) }),
    tables,
  };
}

/** An operation that nobody has gone on with for so long is given up when the token is released. */
const OPERATION_MS = 300_000;

/** What a release of the token would take from a client, and could not be made good. */
function isInUse({ users, all }: SessionTable, pinMode: PinMode, epoch: number, quietMs: number): boolean {
  // Nobody here has the PIN that would log it in again.
  if (pinMode === "client" && users.size > 0) return true;
  return all().some(({ real, held }) => {
    if (real === null || real.epoch !== epoch) return false;
    return real.hasObjects || (quietMs < OPERATION_MS && (held !== null || real.operations.size > 0));
  });
}
