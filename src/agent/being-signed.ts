/*
 * What each client has being signed at this moment, of the documents that the agent reads: so that whoever is asked for a touch is
 * told what for. It must never say it of another client's.
 */

export interface BeingSigned {
  /** Notes it; the answer takes it back. */
  begin(client: string, what: string): () => void;
  /** What a client's touch is for; null where the agent does not know, or the client has something else going too. */
  of(client: string): string | null;
}

/** Nothing is being signed yet. */
export function createBeingSigned(): BeingSigned {
  const clients = new Map<string, string[]>();
  return {
    begin(client, what) {
      const all = clients.get(client) ?? [];
      all.push(what);
      clients.set(client, all);
      return () => {
        all.splice(all.indexOf(what), 1);
        if (all.length === 0) clients.delete(client);
      };
    },
    of(client) {
      const all = clients.get(client) ?? [];
      if (all.length < 2) return all[0] ?? null;
      return `one of ${all.length}, such as ${all[0]}`;
    },
  };
}
