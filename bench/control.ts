/*
 * Row "control": the cost of a control call of an unmodified program (ibv_query_gid, an ioctl), compared with two
 * processes of a C program that exchange messages of the same size over the same kind of socket.
 */
import { Messages } from '../src/spec/session.ts'
import type { Bench, Row } from './harness/harness.ts'
import { ownProgram, runReference, startDaemon } from './harness/processes.ts'

const CALLS = 10_000
/** Bytes of an IOCTL request, and of the reply. */
const BYTES = Messages.header.size + Messages.ioctl.size

const prepare = async (): Promise<Bench> => {
  const program = ownProgram('calls')
  const daemon = await startDaemon()
  return {
    ours: async () => Number.parseFloat(await daemon.run(program, CALLS).finished()),
    reference: () => runReference('unix_pingpong', BYTES, CALLS, 'seqpacket'),
    note: `${CALLS} calls a round`,
    close: () => daemon.stop(),
  }
}

export const controlRows: readonly Row[] = [
  {
    name: 'control',
    quantity: 'a control call from a program',
    unit: 'µs',
    better: 'lower',
    cores: 2,
    reference: 'seqpacket ping-pong in C',
    floor: 8,
    aim: 3,
    prepare,
  },
]
