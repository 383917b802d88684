/** Statistics of a connection, calculated from two reports of getStats. Pure. */

/**
 * Returns statistics from two reports; rates need an earlier report and are null without one.
 *
 * @param {RTCStatsReport | null} earlier
 * @param {RTCStatsReport} now
 * @returns {import('./ooblex.js').Measures}
 */
export function figuresBetween(earlier, now) {
  const find = (report, type, also = (_) => true) => [...(report?.values() ?? [])].find((s) => s.type === type && also(s));
  const isVideo = (s) => s.kind === 'video';
  const [inbound, inboundBefore] = [now, earlier].map((r) => find(r, 'inbound-rtp', isVideo));
  const [outbound, outboundBefore] = [now, earlier].map((r) => find(r, 'outbound-rtp', isVideo));
  const camera = find(now, 'media-source', isVideo);
  const pair = find(now, 'candidate-pair', (s) => s.state === 'succeeded' && s.nominated);
  const arrived = find(now, 'remote-inbound-rtp', isVideo);
  const change = (a, b, field) => (a && b && a[field] >= b[field] ? a[field] - b[field] : null);
  const ratio = (a, b, scale) => (a === null || !(b > 0) ? null : (scale * a) / b);
  const rate = (a, b, field, scale) => ratio(change(a, b, field), change(a, b, 'timestamp'), 1000 * scale);
  const mean = (field, of) => ratio(change(inbound, inboundBefore, field), change(inbound, inboundBefore, of), 1000);
  const [lost, got] = ['packetsLost', 'packetsReceived'].map((field) => change(inbound, inboundBefore, field));
  return {
    roundTripMs: pair?.currentRoundTripTime >= 0 ? pair.currentRoundTripTime * 1000 : null,
    camera: { fps: camera?.framesPerSecond ?? null, width: camera?.width ?? null, height: camera?.height ?? null },
    sent: {
      fps: rate(outbound, outboundBefore, 'framesEncoded', 1),
      bitrateBps: rate(outbound, outboundBefore, 'bytesSent', 8),
      width: outbound?.frameWidth ?? null,
      height: outbound?.frameHeight ?? null,
      encodeMs: ratio(change(outbound, outboundBefore, 'totalEncodeTime'), change(outbound, outboundBefore, 'framesEncoded'), 1000),
      limitedBy: /** @type {const} */ (['cpu', 'bandwidth']).find((reason) => reason === outbound?.qualityLimitationReason) ?? null,
      lostShare: arrived?.fractionLost ?? null,
    },
    received: {
      fps: rate(inbound, inboundBefore, 'framesDecoded', 1),
      bitrateBps: rate(inbound, inboundBefore, 'bytesReceived', 8),
      width: inbound?.frameWidth ?? null,
      height: inbound?.frameHeight ?? null,
      codec: now.get(inbound?.codecId)?.mimeType?.replace('video/', '') ?? null,
      jitterBufferMs: mean('jitterBufferDelay', 'jitterBufferEmittedCount'),
      decodeMs: mean('totalDecodeTime', 'framesDecoded'),
      droppedFps: rate(inbound, inboundBefore, 'framesDropped', 1),
      lostShare: lost === null || got === null ? null : lost + got > 0 ? lost / (lost + got) : 0,
    },
  };
}
