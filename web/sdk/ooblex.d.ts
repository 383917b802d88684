/**
 * Types of ooblex.js. Times are in milliseconds, rates per second, boxes and keypoints in pixels of
 * the source picture.
 */

/** Stable error codes: compare these, not messages. */
export type OoblexErrorCode =
  /** The page is neither https nor localhost, so the browser does not allow the camera. */
  | 'insecure-context'
  /** This browser does not support it, such as sharing a screen on a phone. */
  | 'not-supported'
  /** There is no camera, no camera satisfies the constraints, or the camera stopped. */
  | 'no-camera'
  /** The user or the system denied access to the camera. */
  | 'permission-denied'
  /** Another program uses the camera. */
  | 'camera-busy'
  /** The file is not a video that this browser can play. */
  | 'file-unreadable'
  /** Nothing answers at the URL, or something that is not an Ooblex gateway. */
  | 'gateway-unreachable'
  /**
   * The gateway, or the browser, refused to connect: an unknown effect, an invalid parameter, no
   * common codec. See `problem`.
   */
  | 'offer-rejected'
  /**
   * The gateway, or a proxy in front of it, requires a token or does not accept it (HTTP status
   * 401). See `problem`; it is null for a proxy.
   */
  | 'unauthorized'
  /** The gateway knows the credential but does not allow the request (403). See `problem`. */
  | 'forbidden'
  /** The gateway does not answer to the host name in its URL (421). See `problem`. */
  | 'wrong-host'
  /** `token` returned no token, or one that does not fit into a header. See `cause`. */
  | 'no-token'
  /** The token of the session has expired, and `token` was a string, so there is no other. */
  | 'expired'
  /** Somebody else publishes to the room. */
  | 'room-taken'
  /** Nobody publishes to the room now. */
  | 'room-empty'
  /** The room has as many viewers as it may have. */
  | 'room-full'
  /**
   * HTTP works but media does not: usually the UDP port is closed or the advertised address is
   * wrong.
   */
  | 'connection-failed'
  /**
   * The gateway refused a change of effect or parameters; the earlier effect stays on. See
   * `problem`.
   */
  | 'effect-rejected'
  /** The gateway reported a problem that is not the answer to a request. See `problem`. */
  | 'gateway-error'
  /**
   * The connection was lost while a change was pending. It is repeated by itself, unless a newer
   * change was made.
   */
  | 'interrupted'
  /** The connection was lost and could not be restored within `reconnect.giveUpAfterMs`. */
  | 'gave-up'
  /** The session has ended. */
  | 'closed'
  /** The gateway did not confirm a change in time. */
  | 'timeout';

/** A problem document of the gateway (RFC 9457). */
export interface Problem {
  type: string;
  title: string;
  /** HTTP status; 0 if the problem came over the data channel without one. */
  status: number;
  /** A sentence that names the remedy. */
  detail: string;
  [extension: string]: unknown;
}

export class OoblexError extends Error {
  constructor(code: OoblexErrorCode, about?: { detail?: string; problem?: Problem; cause?: unknown; reason?: string; retryAfterMs?: number });
  readonly name: 'OoblexError';
  readonly code: OoblexErrorCode;
  /** A human-readable sentence that names the remedy; equals `message`. */
  readonly detail: string;
  /**
   * A URN: that of the problem if the gateway reported it (`urn:ooblex:problem:…`), otherwise
   * `urn:ooblex:sdk:` and the code.
   */
  readonly type: string;
  /** The remedy. */
  readonly remedy: string;
  /** The gateway's problem document, if the gateway reported the error. */
  readonly problem: Problem | null;
  /** The gateway's reason for ending the session, if it ended it. */
  readonly reason: EndReason | null;
  /**
   * The time that the gateway asks to wait before the next attempt, if it does; a session that
   * reconnects waits for it by itself.
   */
  readonly retryAfterMs: number | null;
}

/** Reasons for which a gateway ends a session. Newer gateways may have others. */
export type EndReason =
  /** Somebody ended it through the API. */
  | 'ended'
  /** Its token has expired. */
  | 'expired'
  /** No media came from the browser for a while. */
  | 'idle'
  /** It reached the maximum duration of a session. */
  | 'time_limit'
  /** The gateway cannot decode the browser's video. */
  | 'undecodable'
  /** It used more CPU time than a session may. */
  | 'budget'
  /** It used more data channels than a session may. */
  | 'too_many_channels'
  /** The publisher whose video the session received has ended. */
  | 'publisher_ended'
  /** The gateway is being replaced. The session reconnects by itself. */
  | 'draining'
  /** The gateway stops, and may start again. The session reconnects by itself. */
  | 'stopping'
  /** The gateway had an error in this session. The session reconnects by itself. */
  | 'broken'
  | (string & {});

/**
 * Returns a token. `refused` is the reason for which the last token is no longer valid
 * (`unauthorized`, `expired`), null at first; `signal` is aborted when the token is no longer
 * needed.
 */
export type TokenSource = (about: { refused: OoblexError | null; signal?: AbortSignal }) => string | null | Promise<string | null>;

/** Credentials of requests to the gateway. */
export interface RequestOptions {
  /**
   * Headers of every request. A token, and the session's secret, replace an `Authorization` header.
   */
  headers?: HeadersInit;
  /** Credentials mode as of `fetch`; cookies are sent to another origin only with `'include'`. */
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
  /** The display name. */
  title: string;
  /** A sentence that describes the visible result. */
  description: string;
  parameters: ParametersSchema;
  /** Names of the models that it runs. */
  models: string[];
  /** True if a worker serves it now. */
  available: boolean;
  /** Number of worker threads that serve it; 0 for an effect that needs none. */
  workers: number;
  unavailable_reason?: string;
  /** URL of an example picture, relative to the gateway's. */
  thumbnail?: string;
  /** True for a custom effect of the operator, false for a built-in one. */
  own?: boolean;
}

export interface EffectList {
  effects: Effect[];
  /** Folders of custom effects that are invalid; only operators are told the reasons. */
  refused?: { folder: string; reason?: string }[];
  /** Maximum number of effects in a chain such as `background_blur+sepia`. */
  chains?: number;
  /** The model runtime, such as `ONNX Runtime 1.32.0`; null if models run in other processes. */
  backend: string | null;
  /** The device, such as `cpu`; null if models run in other processes. */
  device: string | null;
  /** Number of worker threads of all effects together. */
  workers: number;
  /** State of the connection between the gateway and its workers. */
  broker: {
    kind: 'local' | 'redis';
    connected: boolean;
    /** The current problem, with its remedy. */
    trouble: string | null;
  };
}

export interface ConnectOptions extends RequestOptions {
  /**
   * URL of the gateway, with the path under which a proxy serves it. By default the gateway from
   * which this module was loaded, or, in a bundle, the page's own origin.
   */
  url?: string | URL;
  /**
   * A valid token or key, sent as `Authorization: Bearer`; or a function that returns one. The
   * function is called before each connection, and once more when the gateway refuses its token.
   */
  token?: string | TokenSource;
  /** STUN and TURN servers, in addition to those that the gateway names in its answer. */
  iceServers?: RTCIceServer[];
  /** Effect from the first frame on; by default the gateway's default effect. */
  effect?: string;
  /** Parameters of the effect; omitted ones get their defaults. */
  params?: Parameters;
  /**
   * A stream (the caller remains its owner), or constraints for a camera that the session opens and
   * stops. By default 640×480 at 30 frames per second without audio.
   */
  source?: MediaStream | MediaStreamConstraints;
  /** The only codec to offer; by default all codecs in the browser's order. */
  codec?: 'vp8' | 'h264';
  /** Cancels connecting (rejects with the signal's reason). Later, use `close`. */
  signal?: AbortSignal;
  /** Maximum time for connecting, after the camera was opened; 10 000 by default. */
  timeoutMs?: number;
  /** Reconnection after a lost connection; enabled by default, `false` disables it. */
  reconnect?: boolean | ReconnectOptions;
}

export interface PublishOptions extends ConnectOptions {
  /** Whether the pictures with the effect also come back, as `output`; false by default. */
  echo?: boolean;
}

export interface WatchOptions extends RequestOptions {
  /** As for `connect`. */
  url?: string | URL;
  /** As for `connect`; it must allow to watch the room. */
  token?: string | TokenSource;
  iceServers?: RTCIceServer[];
  /** The only codec to offer; by default all codecs in the browser's order. */
  codec?: 'vp8' | 'h264';
  signal?: AbortSignal;
  /** Maximum time for connecting; 10 000 by default. */
  timeoutMs?: number;
  /** As for `connect`. */
  reconnect?: boolean | ReconnectOptions;
  /**
   * Whether to wait, for any time, while nobody publishes to the room or it is full: `watch` then
   * resolves with a viewer in the state `waiting`. By default `watch` rejects with `room-empty` or
   * `room-full`, and a viewer whose publisher has ended gives up after `reconnect.giveUpAfterMs`.
   */
  wait?: boolean;
}

export interface ListOptions extends RequestOptions {
  url?: string | URL;
  token?: string | TokenSource;
  signal?: AbortSignal;
}

/** A room that somebody publishes to. */
export interface Room {
  room: string;
  /** Whether the publisher sends video now. */
  active: boolean;
  /** Number of viewers. */
  viewers: number;
}

export interface ReconnectOptions {
  /**
   * Maximum delay between two attempts; 8000 by default. The first attempt is immediate, and the
   * delay about doubles with each further one.
   */
  maxDelayMs?: number;
  /** The session ends after this time without a connection; 300 000 by default. */
  giveUpAfterMs?: number;
}

/** The gateway's confirmation that a change is in force. */
export interface Ack {
  type: 'ack';
  id: number;
  effect: string;
  params: Parameters;
  /**
   * Number of the change in the session; of an ack and a `settings` message, the one with the
   * higher number is in force.
   */
  change?: number;
  /** Sequence number of the first frame with the change. */
  first_sequence: number;
  /** RTP timestamp (90 kHz) of that frame. */
  timestamp: number;
}

export type Point = [x: number, y: number];

export interface Face {
  label: 'face';
  /** Track id: the same face has the same id from frame to frame, if the effect tracks faces. */
  id?: number;
  /** 0 to 1. */
  score: number;
  /** Left, top, right, bottom; parts may be outside the picture. */
  box: [x0: number, y0: number, x1: number, y1: number];
  /** Right and left from the person's point of view. */
  keypoints: Record<'right_eye' | 'left_eye' | 'nose' | 'mouth' | 'right_ear' | 'left_ear', Point>;
}

/** Objects found in one frame. */
export interface Detections {
  type: 'detections';
  sequence: number;
  /** RTP timestamp (90 kHz) of the frame. */
  timestamp: number;
  /** Size of the source picture, to which the coordinates refer. */
  width: number;
  height: number;
  faces: Face[];
  /** Other objects, if any were found. */
  objects?: Thing[];
}

/** An object that is not a face. Without a box it refers to the whole picture. */
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

/** The gateway's statistics of the last second. */
export interface Stats {
  type: 'stats';
  effect: string;
  fps_in: number;
  fps_analysed: number;
  fps_out: number;
  width: number;
  height: number;
  /** The encoder's current bitrate. */
  bitrate_bps: number;
  /** The bandwidth estimate; null or absent if the browser gives no feedback for it. */
  estimate_bps?: number | null;
  /** Size in which pictures reach the gateway; null before the first. */
  received?: { width: number; height: number } | null;
  /**
   * Size in which they are processed; null before the first. It is smaller than `received` if that
   * is larger than the gateway allows.
   */
  processed?: { width: number; height: number } | null;
  /** Time from a frame's last packet in to its first packet out; null if none was sent. */
  residence_ms: { p50: number; p95: number; p99: number } | null;
  /** Mean time of a frame in each stage. */
  stages_ms: Partial<Record<Stage, number>>;
  /** Number of dropped frames by reason. */
  dropped: Record<string, number>;
  /** `hurried`: CPU is short, and the encoder uses less of it at a lower quality. */
  encoder_speed: 'normal' | 'hurried';
  /**
   * Size of the model's input; null if there is none. It is smaller than usual when CPU is short.
   */
  model_input: { width: number; height: number } | null;
  /** CPU cores that the session has used, including workers in the gateway's process. */
  cores: number;
  /**
   * CPU cores that it may use while there are other sessions; null if it is alone. A session that
   * reaches the limit gets fewer frames.
   */
  cores_allowed: number | null;
  /** True if a placeholder is shown because no result has arrived yet. */
  placeholder: boolean;
  /** `waiting`: no results arrive at the moment. */
  state: 'live' | 'waiting';
  service: ServiceState;
}

/**
 * `no_worker`: no worker serves the effect; `broker_down`: the gateway cannot reach its workers.
 */
export type ServiceState = 'served' | 'no_worker' | 'broker_down';

/**
 * Workers of the effect have started or stopped. While there are none, the last picture is held;
 * the session resumes by itself.
 */
export interface Service {
  effect: string;
  state: ServiceState;
}

/** Somebody else than this session has changed the settings in force. */
export interface SettingsChange {
  effect: string;
  params: Parameters;
  /** `api`: a request to the API, such as an operator's; `reload`: a custom effect was replaced. */
  by: 'api' | 'channel' | 'reload' | null;
  /** The earlier settings, as far as this session knew them. */
  previous: { effect: string | null; params: Parameters };
}

/**
 * The browser's own statistics since the last call; null for values that are not available (yet).
 */
export interface Measures {
  /** Round trip of the network only, from the browser to the gateway and back. */
  roundTripMs: number | null;
  camera: { fps: number | null; width: number | null; height: number | null };
  sent: {
    fps: number | null;
    bitrateBps: number | null;
    width: number | null;
    height: number | null;
    encodeMs: number | null;
    /** The factor that limits the quality of the sent video. */
    limitedBy: 'cpu' | 'bandwidth' | null;
    /** Share of the packets that the gateway did not receive. */
    lostShare: number | null;
  };
  received: {
    fps: number | null;
    bitrateBps: number | null;
    width: number | null;
    height: number | null;
    codec: string | null;
    /** Mean time of a frame in the browser before it is decoded and shown. */
    jitterBufferMs: number | null;
    decodeMs: number | null;
    /** Frames that the browser dropped. */
    droppedFps: number | null;
    lostShare: number | null;
  };
}

/**
 * `interrupted`: no media at the moment; it may recover by itself. `reconnecting`: the connection
 * is lost, and another one is being made.
 */
export type SessionState = 'live' | 'interrupted' | 'reconnecting' | 'closed';

/**
 * `silent`: the source delivers no frames, because the camera is off, covered by its driver, or was
 * taken away, or there is no track. The last picture is held.
 */
export type SourceState = 'live' | 'silent';

export interface SessionEvents {
  /** Emitted once per second. */
  stats: Stats;
  detections: Detections;
  service: Service;
  /**
   * Somebody else changed the effect or its parameters; `session.effect` and `session.params` are
   * already updated.
   */
  settings: SettingsChange;
  /** The number of viewers of the room has changed. */
  viewers: number;
  /** A problem occurred that does not end the session. */
  error: OoblexError;
  state: SessionState;
  /**
   * Another attempt to connect follows after `delayMs`; `error` is the failure of the last
   * connection or attempt, `reason` the gateway's reason for ending the session, if it ended it.
   */
  reconnecting: { attempt: number; delayMs: number; error: Error; reason: EndReason | null };
  /** Another connection was made, with the same effect and parameters, and with another id. */
  reconnected: { id: string; attempts: number; downMs: number };
  /**
   * The source was replaced, has become silent (no frames for two seconds), or delivers frames
   * again.
   */
  source: { input: MediaStream; state: SourceState };
  /**
   * The session has ended; emitted once. `error` is the cause unless `close` was called, `reason`
   * the gateway's reason, if any.
   */
  close: { error: OoblexError | null; reason: EndReason | null };
}

/** A session, made by `connect` or `publish`. It ends by itself when the page is left. */
export class Session extends EventTarget {
  private constructor();
  /** The id as in `/api/sessions/{id}`. */
  readonly id: string;
  /**
   * The stream that is sent. It stays the same for the whole session; its tracks change with the
   * source.
   */
  readonly input: MediaStream;
  /**
   * The video with the effect (and the audio, while audio is sent), for `video.srcObject`. It is
   * the same stream for the whole session, and keeps its last picture while the session reconnects.
   * It has no tracks if the session publishes to a room without `echo`.
   */
  readonly output: MediaStream;
  readonly state: SessionState;
  /**
   * The effect and parameters in force, as last reported by the gateway: it confirmed a change, or
   * reported one by somebody else.
   */
  readonly effect: string | null;
  readonly params: Parameters;
  /** Service state of the effect; its name is null until the gateway has reported one. */
  readonly service: { effect: string | null; state: ServiceState };

  /** Whether the source delivers frames. */
  readonly sourceState: SourceState;

  /** The room that the session publishes to; null if it was made by `connect`. */
  readonly room: string | null;
  /** Number of viewers of the room; null until the gateway has told it, and without a room. */
  readonly viewers: number | null;

  /** Listens to an event; the returned function removes the listener. */
  on<Name extends keyof SessionEvents>(name: Name, listener: (detail: SessionEvents[Name]) => void): () => void;

  /**
   * Changes the effect without a reconnect; omitted parameters get their defaults. Resolves when
   * the first frame with the change was made.
   * @throws OoblexError `effect-rejected`, `timeout`, `closed`
   */
  changeEffect(effect: string, params?: Parameters): Promise<Ack>;

  /** Changes some parameters and keeps the others. @throws OoblexError as `changeEffect` */
  setParams(params: Parameters): Promise<Ack>;

  effects(): Promise<EffectList>;

  /**
   * Sends a request about this session (`/api/sessions/{id}`), or about a resource below it, such
   * as `events`, with the session's secret. Returns the answer as `fetch` does.
   */
  request(below?: string, init?: RequestInit): Promise<Response>;

  /** Muted inputs. */
  readonly muted: { video: boolean; audio: boolean };

  /**
   * Sends another stream from its next frame on, without a reconnect. The audio does not change if
   * the stream has none.
   * @throws OoblexError as `openCamera`, or `closed`
   */
  replaceSource(source: MediaStream | MediaStreamConstraints): Promise<void>;

  /**
   * Sends a camera: any, the one with this `deviceId`, or one by constraints such as `{facingMode:
   * 'environment'}`. The audio does not change.
   */
  useCamera(wanted?: string | MediaTrackConstraints): Promise<void>;

  /**
   * Asks the user for a screen, a window or a tab, and sends it. @throws OoblexError
   * `permission-denied`, `not-supported`
   */
  useScreen(constraints?: DisplayMediaStreamOptions): Promise<void>;

  /** Plays a video file in a loop and sends its picture. @throws OoblexError `file-unreadable` */
  useFile(file: Blob): Promise<void>;

  /** Sends a microphone: any, the one with this `deviceId`, or none (`false`). */
  useMicrophone(wanted?: boolean | string | MediaTrackConstraints): Promise<void>;

  /** Starts or stops sending black or silence. The camera stays on. */
  mute(kind: 'video' | 'audio', muted?: boolean): void;

  /** Returns the browser's own statistics. */
  measure(): Promise<Measures>;

  /** Ends the session. Resolves when the gateway was told. */
  close(): Promise<void>;
}

/** `waiting`: nobody publishes to the room now, or it is full; the viewer tries again by itself. */
export type ViewerState = SessionState | 'waiting';

export interface ViewerEvents {
  state: ViewerState;
  /** The publisher begins or ceases to send video. */
  active: boolean;
  /** The number of viewers of the room, this one included, has changed. */
  viewers: number;
  /** The publisher has begun to send sound; emitted once for each connection. */
  sound: boolean;
  /**
   * Another attempt to connect follows after `delayMs`. `error` is the failure of the last connection
   * or attempt: `room-empty` and `room-full` in the state `waiting`.
   */
  reconnecting: { attempt: number; delayMs: number; error: Error };
  /** Another connection was made. */
  reconnected: { attempts: number; downMs: number };
  /** The viewer has ended; emitted once. `error` is the cause unless `close` was called. */
  close: { error: OoblexError | null };
}

/** A viewer of a room, made by `watch`. It ends by itself when the page is left. */
export class Viewer extends EventTarget {
  private constructor();
  readonly room: string;
  /**
   * The picture with the effect and the sound, for `video.srcObject`. It is the same stream for the
   * whole time, and keeps its last picture while the viewer reconnects.
   */
  readonly output: MediaStream;
  readonly state: ViewerState;
  /** Whether the publisher sends video; null until the gateway has told it. */
  readonly active: boolean | null;
  /** Number of viewers of the room, this one included; null until the gateway has told it. */
  readonly viewers: number | null;
  /** Whether the publisher has sent sound on this connection. */
  readonly sound: boolean;

  /** Listens to an event; the returned function removes the listener. */
  on<Name extends keyof ViewerEvents>(name: Name, listener: (detail: ViewerEvents[Name]) => void): () => void;

  /** Returns the browser's own statistics; what concerns a camera is null. */
  measure(): Promise<Measures>;

  /** Leaves the room. Resolves when the gateway was told. */
  close(): Promise<void>;
}

/**
 * Opens a session. Resolves when media can flow and the control channel is open.
 * @throws OoblexError all codes except `effect-rejected` and `timeout`
 */
export function connect(options?: ConnectOptions): Promise<Session>;

/**
 * Publishes to a room, so that others can watch; otherwise as `connect`. Resolves when media can
 * flow and the control channel is open.
 * @throws OoblexError as `connect`, and `room-taken`; TypeError for a name that no room has
 */
export function publish(room: string, options?: PublishOptions): Promise<Session>;

/**
 * Watches a room. Resolves when media can flow, or with `wait` also before.
 * @throws OoblexError as `connect`, and `room-empty`, `room-full`; TypeError for a name that no room has
 */
export function watch(room: string, options?: WatchOptions): Promise<Viewer>;

/**
 * Returns the rooms that the caller may watch.
 * @throws OoblexError `forbidden` without the permission to watch any room
 */
export function listRooms(options?: ListOptions): Promise<Room[]>;

/** Returns the name of a room that nobody can guess: 128 random bits, as 22 characters of base64url. */
export function randomRoom(): string;

/**
 * Returns the effects of a gateway. Needs no token. @throws OoblexError `gateway-unreachable`,
 * `gateway-error`, `wrong-host`
 */
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

/** Returns the default of every parameter. */
export function defaults(schema: ParametersSchema): Parameters;

export const Ooblex: {
  connect: typeof connect;
  publish: typeof publish;
  watch: typeof watch;
  listRooms: typeof listRooms;
  effects: typeof effects;
  openCamera: typeof openCamera;
  openFile: typeof openFile;
  openMicrophone: typeof openMicrophone;
  openScreen: typeof openScreen;
  defaults: typeof defaults;
};
