/*
 * `reconnect`: connections to one listener, one after the other, for programs that outlive their peers.
 */
import { realClock, sleepOn } from '../../host/event-loop/clock.ts'
import { checkOptions, type KnownOptions } from '../verbs/arguments/options.ts'
import { contextOf } from '../verbs/device.ts'
import { checkInteger, RdmaError } from '../verbs/error.ts'
import { type ConnectToOptions, connect, connectOptionNames } from './connect.ts'
import type { Connection } from './connection.ts'
import type { ListenerAddress } from './url.ts'

/** Options of `reconnect`: those of `connect`, and the pauses. */
export interface ReconnectOptions extends ConnectToOptions {
  /**
   * Milliseconds between the first failure and the next attempt, 1 to 2^31 - 1; default 100. Each failure doubles it.
   */
  readonly pause?: number | undefined
  /** Longest pause in milliseconds, at least `pause`; default 10,000. */
  readonly maxPause?: number | undefined
}

const reconnectOptionNames: KnownOptions<ReconnectOptions> = { ...connectOptionNames, pause: true, maxPause: true }
const DEFAULT_PAUSE = 100
const DEFAULT_MAX_PAUSE = 10_000
const MAX_TIMER_DELAY = 2 ** 31 - 1

/** Failures that may pass: the peer or its machine is not ready. */
const PASSING = ['ECONNREFUSED', 'ETIMEDOUT', 'EHOSTUNREACH', 'ENETUNREACH']

async function* connections(
  address: ListenerAddress,
  options: ConnectToOptions,
  firstPause: number,
  maxPause: number,
): AsyncGenerator<Connection, never> {
  const { signal, device } = options
  const clock = device === undefined ? realClock : contextOf('reconnect', device).carrier.clock
  for (let pause = firstPause; ; pause = Math.min(2 * pause, maxPause)) {
    let connection: Connection | undefined
    try {
      connection = await connect(address, options)
    } catch (error) {
      if (!(error instanceof RdmaError) || !PASSING.includes(error.code)) throw error
    }
    if (connection !== undefined) {
      const start = clock.now()
      try {
        yield connection
      } finally {
        await connection.close()
      }
      if (clock.now() - start > pause * 1000) pause = firstPause
    }
    signal?.throwIfAborted()
    await clock.watch('reconnect', sleepOn(clock, pause, signal))
  }
}

/**
 * Connects to the listener at an address again and again: `for await (const connection of reconnect(…))`. The body of
 * the loop uses the connection until it has ended; then the connection is closed, and the next one is made after a
 * pause. Failures (ECONNREFUSED, ETIMEDOUT, EHOSTUNREACH, ENETUNREACH), and connections shorter than the pause, double
 * the pause. The loop rejects with the signal's reason and with other errors of `connect`. Throws RdmaError EINVAL.
 */
export const reconnect = (
  address: ListenerAddress,
  options: ReconnectOptions = {},
): AsyncGenerator<Connection, never> => {
  checkOptions('reconnect', 'options', options, reconnectOptionNames)
  const { pause = DEFAULT_PAUSE, maxPause = Math.max(pause, DEFAULT_MAX_PAUSE), ...connectOptions } = options
  checkInteger('reconnect', 'pause', pause, 1, MAX_TIMER_DELAY)
  checkInteger('reconnect', 'maxPause', maxPause, pause, MAX_TIMER_DELAY)
  return connections(address, connectOptions, pause, maxPause)
}
