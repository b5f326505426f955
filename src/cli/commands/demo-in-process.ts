/*
 * The demo without programs and without native code: two queue pairs of one device in this process, by the library.
 */
import { defaultDevice } from '../../daemon/devices/device-spec.ts'
import { createNetwork, type Device, open } from '../../library/index.ts'
import { blank, heading, line, paragraph } from '../demo-format.ts'

/** Length of the message. */
const BYTES = 2000
/** Bytes of payload of a packet: the message has two. */
const PATH_MTU = 1024

/** A queue pair with its queue of completions and registered memory. */
const createEnd = (device: Device) => {
  const pd = device.pd()
  const memory = new Uint8Array(BYTES)
  const cq = device.cq()
  return { memory, region: pd.register(memory), cq, qp: pd.polledRcQp({ sendCq: cq }) }
}

const completion = async ({ cq }: ReturnType<typeof createEnd>): Promise<string> => {
  while (!cq.poll()) await cq.wait()
  const { statusName, bytes } = cq.completion
  return `status ${statusName}, ${bytes} bytes`
}

/** Connects two queue pairs, sends a message, and prints its packets and the result. */
export const demoInProcess = async (): Promise<void> => {
  const network = createNetwork()
  const device = await open({ network, name: defaultDevice.name, address: defaultDevice.address })
  const packets: string[] = []
  network.packets(({ text }) => packets.push(text))

  heading('1. Two queue pairs in one process')
  paragraph(
    `A device, ${defaultDevice.name} at ${defaultDevice.address}, was created in this process. Two queue pairs were made on it, with ${BYTES} bytes of registered memory each, as two programs would; they are connected, and one sends its bytes to the other.`,
  )
  const [sender, receiver] = [createEnd(device), createEnd(device)]
  sender.qp.connect(receiver.qp.endpoint, { pathMtu: PATH_MTU })
  receiver.qp.connect(sender.qp.endpoint, { pathMtu: PATH_MTU })
  sender.memory.forEach((_, i, bytes) => {
    bytes[i] = (i * 31) & 0xff
  })
  receiver.qp.receive(receiver.region.slice())
  sender.qp.send(sender.region.slice())
  const sent = await completion(sender)
  const received = await completion(receiver)

  heading('2. The packets')
  for (const packet of packets) line(packet)
  blank()
  line(`sender:   ${sent}`)
  line(`receiver: ${received}`)
  const isEqual = Buffer.compare(sender.memory, receiver.memory) === 0
  line(`memory:   ${isEqual ? `all ${BYTES} bytes arrived` : 'the bytes differ'}`)
  await device.close()
  if (!isEqual) throw new Error('the bytes that arrived differ from those that were sent')
}
