/*
 * What choria finds in its environment. It must never be given to another program: one variable switches TLS off, and is true only
 * because the relay stands behind the loopback.
 */

/** What the relay and the signer want to know. */
export interface ChildLogin {
  /** The caller's name, without `choria=`. */
  readonly commonName: string;
  /** Of the relay. */
  readonly user: string;
  readonly password: string;
}

/** Variables that would undo what the configuration says. */
export const UNDOING_VARIABLES = [
  "INSECURE_ANON_TLS",
  "INSECURE_YES_REALLY",
  "MCOLLECTIVE_NATS_CREDENTIALS",
  "CHORIA_FED_COLLECTIVE",
] as const;

/** The environment of choria, out of that of whoever starts it. */
export function childEnvironment(env: Readonly<NodeJS.ProcessEnv>, login: ChildLogin): NodeJS.ProcessEnv {
  const kept = Object.entries(env).filter(([name]) => !(UNDOING_VARIABLES as readonly string[]).includes(name));
  return {
    ...Object.fromEntries(kept),
    // The only value that choria takes for a yes.
    INSECURE_DISABLE_TLS: "true",
    MCOLLECTIVE_CERTNAME: login.commonName,
    MCOLLECTIVE_NATS_USERNAME: login.user,
    MCOLLECTIVE_NATS_PASSWORD: login.password,
  };
}
