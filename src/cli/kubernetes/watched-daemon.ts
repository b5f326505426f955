/*
 * A daemon that may end and come back, with its devices: a session is open while it runs, and is tried again while none
 * runs. Its devices are known from the subscription, and after its end those that it had.
 */
import { setTimeout } from 'node:timers/promises'
import { openToolSession } from '../../daemon/client/tool-session.ts'
import type { DeviceSpec } from '../../uapi/tool.ts'
import { messageOf } from '../fail.ts'

/** Milliseconds between two tries to open a session. */
const RETRY = 500

export interface WatchedDaemon {
  readonly isUp: boolean
  readonly devices: readonly DeviceSpec[]
  close(): void
}

/**
 * Watches the daemon at `socket`. `onChange`: its devices, or whether it runs, have changed. `say`: gets a sentence
 * when a daemon has come, has ended, or cannot be used.
 */
export const watchDaemon = (socket: string, onChange: () => void, say: (sentence: string) => void): WatchedDaemon => {
  const closing = new AbortController()
  let isUp = false
  let devices: readonly DeviceSpec[] = []
  let said: string | undefined
  const sayOnce = (sentence: string): void => {
    if (sentence !== said) say(sentence)
    said = sentence
  }
  const follow = async (): Promise<void> => {
    const session = await openToolSession(socket)
    const close = (): void => session.close()
    closing.signal.addEventListener('abort', close)
    try {
      if (closing.signal.aborted) return
      await session.subscribe('devices', {}, record => {
        if ('lost' in record) return
        devices = 'snapshot' in record ? record.snapshot : record.change
        if (!isUp) sayOnce(`the daemon at ${socket} serves`)
        isUp = true
        onChange()
      })
      await session.ended
      if (!closing.signal.aborted) sayOnce(`the daemon at ${socket} has ended`)
    } finally {
      closing.signal.removeEventListener('abort', close)
      session.close()
      const wasUp = isUp
      isUp = false
      if (wasUp && !closing.signal.aborted) onChange()
    }
  }
  const watch = async (): Promise<void> => {
    while (!closing.signal.aborted) {
      await follow().catch(error => {
        if (!closing.signal.aborted && said !== `the daemon at ${socket} has ended`) sayOnce(messageOf(error))
      })
      await setTimeout(RETRY, undefined, { signal: closing.signal }).catch(() => {})
    }
  }
  void watch()
  return {
    get isUp() {
      return isUp
    },
    get devices() {
      return devices
    },
    close: () => closing.abort(),
  }
}
