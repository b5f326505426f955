/*
 * Recorded netlink messages between Linux and iproute2 (test/fixtures/netlink/ORIGIN.md).
 */
import { readFileSync } from 'node:fs'
import { gunzipSync } from 'node:zlib'
import { MESSAGE_HEADER, type Message, readMessages } from '../../../src/uapi/nldev/messages.ts'
import { fixture } from '../../paths.ts'

export interface Recorded extends Message {
  /** True: iproute2 sent the message; false: Linux. */
  readonly sent: boolean
  readonly bytes: Uint8Array
  /** The command of iproute2. */
  readonly command: string
}

/** The messages of a log of test/fixtures/netlink. */
export const recorded = (name: string): Recorded[] => {
  let command = ''
  return [
    ...gunzipSync(readFileSync(fixture('netlink', name)))
      .toString()
      .matchAll(/^(?:# (.*)|(send|recv)\S+ .*data=([0-9a-f]+))$/gm),
  ].flatMap(([, comment, direction, data]) => {
    command = comment ?? command
    if (data === undefined) return []
    const datagram = new Uint8Array(Buffer.from(data, 'hex'))
    let at = 0
    return readMessages(datagram).map(message => {
      const bytes = datagram.subarray(at, at + MESSAGE_HEADER + message.body.length)
      at += (bytes.length + 3) & ~3
      return { ...message, sent: direction === 'send', bytes, command }
    })
  })
}
