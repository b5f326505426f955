/*
 * Entry point of `userdma/messages`: connections with messages. It imports devices of this process, the checker and the
 * session with a daemon with the first device that needs them.
 */

export {
  type ConnectionRequest,
  type ConnectToOptions,
  connect,
  type DeviceChoice,
  type ListenOptions,
  listen,
  type RejectOptions,
  type Server,
} from './connections/connect.ts'
export {
  type ClosedEvent,
  type ConnectedQueuePair,
  type Connection,
  ConnectionError,
  type ConnectionOptions,
} from './connections/connection.ts'
export type { CloseReason } from './connections/events.ts'
export type { Messages, MessagesOptions } from './connections/messages/messages.ts'
export { type ReconnectOptions, reconnect } from './connections/reconnect.ts'
export {
  type MessageClient,
  type MessageHandler,
  type MessageServer,
  type ServeOptions,
  serve,
} from './connections/serve.ts'
export type { ListenerAddress } from './connections/url.ts'
export { type OpenOptions, open } from './open/open.ts'
export { RequestError } from './verbs/awaitable/request-error.ts'
export { type RequestWindow, requestWindow } from './verbs/awaitable/request-window.ts'
export type { Device } from './verbs/device.ts'
export { type ErrorCode, RdmaError } from './verbs/error.ts'
