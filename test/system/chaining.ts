/*
 * A program for trace.test.ts: a chain of 503 calls that succeeds, and a chain that is refused.
 */
import { open } from '../../src/library/index.ts'

const socket = process.env.USERDMA_SOCKET
if (socket === undefined) throw new Error('this program runs under userdma trace')
const device = await open({ socket })
const created = device.chain(chain => {
  const pd = chain.pd()
  const cq = chain.cq()
  return { qps: Array.from({ length: 500 }, () => chain.rcQp(pd, { sendCq: cq })), last: chain.cq() }
})
try {
  const pd = device.pd()
  device.chain(chain => [chain.rcQp(pd, { sendCq: chain.cq(), maxSendWr: 1 << 30 })])
  process.exitCode = 1
} catch {
  // maxSendWr is above the device's limit.
}
if (created.qps.length !== 500) process.exitCode = 1
await device.close()
