/*
 * The keys that go-choria 0.30 knows, of client, server and broker alike, since choria passes over every other in silence. Agents
 * and plugins have keys of their own below `plugin.NAME.`, which nobody can list.
 */

const TOP = `classesfile collectives color default_discovery_method default_discovery_options discovery_timeout identity libdir logfile
  loglevel main_collective registerinterval registration registration_collective registration_splay rpcaudit rpcauthorization
  rpcauthprovider rpclimitmethod soft_shutdown_timeout ttl`;
const CHORIA = `adapters agent_provider.mcorpc.agent_shim agent_provider.mcorpc.config agent_provider.mcorpc.libdir broker_federation
  broker_network discovery.broadcast.windowed_timeout discovery.external.command discovery.inventory.source executor.enabled
  executor.spool federation.cluster federation.collectives federation_middleware_hosts legacy_lifecycle_format machine.http_port
  machine.signing_key machine.store middleware_hosts prometheus_textfile_directory puppetca_host puppetca_port puppetdb_host
  puppetdb_port puppetserver_host puppetserver_port registration.file_content.compression registration.file_content.data
  registration.file_content.target registration.inventory_content.compression registration.inventory_content.target
  registration.size_interval registration.size_trigger require_client_filter server.provision server.provision.allow_update
  services.registry.cache services.registry.store srv_domain ssldir stats_address stats_port status_file_path status_update_interval
  submission.max_spool_size submission.spool use_srv`;
const CHORIA_NETWORK = `auth_timeout client_hosts client_port client_signer_cert client_tls_force_required connect_timeout
  deny_server_connections gateway_name gateway_port gateway_remotes leafnode_port leafnode_remotes listen_address mapping.names
  peer_password peer_port peer_user peers pprof_port provisioning.client_password provisioning.provisioner_without_token
  provisioning.signer_cert public_url server_signer_cert soft_shutdown_timeout stream.advisory_replicas stream.advisory_retention
  stream.event_replicas stream.event_retention stream.executor_replicas stream.executor_retention stream.leader_election_replicas
  stream.leader_election_ttl stream.machine_replicas stream.machine_retention stream.manage_streams stream.store system.password
  system.user tls_timeout websocket_advertise websocket_port write_deadline`;
const CHORIA_SECURITY = `certname_whitelist privileged_users request_signer.seed_file request_signer.service request_signer.token_file
  request_signer.url server.seed_file server.token_file`;
const SECURITY = `certmanager.alt_names certmanager.api_version certmanager.issuer certmanager.namespace certmanager.replace choria.ca
  choria.certificate choria.key choria.seed_file choria.sign_replies choria.token_file choria.trusted_signers cipher_suites
  client_anon_tls ecc_curves file.ca file.certificate file.key issuer.names pkcs11.driver_file pkcs11.slot provider server_anon_tls
  support_legacy_certificates`;
const OTHERS = `plugin.login.aaasvc.login.url plugin.machines.bucket plugin.machines.check_interval plugin.machines.download
  plugin.machines.key plugin.machines.poll_interval plugin.machines.purge plugin.machines.signing_key plugin.nats.credentials
  plugin.nats.pass plugin.nats.user plugin.rpcaudit.logfile plugin.rpcaudit.logfile.group plugin.rpcaudit.logfile.mode
  plugin.scout.agent_disabled plugin.scout.goss.denied_local_resources plugin.scout.goss.denied_remote_resources
  plugin.scout.overrides plugin.scout.tags plugin.yaml`;

const words = (text: string, prefix = ""): string[] => text.split(/\s+/).map((word) => `${prefix}${word}`);

/** All of them. */
const KNOWN_KEYS: ReadonlySet<string> = new Set([
  ...words(TOP),
  ...words(CHORIA, "plugin.choria."),
  ...words(CHORIA_NETWORK, "plugin.choria.network."),
  ...words(CHORIA_SECURITY, "plugin.choria.security."),
  ...words(SECURITY, "plugin.security."),
  ...words(OTHERS),
]);

/** Those that are numbers, and those that are yes or no, as far as a client looks at them. */
export const INTEGER_KEYS: ReadonlySet<string> = new Set(["discovery_timeout", "ttl", "plugin.security.pkcs11.slot"]);
export const BOOLEAN_KEYS: ReadonlySet<string> = new Set([
  "color",
  "plugin.choria.use_srv",
  "plugin.choria.require_client_filter",
  "plugin.choria.security.request_signer.service",
  "plugin.choria.discovery.broadcast.windowed_timeout",
  "plugin.security.client_anon_tls",
  "plugin.security.support_legacy_certificates",
]);
/** Those that are the path of a file. */
export const PATH_KEYS: ReadonlySet<string> = new Set([
  "logfile",
  "plugin.choria.ssldir",
  "plugin.choria.security.request_signer.seed_file",
  "plugin.choria.security.request_signer.token_file",
  "plugin.choria.discovery.external.command",
  "plugin.choria.discovery.inventory.source",
  "plugin.security.choria.ca",
  "plugin.security.choria.seed_file",
  "plugin.security.choria.token_file",
  "plugin.security.file.ca",
  "plugin.security.file.certificate",
  "plugin.security.file.key",
  "plugin.security.pkcs11.driver_file",
]);
/** Known once, by choria or by the MCollective before it, and no more. */
export const OLD_KEYS: ReadonlySet<string> = new Set(
  words(
    `connection_timeout connector daemonize default_batch_size default_batch_sleep_time direct_addressing fact_cache_time factsource
    keeplogs logfacility logger_type max_log_size publish_timeout rpcauditprovider rpchelptemplate securityprovider threaded
    plugin.choria.security.request_signer.force plugin.choria.security.request_signer.token_environment
    plugin.choria.security.serializer plugin.security.file.cache`,
  ),
);

const KNOWN_ROOTS = /^plugin\.(choria|security|nats|login|scout)\./;
/** Names within these that a site chooses itself. */
const OPEN = /^plugin\.(security\.issuer|choria\.network\.mapping|choria\.adapter|choria\.data)\./;

/** Whether choria, or an agent of somebody's, may look at the key. */
export function mayBeKnown(key: string): boolean {
  if (KNOWN_KEYS.has(key) || OPEN.test(key)) return true;
  return key.startsWith("plugin.") && !KNOWN_ROOTS.test(key);
}

/** The known key that is closest to a misspelt one, or null when none is close. */
export function nearestKey(key: string): string | null {
  const limit = Math.min(4, Math.floor(key.length / 4));
  let best: string | null = null;
  let least = limit + 1;
  for (const known of KNOWN_KEYS) {
    const distance = editDistance(key.toLowerCase(), known, least);
    if (distance < least) {
      least = distance;
      best = known;
    }
  }
  return best;
}

/** Levenshtein's distance, or `limit` when it is not below that. */
function editDistance(one: string, other: string, limit: number): number {
  if (Math.abs(one.length - other.length) >= limit) return limit;
  let row = Array.from({ length: other.length + 1 }, (_, index) => index);
  for (let i = 1; i <= one.length; i++) {
    const next = [i];
    for (let j = 1; j <= other.length; j++) {
      const swap = (row[j - 1] ?? 0) + (one[i - 1] === other[j - 1] ? 0 : 1);
      next.push(Math.min(swap, (row[j] ?? 0) + 1, (next[j - 1] ?? 0) + 1));
    }
    row = next;
  }
  return Math.min(limit, row[other.length] ?? limit);
}
