/*
 * Finding class-differs: a queue pair sends in another traffic class (DSCP, on InfiniBand the SL) than its peer, or
 * than another queue pair between the same programs. It is told once for two programs: it is legal, and may be
 * intended.
 */
import { addressText } from '../../../transport/wire/address.ts'
import { areConnected, classOf, classText } from '../connection.ts'
import type { Detector, DetectorServices } from '../detector.ts'
import type { KnownObject } from '../objects.ts'
import type { Occurrence } from '../reporting.ts'

/** Pairs of programs, or of a program and an address of another host, that are remembered, the latest. */
const MAX_PAIRS = 1024

/** The first queue pair in this direction; or what was told: of two queue pairs, or of both ends of a connection. */
type Known = KnownObject | 'others' | 'ends'

const isOtherClass = (a: KnownObject, b: KnownObject): boolean => {
  const [one, other] = [classOf(a), classOf(b)]
  return one !== undefined && other !== undefined && one !== other
}

export const createClassDetector = (services: DetectorServices): Detector => {
  /** By the pids of both programs, in the order of the direction. */
  const pairs = new Map<string, Known>()
  const remember = (key: string, known: Known): void => {
    pairs.delete(key)
    pairs.set(key, known)
    const [oldest] = pairs.keys()
    if (pairs.size > MAX_PAIRS && oldest !== undefined) pairs.delete(oldest)
  }
  const report = (at: Occurrence, qp: KnownObject, peer: KnownObject): void =>
    void services.report('class-differs', at, {
      text: `${qp.name} sends in ${classText(qp)}, and its peer, ${peer.nameWithProgram}, in ${classText(peer)}: so do ACKs and READ responses`,
      objects: [qp, peer],
    })
  return {
    on: {
      modified(call, qp) {
        if (!qp.isQp || classOf(qp) === undefined) return
        const peer = services.peerOf(qp)
        if (peer === undefined || peer === qp || peer.destruction !== undefined) return
        const [own, other] = [qp.program?.pid, peer.program?.pid]
        const there = `${own} ${other}`
        const back = `${other} ${own}`
        const first = pairs.get(there)
        const tell = (known: Known): void => {
          remember(there, known)
          remember(back, known)
        }
        if (first === 'ends') return
        if (areConnected(qp, peer, services.deviceWithGid) && isOtherClass(qp, peer)) {
          tell('ends')
          report(call, qp, peer)
        } else if (first === 'others') return
        else if (first === undefined || first.destruction !== undefined) remember(there, qp)
        else if (first !== qp && first !== peer && isOtherClass(first, qp)) {
          tell('others')
          services.report('class-differs', call, {
            text: `${qp.name} sends in ${classText(qp)}, and ${first.name} to the same program in ${classText(first)}`,
            objects: [qp, first],
          })
        }
      },
      ends(call, qp) {
        const { net, sources, objects } = services
        const { address, destQpn } = qp.attributes
        // The end that has a class asks; in a net the other one is on another host.
        if (!qp.isQp || !classOf(qp) || address === undefined || destQpn === undefined) return
        if (services.peerDeviceOf(qp) !== undefined) return
        const text = addressText(address.dgid)
        const key = `${qp.program?.pid} ${text}`
        if (pairs.has(key)) return
        remember(key, 'ends')
        const question = { address: text, qpn: destQpn, time: call.time + (sources.clock ?? 0) }
        sources.askPeer?.(question, (host, facts) => {
          if (host === undefined || facts === undefined) return
          net.add(question, host, facts)
          const device = net.deviceWithGid(address.dgid)
          const peer = device === undefined ? undefined : objects.qp(device, destQpn)
          if (peer !== undefined && peer.attributes.destQpn === qp.qpn && isOtherClass(qp, peer))
            report({ ...call, program: qp.program, action: 'disconnected' }, qp, peer)
        })
      },
    },
  }
}
