/** Fakes of the browser APIs that the modules use; tests control the other end. */

/** Fakes the part of RTCDataChannel that Control uses. */
export class FakeChannel {
  sent = [];
  closed = false;
  send(text) {
    if (this.closed) throw new DOMException('not open', 'InvalidStateError');
    this.sent.push(JSON.parse(text));
  }
  close() {
    this.closed = true;
  }
  say(message) {
    this.onmessage({ data: typeof message === 'string' ? message : JSON.stringify(message) });
  }
}

/** A track that can be muted, stopped, and ended from outside. */
export class FakeTrack extends EventTarget {
  enabled = true;
  stopped = false;
  constructor(kind = 'video') {
    super();
    this.kind = kind;
  }
  stop() {
    this.stopped = true;
  }
  clone() {
    return new FakeTrack(this.kind);
  }
}

export class FakeStream {
  #tracks;
  /** Every list of tracks that the stream had. */
  history = [];
  constructor(tracks = []) {
    this.#tracks = [...tracks];
  }
  getTracks() { return [...this.#tracks]; }
  getVideoTracks() { return this.#tracks.filter(({ kind }) => kind === 'video'); }
  getAudioTracks() { return this.#tracks.filter(({ kind }) => kind === 'audio'); }
  addTrack(track) { this.#became([...this.#tracks, track]); }
  removeTrack(track) { this.#became(this.#tracks.filter((other) => other !== track)); }
  #became(tracks) {
    this.#tracks = tracks;
    this.history.push(tracks.length);
  }
}

globalThis.MediaStream ??= FakeStream;

/** Fakes the part of a Link that a session uses; `tell` sends a message of the gateway. */
export class FakeLink {
  sent = [];
  asked = [];
  closed = false;
  isOver = false;
  requests = [];
  /** Status codes of answers to requests. */
  status = 200;
  output = { video: new FakeTrack(), audio: new FakeTrack('audio') };
  answer;
  control = { request: (message) => new Promise((resolve, reject) => this.asked.push({ ...message, resolve, reject })) };
  constructor(id = 'x') {
    this.answer = { session: id };
  }
  listen(listeners) { this.tell = listeners; }
  async send(tracks) { this.sent.push(tracks); }
  fit() {}
  retire(error) { for (const { reject } of this.asked.splice(0)) reject(error); }
  async leave() { this.left = true; }
  async close() { this.closed = true; }
  async firstPicture() {}
  /** The count of frames that the source has delivered. */
  delivered = 0;
  async frames() { return this.delivered; }
  async request(below, init) { this.requests.push([below, init?.method ?? 'GET']); return { status: this.status }; }
  unreached() { return new Error('unreached'); }
}

/** Returns the result of `Inputs.of` for a stream with these tracks. */
export function given({ owned = false, sound = false } = {}) {
  const tracks = [new FakeTrack(), ...(sound ? [new FakeTrack('audio')] : [])];
  const stream = new FakeStream(tracks);
  return { video: { stream, track: tracks[0], owned }, audio: sound ? { stream, track: tracks[1], owned } : null };
}

/**
 * Fakes the part of RTCPeerConnection that a Link uses: it connects as soon as it has an answer.
 * `made` has all instances, `did` the calls of each in order.
 */
export class FakePeerConnection {
  static made = [];
  did = [];
  directions = [];
  connectionState = 'new';
  #configuration;
  #channel = null;
  constructor(configuration) {
    this.#configuration = configuration;
    FakePeerConnection.made.push(this);
  }
  addTransceiver(given, { direction } = {}) {
    this.directions.push(direction);
    const sender = { track: typeof given === 'string' ? null : given, replaceTrack: async (track) => (sender.track = track) };
    return { sender, receiver: { track: new FakeTrack(typeof given === 'string' ? given : given.kind) } };
  }
  createDataChannel() {
    this.#channel = Object.assign(new EventTarget(), new FakeChannel(), { send: FakeChannel.prototype.send, close: FakeChannel.prototype.close, say: FakeChannel.prototype.say });
    return this.#channel;
  }
  get channel() { return this.#channel; }
  async createOffer() {
    this.did.push('createOffer');
    return { type: 'offer', sdp: 'an offer' };
  }
  getConfiguration() { return this.#configuration; }
  setConfiguration(configuration) {
    this.did.push('setConfiguration');
    this.#configuration = configuration;
  }
  async setLocalDescription() { this.did.push('setLocalDescription'); }
  async setRemoteDescription() {
    this.did.push('setRemoteDescription');
    this.connectionState = 'connected';
    setTimeout(() => {
      this.onconnectionstatechange?.();
      this.#channel?.dispatchEvent(new Event('open'));
    });
  }
  async getStats() { return new Map([['in', { type: 'inbound-rtp', kind: 'video', framesDecoded: 1 }]]); }
  close() {
    this.did.push('close');
    this.connectionState = 'closed';
  }
}
