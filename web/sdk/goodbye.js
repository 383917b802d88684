/**
 * Reasons for which a gateway ends a session: the meaning of each, and whether the session may
 * reconnect. Pure.
 */

import { OoblexError } from './errors.js';

/**
 * The reasons that ooblex.d.ts names, without the `string` for others.
 *
 * @template {string} [Reason=import('./ooblex.js').EndReason]
 * @typedef {Reason extends string ? (string extends Reason ? never : Reason) : never} KnownReason
 */

/**
 * All reasons that a gateway of this version gives.
 *
 * @type {Record<KnownReason, {code?: import('./ooblex.js').OoblexErrorCode, detail?: string, comesBack?: boolean}>}
 */
export const REASONS = {
  ended: { detail: 'The operator ended the session through the gateway\'s API. Connect again if you are allowed to.' },
  expired: { code: 'expired' },
  idle: { detail: 'The gateway ended the session because no media came from this browser for a while (limits.idle_s). Check the camera, then connect again.' },
  time_limit: { detail: 'The gateway ended the session because it reached the maximum duration (limits.session_minutes). Connect again.' },
  undecodable: { detail: 'The gateway ended the session because it could not decode the video of this browser. Try another codec, or a lower resolution.' },
  budget: { detail: 'The gateway ended the session because it used more CPU time than a session may use. Send a lower resolution, or less audio and data, then connect again.' },
  too_many_channels: { detail: 'The gateway ended the session because it used more data channels than a session may. The SDK needs one: find the code that opens others, then connect again.' },
  publisher_ended: { detail: 'The publisher whose video this session received has ended. Connect again when it sends.' },
  broken: { detail: 'The gateway had an error in this session and ended it. Connect again.', comesBack: true },
  draining: { detail: 'The gateway is being replaced and ended its sessions. Connect again.', comesBack: true },
  stopping: { detail: 'The gateway stops, and may start again. Connect again.', comesBack: true },
};

/**
 * Returns the error for a session that the gateway ended, and whether the session should reconnect.
 *
 * @param {{reason?: string, detail?: string} | null} bye the gateway's last message, or null if
 *   there was none
 * @param {{canRenew: boolean}} about whether another token can be obtained
 */
export function goodbye(bye, { canRenew }) {
  const reason = typeof bye?.reason === 'string' ? bye.reason : null;
  const known = reason !== null && Object.hasOwn(REASONS, reason);
  // An unknown reason, of a newer gateway, counts as temporary, like a connection that ended
  // without a message.
  const { code = 'closed', detail = 'The gateway ended the session: connect again.', comesBack = !known } = known ? REASONS[reason] : {};
  const said = typeof bye?.detail === 'string' && bye.detail ? bye.detail : code === 'closed' ? detail : undefined;
  return { error: new OoblexError(code, { detail: said, reason }), comesBack: reason === 'expired' ? canRenew : comesBack };
}
