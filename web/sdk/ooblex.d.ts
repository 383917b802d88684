/** Types of ooblex.js. Times are milliseconds, rates are per second, boxes and keypoints are pixels of the source picture. */

/** Why something failed. Stable: compare these, not messages. */
export type OoblexErrorCode =
  /** The page is neither https nor localhost, so the browser gives no camera. */
  | 'insecure-context'
  /** This browser cannot do it, such as sharing a screen on a phone. */
  | 'not-supported'
  /** There is no camera, none that can do what was asked, or it stopped. */
  | 'no-camera'
  /** The user or the system said no to the camera. */
  | 'permission-denied'
  /** Another program uses the camera. */
  | 'camera-busy'
  /** The file is no video that this browser plays. */
  | 'file-unreadable'
  /** Nothing answers at the address, or something that is no Ooblex gateway. */
  | 'gateway-unreachable'
  /** The gateway, or the browser, refused to connect: an unknown effect, a bad parameter, no common codec. See `problem`. */
  | 'offer-rejected'
  /** The gateway, or a proxy before it, does not accept the token, or wants one (HTTP status 401). See `problem`; it is null for a proxy. */
  | 'unauthorized'
  /** The gateway knows who asks and does not allow it (403). See `problem`. */
  | 'forbidden'
  /** The gateway does not answer to the host name in its address (421). See `problem`. */
  | 'wrong-host'
  /** `token` gave no token, or none that a request can carry. See `cause`. */
  | 'no-token'
  /** The token of the session has expired, and `token` was a string, so there is no other. */
  | 'expired'
  /** HTTP works and media does not: most often the UDP port or the advertised address. */
  | 'connection-failed'
  /** The gateway refused a change of effect or parameters; what was on stays on. See `problem`. */
  | 'effect-rejected'
  /** The gateway reported a problem that answers no request. See `problem`. */
  | 'gateway-error'
  /** The connection was lost while a change was under way. It is asked for again by itself, unless a newer change was made. */
  | 'interrupted'
  /** The connection was lost and did not come back within `reconnect.giveUpAfterMs`. */
  | 'gave-up'
  /** The session has ended. */
  | 'closed'
  /** The gateway did not confirm a change in time. */
  | 'timeout';

/** A problem document of the gateway (RFC 9457). */
export interface Problem {
  type: string;
  title: string;
  /** HTTP status; 0 when it came over the data channel without one. */
  status: number;
  /** A sentence that says how to mend it. */
  detail: string;
  [extension: string]: unknown;
}

export class OoblexError extends Error {
  constructor(code: OoblexErrorCode, about?: { detail?: string; problem?: Problem; cause?: unknown; reason?: string; retryAfterMs?: number });
  readonly name: 'OoblexError';
  readonly code: OoblexErrorCode;
  /** A sentence for people that says how to mend it; the same as `message`. */
  readonly detail: string;
  /** A URN: the problem's where the gateway said it (`urn:ooblex:problem:…`), otherwise `urn:ooblex:sdk:` and the code. */
  readonly type: string;
  /** What to do about it. */
  readonly mend: string;
  /** What the gateway said, when it was the gateway. */
  readonly problem: Problem | null;
  /** Why the gateway ended the session, when it did. */
  readonly reason: EndReason | null;
  /** How long the gateway asks to wait before the next try, when it does; a session that comes back waits that long by itself. */
  readonly retryAfterMs: number | null;
}

/** Why a gateway ends a session. Newer gateways may know others. */
export type EndReason =
  /** Somebody ended it through the API. */
  | 'ended'
  /** Its token has expired. */
  | 'expired'
  /** No media came from the browser for a while. */
  | 'idle'
  /** It has lasted as long as a session may. */
  | 'time_limit'
  /** The gateway cannot decode the browser's video. */
  | 'undecodable'
  /** It took more processor time than a session may. */
  | 'budget'
  /** It used more data channels than a session may. */
  | 'too_many_channels'
  /** The gateway is being replaced. The session comes back by itself. */
  | 'draining'
  /** The gateway stops, perhaps to start again. The session comes back by itself. */
  | 'stopping'
  /** The gateway had an error in this session. The session comes back by itself. */
  | 'broken'
  | (string & {});

/**
 * Gives a token. `refused` is why the one before is of no use any more (`unauthorized`, `expired`), null at first; `signal` is aborted when
 * no token is needed any more.
 */
export type TokenSource = (about: { refused: OoblexError | null; signal?: AbortSignal }) => string | null | Promise<string | null>;

/** How requests to the gateway prove who asks. */
export interface RequestOptions {
  /** Headers that go with every request. A token, and the session's secret, take the place of an `Authorization` header. */
  headers?: HeadersInit;
  /** As of `fetch`; cookies go to another origin with `'include'` only. */
  credentials?: RequestCredentials;
}

export type Weights = Record<string, number>;
export type ParameterValue = number | string | boolean | Weights;
export type Parameters = Record<string, ParameterValue>;

interface About {
  title: string;
  description: string;
}

/** The JSON Schema (draft 2020-12) of one parameter. */
export type ParameterSchema = About &
  (
    | { type: 'number'; minimum: number; maximum: number; default: number }
    | { type: 'string'; enum: string[]; default: string }
    | { type: 'boolean'; default: boolean }
    | {
        type: 'object';
        propertyNames: { enum: string[] };
        additionalProperties: { type: 'number'; minimum: number; maximum: number };
        default: Weights;
      }
  );

export interface ParametersSchema {
  type: 'object';
  properties: Record<string, ParameterSchema>;
}

export interface Effect {
  /** The name in requests. */
  name: string;
  /** The name for people. */
  title: string;
  /** What the viewer sees, in a sentence. */
  description: string;
  parameters: ParametersSchema;
  /** Models that it runs. */
  models: string[];
  /** Whether a worker serves it now. */
  available: boolean;
  /** Worker threads that serve it; 0 for an effect that needs none. */
  workers: number;
  unavailable_reason?: string;
  /** Address of a picture of it, below the gateway's. */
  thumbnail?: string;
  /** Whether the operator put it there, rather than it being of the program. */
  own?: boolean;
}

export interface EffectList {
  effects: Effect[];
  /** Folders of effects of one's own that are none now, and why. */
  refused?: { folder: string; reason: string }[];
  /** Most effects that a chain such as `background_blur+sepia` may have. */
  chains?: number;
  /** What runs the models, such as `ONNX Runtime 1.32.0`; null when they run in other processes. */
  backend: string | null;
  /** What they run on, such as `cpu`; null when they run in other processes. */
  device: string | null;
  /** Worker threads of all effects together. */
  workers: number;
  /** Between the gateway and its workers. */
  broker: {
    kind: 'local' | 'redis';
    connected: boolean;
    /** What is wrong now, with its mend. */
    trouble: string | null;
  };
}

export interface ConnectOptions extends RequestOptions {
  /** Address of the gateway; the page's own origin by default. */
  url?: string | URL;
  /**
   * A token or key that the gateway knows, sent as `Authorization: Bearer`; or a function that gives one. The function is asked before each
   * connection, and once more when the gateway refuses what it gave.
   */
  token?: string | TokenSource;
  /** STUN and TURN servers, beside those that the gateway names in its answer. */
  iceServers?: RTCIceServer[];
  /** Effect from the first frame on; the gateway's default when left out. */
  effect?: string;
  /** Its parameters; defaults for those left out. */
  params?: Parameters;
  /**
   * A stream (it stays the caller's), or constraints for a camera that the session opens and stops.
   * 640×480 at 30 frames a second without sound by default.
   */
  source?: MediaStream | MediaStreamConstraints;
  /** Offer this codec only; the browser's own order by default. */
  codec?: 'vp8' | 'h264';
  /** Gives up connecting (rejects with the signal's reason). Later, use `close`. */
  signal?: AbortSignal;
  /** Longest time for connecting, from the open camera on; 10 000 by default. */
  timeoutMs?: number;
  /** Whether and how the session comes back when its connection is lost; it does by default. */
  reconnect?: boolean | ReconnectOptions;
}

export interface ReconnectOptions {
  /** Longest time between two tries; 8000 by default. The first comes at once, each further one after about twice as long. */
  maxDelayMs?: number;
  /** After this time without a connection the session ends; 300 000 by default. */
  giveUpAfterMs?: number;
}

/** The gateway's word that a change is in force. */
export interface Ack {
  type: 'ack';
  id: number;
  effect: string;
  params: Parameters;
  /** Numbers the changes of a session: of an ack and a `settings` message, the higher one is in force. */
  change?: number;
  /** Sequence number of the first frame that has the change. */
  first_sequence: number;
  /** RTP timestamp (90 kHz) of that frame. */
  timestamp: number;
}

export type Point = [x: number, y: number];

export interface Face {
  label: 'face';
  /** The same face has the same number from frame to frame, where the effect follows faces. */
  id?: number;
  /** 0 to 1. */
  score: number;
  /** Left, top, right, bottom; parts may lie outside the picture. */
  box: [x0: number, y0: number, x1: number, y1: number];
  /** Right and left are the person's. */
  keypoints: Record<'right_eye' | 'left_eye' | 'nose' | 'mouth' | 'right_ear' | 'left_ear', Point>;
}

/** What was found in one frame. */
export interface Detections {
  type: 'detections';
  sequence: number;
  /** RTP timestamp (90 kHz) of the frame. */
  timestamp: number;
  /** Size of the source picture that the coordinates belong to. */
  width: number;
  height: number;
  faces: Face[];
  /** What else was found, if anything was. */
  objects?: Thing[];
}

/** Something that is no face. Without a box it is about the whole picture. */
export interface Thing {
  label: string;
  id?: number;
  score: number;
  box?: [x0: number, y0: number, x1: number, y1: number];
  /** Points without names. */
  points?: Point[];
  /** Points with names. */
  keypoints?: Record<string, Point>;
}

export type Stage = 'inbox' | 'decode' | 'prepare' | 'queue' | 'analyse' | 'turn' | 'playout' | 'compose' | 'encode';

/** The gateway's figures of the last second. */
export interface Stats {
  type: 'stats';
  effect: string;
  fps_in: number;
  fps_analysed: number;
  fps_out: number;
  width: number;
  height: number;
  /** What the encoder sends now. */
  bitrate_bps: number;
  /** What the network is thought to take; null or absent when the browser gives no feedback for it. */
  estimate_bps?: number | null;
  /** From a frame's last packet in to its first packet out; null when none went out. */
  residence_ms: { p50: number; p95: number; p99: number } | null;
  /** Mean time of a frame in each stage. */
  stages_ms: Partial<Record<Stage, number>>;
  /** Frames that were dropped, by reason. */
  dropped: Record<string, number>;
  /** `hurried`: the machine is short of CPU, and the encoder takes less of it for a coarser picture. */
  encoder_speed: 'normal' | 'hurried';
  /** What the model gets of a frame; null where there is none. Smaller than usual: the machine is short of CPU. */
  model_input: { width: number; height: number } | null;
  /** Processor cores that the session has used, with workers of the gateway's own. */
  cores: number;
  /** Cores that it may use, since others are there; null where it is alone. Who reaches it gets fewer frames. */
  cores_allowed: number | null;
  /** Whether a stand-in is shown because no result has come yet. */
  placeholder: boolean;
  /** `waiting`: no results come at the moment. */
  state: 'live' | 'waiting';
  service: ServiceState;
}

/** `no_worker`: no worker serves the effect now; `broker_down`: the gateway can not reach its workers now. */
export type ServiceState = 'served' | 'no_worker' | 'broker_down';

/** Workers of the effect have come or gone. While there are none the last picture is held; it goes on by itself. */
export interface Service {
  effect: string;
  state: ServiceState;
}

/** Somebody else than this session has changed what is in force. */
export interface SettingsChange {
  effect: string;
  params: Parameters;
  /** `api`: a request to the API, such as an operator's; `reload`: an effect of the operator's own was replaced. */
  by: 'api' | 'channel' | 'reload' | null;
  /** What was in force before, as far as this session knew. */
  previous: { effect: string | null; params: Parameters };
}

/** What the browser measures, over the time since the last call; null where it cannot tell (yet). */
export interface Measures {
  /** Network only: from the browser to the gateway and back. */
  roundTripMs: number | null;
  camera: { fps: number | null; width: number | null; height: number | null };
  sent: {
    fps: number | null;
    bitrateBps: number | null;
    width: number | null;
    height: number | null;
    encodeMs: number | null;
    /** What keeps the browser from sending more. */
    limitedBy: 'cpu' | 'bandwidth' | null;
    /** Share of the packets that the gateway missed. */
    lostShare: number | null;
  };
  received: {
    fps: number | null;
    bitrateBps: number | null;
    width: number | null;
    height: number | null;
    codec: string | null;
    /** Mean wait of a frame in the browser before it is decoded and shown. */
    jitterBufferMs: number | null;
    decodeMs: number | null;
    /** Frames that the browser threw away. */
    droppedFps: number | null;
    lostShare: number | null;
  };
}

/** `interrupted`: no media at the moment; it may come back by itself. `reconnecting`: the connection is lost, another one is being made. */
export type SessionState = 'live' | 'interrupted' | 'reconnecting' | 'closed';

export interface SessionEvents {
  /** Once a second. */
  stats: Stats;
  detections: Detections;
  service: Service;
  /** Somebody else changed the effect or its parameters; `session.effect` and `session.params` say so already. */
  settings: SettingsChange;
  /** Something is wrong and the session goes on. */
  error: OoblexError;
  state: SessionState;
  /** Another connection is tried after `delayMs`; `error` says why the last one, or the last try, failed, `reason` why the gateway ended the session if it did. */
  reconnecting: { attempt: number; delayMs: number; error: Error; reason: EndReason | null };
  /** Another connection stands, with the same effect and parameters, under another id. */
  reconnected: { id: string; attempts: number; downMs: number };
  /** Something else is sent. */
  source: { input: MediaStream };
  /** The end, once; `error` says why unless `close` was called, `reason` what the gateway gave as one. */
  close: { error: OoblexError | null; reason: EndReason | null };
}

/** Made by `connect`. Ends by itself when the page goes away. */
export class Session extends EventTarget {
  private constructor();
  /** As in `/api/sessions/{id}`. */
  readonly id: string;
  /** What is sent. The same stream for the whole session; its tracks change with the source. */
  readonly input: MediaStream;
  /**
   * The picture with the effect (and the sound, while sound is sent); give it to `video.srcObject`. The same stream for the whole session: it keeps
   * its last picture while the session comes back.
   */
  readonly output: MediaStream;
  readonly state: SessionState;
  /** The effect and its parameters in force, as the gateway last said: it confirmed a change, or told of one by somebody else. */
  readonly effect: string | null;
  readonly params: Parameters;
  /** Whether workers serve the effect now; its name is null until the gateway has said something. */
  readonly service: { effect: string | null; state: ServiceState };

  /** Listens to an event; the function that comes back ends it. */
  on<Name extends keyof SessionEvents>(name: Name, listener: (detail: SessionEvents[Name]) => void): () => void;

  /**
   * Changes the effect without a reconnect; parameters that are left out get their defaults. Resolves when the first frame that
   * has it was made.
   * @throws OoblexError `effect-rejected`, `timeout`, `closed`
   */
  changeEffect(effect: string, params?: Parameters): Promise<Ack>;

  /** Changes some parameters and keeps the others. @throws OoblexError as `changeEffect` */
  setParams(params: Parameters): Promise<Ack>;

  effects(): Promise<EffectList>;

  /**
   * A request about this session (`/api/sessions/{id}`), or about what is below it, such as `events`, with the secret that grants it. Gives the
   * answer as `fetch` does.
   */
  request(below?: string, init?: RequestInit): Promise<Response>;

  /** What is muted. */
  readonly muted: { video: boolean; audio: boolean };

  /**
   * Sends another stream from its next frame on, without a reconnect. Sound stays as it is when the stream has none.
   * @throws OoblexError as `openCamera`, or `closed`
   */
  replaceSource(source: MediaStream | MediaStreamConstraints): Promise<void>;

  /** Sends a camera: any, the one with this `deviceId`, or one by constraints such as `{facingMode: 'environment'}`. Sound stays as it is. */
  useCamera(wanted?: string | MediaTrackConstraints): Promise<void>;

  /** Asks the visitor for a screen, a window or a tab, and sends that. @throws OoblexError `permission-denied`, `not-supported` */
  useScreen(constraints?: DisplayMediaStreamOptions): Promise<void>;

  /** Plays a video file in a loop and sends its picture. @throws OoblexError `file-unreadable` */
  useFile(file: Blob): Promise<void>;

  /** Sends a microphone: any, the one with this `deviceId`, or none (`false`). */
  useMicrophone(wanted?: boolean | string | MediaTrackConstraints): Promise<void>;

  /** Sends black or silence, or no longer. The camera stays on. */
  mute(kind: 'video' | 'audio', muted?: boolean): void;

  /** The browser's own figures. */
  measure(): Promise<Measures>;

  /** Ends the session. Resolves when the gateway was told. */
  close(): Promise<void>;
}

/**
 * Opens a session. Resolves when media can flow and the control channel is open.
 * @throws OoblexError all codes but `effect-rejected` and `timeout`
 */
export function connect(options?: ConnectOptions): Promise<Session>;

/** The effects of a gateway. Needs no token. @throws OoblexError `gateway-unreachable`, `gateway-error`, `wrong-host` */
export function effects(url?: string | URL, options?: RequestOptions & { signal?: AbortSignal }): Promise<EffectList>;

/** Opens the camera as `connect` does. @throws OoblexError `insecure-context`, `no-camera`, `permission-denied`, `camera-busy` */
export function openCamera(constraints?: MediaStreamConstraints, options?: { signal?: AbortSignal }): Promise<MediaStream>;

/** Opens a microphone as `useMicrophone` does. */
export function openMicrophone(wanted?: true | string | MediaTrackConstraints, options?: { signal?: AbortSignal }): Promise<MediaStream>;

/** Asks for a screen as `useScreen` does. */
export function openScreen(constraints?: DisplayMediaStreamOptions, options?: { signal?: AbortSignal }): Promise<MediaStream>;

/** Plays a file as `useFile` does; `stopStream` ends it. */
export function openFile(file: Blob, options?: { signal?: AbortSignal }): Promise<MediaStream>;

/** Stops a stream that one of these functions opened. */
export function stopStream(stream: MediaStream): void;

/** The default of every parameter. */
export function defaults(schema: ParametersSchema): Parameters;

export const Ooblex: {
  connect: typeof connect;
  effects: typeof effects;
  openCamera: typeof openCamera;
  openFile: typeof openFile;
  openMicrophone: typeof openMicrophone;
  openScreen: typeof openScreen;
  defaults: typeof defaults;
};
