/*
 * What else lies on a bastion that bears upon the token: what lives on the path that stock programs look at, and what the recipe by
 * hand has left behind. Only doctor asks. It must never change anything there, and never start what a start file names.
 */
import type { Transport } from "../transport.js";
import type { Answer, Helper } from "./helper.js";
import { SCRIPT_END } from "./helper-script.js";
import { first, liveness, type Probe } from "./place.js";

export interface Survey {
  /** What lies on the path that stock programs look at; `silent` takes connections and says nothing, `unknown`: nothing lets us look. */
  readonly wellKnown: {
    readonly path: string;
    readonly state: "none" | "ours" | "dead" | "answers" | "silent" | "unknown" | "unfit";
    /** `PID NAME` of the process that listens there, where that can be seen. */
    readonly holder: string | null;
  };
  /** `PID NAME` of the process that listens on the path of our own socket, where somebody does and it can be seen. */
  readonly ownHolder: string | null;
  /** systemd's p11-kit-server.socket of this user is active, and listens there. */
  readonly unit: boolean;
  /** P11_KIT_SERVER_ADDRESS as a session has it. */
  readonly address: string | null;
  /** Start files of shells that name P11_KIT_SERVER_ADDRESS. */
  readonly startFiles: readonly string[];
}

/** Asks the helper. @throws TokenfwdError E_REMOTE_SHELL */
export async function surveyBastion(transport: Transport, helper: Helper, probe: Probe, workstationId: string): Promise<Survey> {
  const answer = await helper.send(`${SURVEY}${SCRIPT_END}\n`, "more", "survey", workstationId);
  const { state, path } = await wellKnownState(transport, helper, probe, first(answer, "ours") === "yes");
  return {
    wellKnown: { path, state, holder: first(answer, "holder") },
    ownHolder: first(answer, "ownholder"),
    unit: first(answer, "unit") === "active",
    address: first(answer, "address"),
    startFiles: answer.get("startfile") ?? [],
  };
}

async function wellKnownState(
  transport: Transport,
  helper: Helper,
  probe: Probe,
  ours: boolean,
): Promise<Pick<Survey["wellKnown"], "path" | "state">> {
  const path = `${probe.runtimeDir}/p11-kit/pkcs11`;
  const known: Answer = await helper.request("known");
  const kind = first(known, "wk");
  if (kind === "none" || kind === "unfit") return { path, state: probe.runtimeDirFrom === "tmp" ? "none" : kind };
  if (first(known, "dangling") === "yes") return { path, state: "dead" };
  if (ours) return { path, state: "ours" };
  if (kind !== "link" && kind !== "socket") return { path, state: "unfit" };
  const state = await liveness(transport, helper, path, ["pingknown"]);
  return { path, state: state === "refused" ? "dead" : state };
}

/** Functions for the helper's script; they rely on what it has. Lines below 250 characters, no tab. */
const SURVEY = String.raw`
# Says under a key which process listens on a path: by the inode of its socket, among the processes that we may look at.
holder() {
  test -S "$2" && test -r /proc/net/unix && has awk || return
  i=$(awk -v p="$2" '$8 == p && $4 == "00010000" { print $7; exit }' /proc/net/unix)
  test -n "$i" || return
  set +f
  h=$(ls -l /proc/[0-9]*/fd 2>/dev/null | awk -v s="socket:[$i]" '/^\/proc\//{ p = $1 } index($0, s) { split(p, w, "/"); print w[3]; exit }')
  set -f
  test -n "$h" || return
  n=$(tr -cd ' -~' </proc/$h/comm 2>/dev/null)
  test -n "$n" && say "$1" "$h $n"
}
survey() {
  K=$RT/p11-kit/pkcs11
  # Of this connect or another of this account: what it points to lies where only we make something.
  test -h "$K" && case $(readlink "$K") in "$RT"/tokenfwd/*) say ours yes;; esac
  test "$RTKIND" = tmp || { t=$RT/p11-kit/pkcs11; test -h "$t" && t=$(readlink "$t"); holder holder "$t"; }
  holder ownholder "$RT/tokenfwd/$1/p11.sock"
  if test -d /run/systemd/system && has systemctl && has timeout; then
    u=$(timeout 3 systemctl --user is-active p11-kit-server.socket 2>/dev/null)
    case $u in active) say unit active;; *) say unit inactive;; esac
  fi
  case $P11_KIT_SERVER_ADDRESS in ''|*[!\ -~]*) ;; *) test ${"$"}{#P11_KIT_SERVER_ADDRESS} -le 200 && say address "$P11_KIT_SERVER_ADDRESS";; esac
  case $HOME in /*) ;; *) return;; esac
  case $HOME in *[[:cntrl:]]*) return;; esac
  for f in .bashrc .bash_profile .bash_login .profile .zshrc .zprofile .zshenv .cshrc .tcshrc .login .kshrc .config/fish/config.fish; do
    test -f "$HOME/$f" && grep -q P11_KIT_SERVER_ADDRESS "$HOME/$f" 2>/dev/null && say startfile "$HOME/$f"
  done
}
`;
