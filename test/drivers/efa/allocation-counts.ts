/*
 * A program for allocations.test.ts: prints the bytes that polls of EFA devices allocate per packet, as JSON. To be run
 * with a young generation so large that a measurement has no collection.
 */
import { getHeapSpaceStatistics } from 'node:v8'
import { EfaOperation } from '../../../src/spec/drivers/efa-queues.ts'
import { machine, program } from './machine.ts'

const { SEND, RDMA_WRITE, RDMA_READ } = EfaOperation
const WARM = 400
const ROUNDS = 100
const SETS = 5
const POLLS = 40

const used = (): number =>
  getHeapSpaceStatistics().find(({ space_name }) => space_name === 'new_space')?.space_used_size ?? 0
const own = (() => {
  for (let i = 0; i < WARM; i++) used()
  const before = used()
  return used() - before
})()

/** `packets`: of a round with `messages` messages of `length` bytes, with acknowledgements. */
const bytesPerPacket = (operation: number, fault: string, isUd: boolean, messages: number, length: number): number => {
  const m = machine(2, fault)
  const bytes = 1 << 20
  const [a, b] = [program(m, 0, { bytes, isUd }), program(m, 1, { bytes, isUd })]
  const ah = a.handleOf(1)
  b.handleOf(0)
  const remote = { address: b.address, rkey: b.region.rkey }
  const counts = () => m.devices.map(device => (device.counters!().hardware as { tx_pkts: number }).tx_pkts)
  const sent = (): number => counts().reduce((sum, count) => sum + count, 0)
  let allocated = 0
  const round = (isCounted: boolean): void => {
    for (let id = 0; id < messages; id++) {
      if (operation === SEND) b.receive(id, 0, 8192)
      a.post({ id, operation, ah, qpn: b.qpn, offset: 0, length, ...(operation !== SEND && { remote }) })
    }
    const before = used()
    for (let i = 0; i < POLLS; i++) {
      m.devices[0]!.poll(m.time.now)
      m.devices[1]!.poll(m.time.now)
    }
    if (isCounted) allocated += used() - before - own
    m.time.now += 10
    if (a.poll().length !== messages) throw new Error('messages are missing')
    b.poll()
  }
  for (let i = 0; i < WARM; i++) round(false)
  // The least of some, because V8 may not have compiled all in time on a busy machine.
  let least = Number.POSITIVE_INFINITY
  for (let set = 0; set < SETS; set++) {
    globalThis.gc?.()
    const before = sent()
    allocated = 0
    for (let i = 0; i < ROUNDS; i++) round(true)
    least = Math.min(least, allocated / (sent() - before))
  }
  return least
}

console.log(
  JSON.stringify({
    'datagrams within the process': bytesPerPacket(SEND, '', true, 32, 64),
    'datagrams by packets': bytesPerPacket(SEND, 'drop=0', true, 32, 64),
    'SENDs within the process': bytesPerPacket(SEND, '', false, 32, 64),
    'a long WRITE by packets': bytesPerPacket(RDMA_WRITE, 'drop=0', false, 1, 1 << 20),
    'a long READ by packets': bytesPerPacket(RDMA_READ, 'drop=0', false, 1, 1 << 20),
    'SENDs by packets': bytesPerPacket(SEND, 'drop=0', false, 32, 64),
  }),
)
