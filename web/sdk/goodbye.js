/** Why a gateway ends a session: what each reason means, and whether the session may come back by itself. Pure. */

import { OoblexError } from './errors.js';

/** Every reason that a gateway of this version gives. */
export const REASONS = {
  ended: { detail: 'The operator ended the session through the gateway\'s API. Connect again if you may.' },
  expired: { code: 'expired' },
  idle: { detail: 'The gateway ended the session because no media came from this browser for a while (limits.idle_s). Check the camera, then connect again.' },
  time_limit: { detail: 'The gateway ended the session because it lasted as long as one may last there (limits.session_minutes). Connect again.' },
  undecodable: { detail: 'The gateway ended the session because it could not decode the video of this browser. Try another codec, or a smaller picture.' },
  budget: { detail: 'The gateway ended the session because it took more processor time than one session may take. Send a smaller picture, or less sound and data, then connect again.' },
  too_many_channels: { detail: 'The gateway ended the session because it used more data channels than a session may. The SDK needs one: look for what else opens some, then connect again.' },
  broken: { detail: 'The gateway had an error in this session and ended it. Connect again.', comesBack: true },
  draining: { detail: 'The gateway is being replaced and ended its sessions. Connect again.', comesBack: true },
  stopping: { detail: 'The gateway stops, perhaps to start again. Connect again.', comesBack: true },
};

/**
 * The error for a session that the gateway ended, and whether the session is to come back.
 *
 * @param {{reason?: string, detail?: string} | null} bye the gateway's last message; null where it said none
 * @param {{canRenew: boolean}} about whether another token can be had
 */
export function goodbye(bye, { canRenew }) {
  const reason = typeof bye?.reason === 'string' ? bye.reason : null;
  const known = Object.hasOwn(REASONS, reason);
  // Reasons of newer gateways pass, as does a connection that ended without a word.
  const { code = 'closed', detail = 'The gateway ended the session: connect again.', comesBack = !known } = known ? REASONS[reason] : {};
  const said = typeof bye?.detail === 'string' && bye.detail ? bye.detail : code === 'closed' ? detail : undefined;
  return { error: new OoblexError(code, { detail: said, reason }), comesBack: reason === 'expired' ? canRenew : comesBack };
}
