/**
 * Names of the SDK's interface. The compiler compares them with `ooblex.d.ts` (`tools/types.sh`),
 * and `surface.test.js` with the code, so each name is in both or in neither.
 */

/** @type {Record<keyof typeof import('../ooblex.js'), true>} */
export const EXPORTS = {
  Ooblex: true,
  OoblexError: true,
  Session: true,
  Viewer: true,
  connect: true,
  defaults: true,
  effects: true,
  listRooms: true,
  openCamera: true,
  openFile: true,
  openMicrophone: true,
  openScreen: true,
  publish: true,
  randomRoom: true,
  stopStream: true,
  watch: true,
};

/** @type {Record<keyof typeof import('../ooblex.js').Ooblex, true>} */
export const OOBLEX = {
  connect: true,
  defaults: true,
  effects: true,
  listRooms: true,
  openCamera: true,
  openFile: true,
  openMicrophone: true,
  openScreen: true,
  publish: true,
  watch: true,
};

/** @type {Record<Exclude<keyof import('../ooblex.js').Session, keyof EventTarget>, true>} */
export const SESSION = {
  changeEffect: true,
  close: true,
  effect: true,
  effects: true,
  id: true,
  input: true,
  measure: true,
  mute: true,
  muted: true,
  on: true,
  output: true,
  params: true,
  replaceSource: true,
  request: true,
  room: true,
  service: true,
  setParams: true,
  sourceState: true,
  state: true,
  useCamera: true,
  useFile: true,
  useMicrophone: true,
  useScreen: true,
  viewers: true,
};

/** @type {Record<keyof import('../ooblex.js').SessionEvents, true>} */
export const EVENTS = {
  close: true,
  detections: true,
  error: true,
  reconnected: true,
  reconnecting: true,
  service: true,
  settings: true,
  source: true,
  state: true,
  stats: true,
  viewers: true,
};

/** @type {Record<Exclude<keyof import('../ooblex.js').Viewer, keyof EventTarget>, true>} */
export const VIEWER = {
  active: true,
  close: true,
  measure: true,
  on: true,
  output: true,
  room: true,
  sound: true,
  state: true,
  viewers: true,
};

/** @type {Record<keyof import('../ooblex.js').ViewerEvents, true>} */
export const VIEWER_EVENTS = {
  active: true,
  close: true,
  reconnected: true,
  reconnecting: true,
  sound: true,
  state: true,
  viewers: true,
};

/** @type {Record<Exclude<keyof import('../ooblex.js').OoblexError, keyof Error> | 'name', true>} */
export const ERROR = {
  code: true,
  detail: true,
  name: true,
  problem: true,
  reason: true,
  remedy: true,
  retryAfterMs: true,
  type: true,
};
