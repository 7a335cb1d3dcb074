/* One request, as stock Choria would make it, and what of it a test wants otherwise. */
import type { ChoriaRequest, RequestEnvelope, RequestFilter } from "../../../../src/choria/documents/request.js";

export const NO_FILTER: RequestFilter = { fact: [], cf_class: [], agent: [], identity: [], compound: [] };
const ENVELOPE: RequestEnvelope = {
  requestid: "0123456789abcdef0123456789abcdef",
  senderid: "bastion.example.net",
  callerid: "choria=ptittle",
  collective: "mcollective",
  agent: "rpcutil",
  ttl: 60,
  time: 1_795_418_660,
  filter: NO_FILTER,
};

export function request(envelope: Partial<RequestEnvelope> = {}, message?: string): ChoriaRequest {
  const whole = { ...ENVELOPE, ...envelope };
  return { message: message ?? JSON.stringify({ agent: whole.agent, action: "ping", data: {} }), envelope: whole };
}
