/*
 * What to put where to use a stock choria with the key on the token, for three set-ups: as a client's configuration that can be used
 * as it stands, with everything else in comments. It must never print a secret, nor a setting that was not tried with the real choria.
 */
import { allowLine } from "./check-certificate.js";

/** `relay`: our signer and our relay. `bastion-tls`: our signer, TLS with a certificate of the bastion's. `pkcs11`: choria's own provider. */
export const SETUPS = ["relay", "bastion-tls", "pkcs11"] as const;
export type Setup = (typeof SETUPS)[number];

/** What is known of the site; what is null gets a placeholder that cannot be mistaken. */
export interface SetupFacts {
  /** CN of the token's certificate. */
  readonly name: string | null;
  /** `HOST:PORT` each; empty: not known. */
  readonly brokers: readonly string[];
  readonly ca: string | null;
  readonly collectives: readonly string[];
  readonly mainCollective: string;
  /** p11-kit's client module. */
  readonly module: string | null;
}

const RELAY = "127.0.0.1:14222";
const SIGNER = "127.0.0.1:18080";
const SECRETS = "~/.choria-signer";
const LOGIN = "~/.choria-relay-login";
const PLACES = { broker: "BROKER.example.net:4222", ca: "/etc/choria/ca.pem", name: "YOUR-NAME", module: "/PATH/TO/p11-kit-client.so" };

type Line = readonly [key: string, value: string];
const settings = (lines: readonly Line[]): string[] => lines.map(([key, value]) => `${key} = ${value}`);
const comment = (text: string): string[] => text.split("\n").map((line) => `#${line === "" ? "" : ` ${line}`}`);

/** The text, with its line end. */
export function setupText(setup: Setup, facts: SetupFacts): string {
  const brokers = facts.brokers.length > 0 ? facts.brokers : [PLACES.broker];
  const known = { ...facts, brokers, ca: facts.ca ?? PLACES.ca, name: facts.name ?? PLACES.name, module: facts.module ?? PLACES.module };
  return `${[...TEXTS[setup](known), "", ...servers(known.name), ...placeholders(facts, setup)].join("\n")}\n`;
}

type Known = { readonly [K in keyof SetupFacts]: NonNullable<SetupFacts[K]> };

const TEXTS: Readonly<Record<Setup, (known: Known) => string[]>> = {
  relay: (known) => [
    ...comment(`Choria with the token's key: requests signed and TLS made by tokenfwd, no key and no certificate here.
\`tokenfwd choria run -- ARGS\` does all this for one run; this is for a choria that is started some other way.

1. The client's configuration: keep this text as ~/.choriarc (key = value, without quotes)`),
    ...common(known, [`nats://${RELAY}`]),
    ...settings([["plugin.security.provider", "file"], ...signerLines(), ...relayLogin()]),
    "",
    ...comment(`2. While the token is connected, each in a terminal of its own (other ports will do, if these are taken):
   ${signerCommand()}
   ${relayCommand(known)}

3. In the environment of choria:
   ${relayEnvironment()}
   export MCOLLECTIVE_CERTNAME=${known.name}`),
  ],
  "bastion-tls": (known) => [
    ...comment(`Choria with requests signed by the token's key, and TLS with a certificate of this machine's own.
That certificate is for TLS alone: it must not be on the servers' list of callers. But whoever can read its
key can listen to every request and every reply on the network.

1. The client's configuration: keep this text as ~/.choriarc (key = value, without quotes)`),
    ...common(
      known,
      known.brokers.map((broker) => `nats://${broker}`),
    ),
    ...settings([
      ["plugin.security.provider", "file"],
      ["plugin.security.file.ca", known.ca],
      ["plugin.security.file.certificate", "/etc/choria/bastion.pem"],
      ["plugin.security.file.key", "/etc/choria/bastion.key"],
      ...signerLines(),
    ]),
    "",
    ...comment(`2. While the token is connected, in a terminal of its own (another port will do, if this one is taken):
   ${signerCommand()}

3. In the environment of choria:
   export MCOLLECTIVE_CERTNAME=${known.name}`),
  ],
  pkcs11: (known) => [
    ...comment(`Choria's own pkcs11 provider on p11-kit's client module, behind our relay.
Without the relay, with the broker itself in middleware_hosts, it cannot connect: its TLS handshakes are signed
with PKCS#1 v1.5, and today's brokers want RSA-PSS. choria then ends with "context deadline exceeded" after 2 s,
and has asked the token for 11 signatures.
It wants exactly one key and one certificate (tokenfwd connect --key URI shows it no more), and asks for a PIN on a
terminal at every run: give it anything, the PIN that counts is asked for at the workstation.

1. The client's configuration: keep this text as ~/.choriarc (key = value, without quotes)`),
    ...common(known, [`nats://${RELAY}`]),
    ...settings([
      ["plugin.security.provider", "pkcs11"],
      ["plugin.security.pkcs11.driver_file", known.module],
      ["plugin.security.pkcs11.slot", "0"],
      ["plugin.security.file.ca", known.ca],
      ...relayLogin(),
    ]),
    "",
    ...comment(`2. While the token is connected, in a terminal of its own (another port will do, if this one is taken):
   ${relayCommand(known)}

3. In the environment of choria:
   ${relayEnvironment()}`),
  ],
};

function common({ collectives, mainCollective }: Known, hosts: readonly string[]): string[] {
  return [
    ...settings([
      ["collectives", collectives.join(", ")],
      ["main_collective", mainCollective],
    ]),
    ...comment(
      "Seconds for a touch or a confirmation. Each broadcast discovery takes all of them: 2 do for a token that waits for nobody.",
    ),
    ...settings([
      ["discovery_timeout", "10"],
      ["plugin.choria.use_srv", "false"],
      ["plugin.choria.middleware_hosts", hosts.join(", ")],
    ]),
  ];
}

function signerLines(): Line[] {
  return [
    ["plugin.choria.security.request_signer.url", `http://${SIGNER}/choria/v1/sign`],
    ["plugin.choria.security.request_signer.token_file", `${SECRETS}/signer.token`],
    ["plugin.choria.security.request_signer.seed_file", `${SECRETS}/signer.seed`],
  ];
}

/** The variables count only where the file has the keys. */
const relayLogin = (): Line[] => [
  ["plugin.nats.user", "x"],
  ["plugin.nats.pass", "x"],
];

const signerCommand = (): string => `tokenfwd choria signer --listen ${SIGNER} --secrets ${SECRETS}`;
const relayCommand = ({ brokers, ca }: Known): string =>
  `tokenfwd choria relay --listen ${RELAY} --broker ${brokers.join(",")} --ca ${ca} --login-file ${LOGIN}`;
const relayEnvironment = (): string => `export INSECURE_DISABLE_TLS=true     # TLS is the relay's: choria speaks to loopback alone
   export MCOLLECTIVE_NATS_USERNAME="$(cut -d: -f1 ${LOGIN})" MCOLLECTIVE_NATS_PASSWORD="$(cut -d: -f2- ${LOGIN})"`;

function servers(name: string): string[] {
  return comment(`In the configuration of every Choria server, once (their default list has only *.mcollective and *.choria):
   ${allowLine(name)}`);
}

function placeholders(facts: SetupFacts, setup: Setup): string[] {
  const unknown = [
    ...(facts.name === null ? [`${PLACES.name} (the CN of the token's certificate)`] : []),
    ...(facts.brokers.length === 0 ? [PLACES.broker] : []),
    ...(facts.ca === null ? [PLACES.ca] : []),
    ...(facts.module === null && setup === "pkcs11" ? [PLACES.module] : []),
  ];
  return unknown.length === 0 ? [] : ["", ...comment(`Not known here, and to be replaced: ${unknown.join(", ")}`)];
}
