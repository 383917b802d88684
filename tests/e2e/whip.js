/**
 * Publishes and watches in a page without the SDK, by WHIP and WHEP.
 *
 * Owns the connections of the page. Refuses to know rooms' contents.
 */

/** Defines the functions below in a page that has `probe`. */
export const prepare = (page) => page.evaluate(`Object.assign(globalThis, { publish: ${publish}, watch: ${watch}, listen: ${listen}, exchange: ${exchange} })`);

/** Runs in the page: posts the offer of a connection and applies the answer. Returns the addresses of the session and of its events. */
async function exchange(connection, path, headers = {}) {
  await connection.setLocalDescription();
  const response = await fetch(path, { method: 'POST', body: connection.localDescription.sdp, headers: { 'Content-Type': 'application/sdp', ...headers } });
  if (response.status !== 201) throw new Error(`${response.status} ${await response.text()}`);
  const session = new URL(response.headers.get('Location'), response.url).href;
  await connection.setRemoteDescription({ type: 'answer', sdp: await response.text() });
  const [, events] = /<([^>]*)>; rel="urn:ietf:params:whep:ext:core:server-sent-events"/.exec(response.headers.get('Link')) ?? [];
  return { session, events };
}

/** Runs in the page: publishes the camera to a room. */
async function publish(room, query) {
  const connection = new RTCPeerConnection();
  for (const track of probe.camera.getTracks()) connection.addTransceiver(track.clone(), { direction: 'sendonly' });
  const { session } = await exchange(connection, `/whip/${room}${query}`);
  probe.keep(`whip ${room}`, { connection, session });
  return session;
}

/** Runs in the page: watches a room; its frames are seen under this name. Returns the time of the answer. */
async function watch(room, name, codec) {
  const connection = new RTCPeerConnection();
  const lines = ['video', 'audio'].map((kind) => connection.addTransceiver(kind, { direction: 'recvonly' }));
  const codecs = RTCRtpReceiver.getCapabilities('video').codecs.filter(({ mimeType }) => [`video/${codec}`, 'video/rtx'].includes(mimeType.toLowerCase()));
  lines[0].setCodecPreferences(codecs);
  probe.watch(name, lines[0].receiver.track);
  const { session, events } = await exchange(connection, `/whep/${room}`);
  const answered = performance.now();
  probe.keep(`whep ${name}`, { connection, session, told: listen(events) });
  return answered;
}

/** Runs in the page: reads events of a room. Returns the list to which they are added. */
function listen(address) {
  const told = [];
  const source = new EventSource(address);
  for (const name of ['active', 'inactive', 'viewercount']) {
    source.addEventListener(name, ({ data }) => told.push(Object.values(JSON.parse(data))[0] ?? name));
  }
  source.addEventListener('error', () => source.close());
  return told;
}
