/*
 * Row "tools": the round trip of ibv_rc_pingpong beside as many subscriptions as a daemon allows, compared with the same
 * daemon without them.
 */
import { startChild } from './harness/children.ts'
import type { Bench, Row } from './harness/harness.ts'
import { needProgram, startDaemon } from './harness/processes.ts'
import { iterationsFor, roundTrip } from './pingpong.ts'
import type { ToolsOrder } from './sides/tools-side.ts'

/** Processes with 256 subscriptions: 2048 together. */
const TOOLS = 8
const SIZE = 64
/** A round takes some ten intervals of the subscriptions, so that it has more than their first records. */
const INTERVALS = 20
/** Tools take what the programs leave: the row is about the daemon's time. */
const LAST = ['nice', '-n', '19']

const prepare = async (): Promise<Bench> => {
  needProgram('ibv_rc_pingpong', 'ibverbs-utils')
  const daemon = await startDaemon()
  const tools = Array.from({ length: TOOLS }, () => startChild<ToolsOrder>('tools-side.js', LAST))
  const all = (order: ToolsOrder): Promise<unknown> => Promise.all(tools.map(tool => tool.ask(order)))
  const close = async (): Promise<void> => {
    await Promise.all(tools.map(tool => tool.stop()))
    await daemon.stop()
  }
  try {
    const iterations = INTERVALS * (await iterationsFor(count => roundTrip(daemon, SIZE, count)))
    return {
      async ours() {
        await all({ socket: daemon.socket })
        try {
          return await roundTrip(daemon, SIZE, iterations)
        } finally {
          await all({})
        }
      },
      reference: () => roundTrip(daemon, SIZE, iterations),
      note: `${TOOLS * 256} subscriptions, ${iterations} round trips a round`,
      close,
    }
  } catch (error) {
    await close()
    throw error
  }
}

export const toolRows: readonly Row[] = [
  {
    name: 'tools pingpong',
    quantity: 'ibv_rc_pingpong 64 B beside 2048 subscriptions',
    unit: 'µs',
    better: 'lower',
    cores: 2,
    reference: 'the same without',
    floor: 1.5,
    aim: 1.15,
    prepare,
  },
]
