/*
 * Tells the subnet of an InfiniBand port of packets whose partition key or Q_Key the receiver lacks (IBA 10.9.4,
 * 14.2.5.1: traps 257 and 258). The engine counts them; this layer between port and delivery looks at the counts after
 * each run of packets, so that ports of Ethernet do not look.
 */
import type { PortSubnet } from '../../spec/subnet-port.ts'
import { TRANSPORT_MASK } from '../../spec/wire/opcodes.ts'
import { Service, serviceBits } from '../../spec/wire/services.ts'
import type { ReceivedRun } from '../../transport/phy/port.ts'
import { lidOf } from '../../transport/wire/address.ts'
import { BTH_BYTES, bthDestQp, bthOpcode, bthPkey } from '../../transport/wire/bth.ts'
import { dethQkey, dethSrcQp } from '../../transport/wire/extensions.ts'
import type { ReceivingPort } from './delivery.ts'

interface Violations {
  readonly pkeyViolations: number
  readonly qkeyViolations: number
}

/** `port` with `tell`, which is called before the bytes of a run are released. */
export const tellViolations = (
  port: ReceivingPort,
  counts: Violations,
  tell: (news: Parameters<PortSubnet['news']>[0]) => void,
): ReceivingPort => {
  let { pkeyViolations, qkeyViolations } = counts
  let last: ReceivedRun | undefined
  const look = (): void => {
    if (last === undefined) return
    const isBadPkey = counts.pkeyViolations !== pkeyViolations
    const isBadQkey = counts.qkeyViolations !== qkeyViolations
    if (isBadPkey || isBadQkey) {
      pkeyViolations = counts.pkeyViolations
      qkeyViolations = counts.qkeyViolations
      const { offset: at, flowAddress } = last
      const { view } = port.arena
      const isDatagram = (bthOpcode(view, at) & TRANSPORT_MASK) === serviceBits[Service.UD]
      const deth = at + BTH_BYTES
      const { source, destination, sl = 0, grh, hopLimit } = flowAddress
      const path = {
        slid: lidOf(source),
        dlid: lidOf(destination),
        sl,
        // Other packets do not have the sender's.
        sourceQpn: isDatagram ? dethSrcQp(view, deth) : 0,
        destQpn: bthDestQp(view, at),
        ...(grh && { grh: { ...grh, hopLimit } }),
      }
      if (isBadPkey) tell({ kind: 'bad-pkey', key: bthPkey(view, at), path })
      else tell({ kind: 'bad-qkey', key: isDatagram ? dethQkey(view, deth) : 0, path })
    }
    last = undefined
  }
  return {
    arena: port.arena,
    scratch: port.scratch,
    receive(run) {
      look()
      const hasMore = port.receive(run)
      if (hasMore) last = run
      return hasMore
    },
    release() {
      look()
      port.release()
    },
  }
}
