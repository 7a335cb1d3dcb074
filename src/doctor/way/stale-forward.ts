/*
 * What the recipe by hand left in the ssh configuration. It must never change it.
 */
import { defineCheck, pass } from "../check.js";
import type { DoctorContext } from "../context.js";

export const staleForwardCheck = defineCheck<DoctorContext>()({
  id: "stale-forward",
  title: "RemoteForward of the recipe",
  looks: "Whether the ssh configuration for this host still has a RemoteForward to a p11-kit path, as the recipe by hand has it.",
  needs: ["ssh-config"],
  causes: {
    "left-over-forward": {
      status: "warn",
      code: null,
      meaning:
        "tokenfwd needs no RemoteForward. One that is left makes each plain ssh take the path that stock programs look at, or complain that it cannot.",
      mend: 'delete this line from your ssh configuration: "RemoteForward {line}"',
    },
  },
  async run({ way }, { broken }) {
    const [line] = (await way.settings()).staleForwards;
    return line === undefined ? pass("none") : broken("left-over-forward", `RemoteForward ${line}`, { line });
  },
});
