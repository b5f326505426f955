/*
 * A queue pair ends that was connected to none, or to one whose attributes do not fit. After a reported failure nothing
 * is said: the mismatch may have caused the failure.
 */
import { findings } from '../../../spec/check/findings.ts'
import { areConnected, attributeTable, hasReachedRtr, mismatches, psnLines, rdAtomicExceeds } from '../connection.ts'
import type { Detector, DetectorServices } from '../detector.ts'
import { hex } from '../objects.ts'

export const createUnfitEndsDetector = (services: DetectorServices): Detector => ({
  on: {
    ends(call, qp) {
      const { objects, deviceWithGid, sources } = services
      // An XRC target is checked when its last opener closes it.
      if (!qp.isQp || qp.isReported || objects.openersOf(qp).size > 1) return
      const peer = services.peerOf(qp)
      const peerDevice = services.peerDeviceOf(qp)
      const knowsAllPeers = peerDevice !== undefined && !sources.hasUnchecked?.(peerDevice) && objects.isComplete
      const { destQpn } = qp.attributes
      const occurrence = { ...call, program: qp.program, action: 'disconnected' }
      // An initiator or target of DC is connected to no queue pair.
      const { meant, ...wrong } = services.wrongNumber(peerDevice, destQpn)
      if (peer === undefined && destQpn !== undefined && hasReachedRtr(qp) && knowsAllPeers)
        services.report('no-peer-qp', occurrence, {
          severity: 'warning',
          text: `${qp.nameWithProgram} was connected to QP ${hex(destQpn)}, which never existed`,
          ...wrong,
          objects: [qp, meant],
        })
      if (peer === undefined || peer === qp || peer.destruction !== undefined) return
      if (!areConnected(qp, peer, deviceWithGid)) return
      const id = mismatches(qp, peer, deviceWithGid)[0] ?? (rdAtomicExceeds(qp, peer) ? 'rd-atomic-exceeds' : undefined)
      if (id === undefined) return
      services.report(id, occurrence, {
        severity: 'warning',
        text: `${qp.nameWithProgram} was connected to ${peer.nameWithProgram}: ${findings[id].title}`,
        details: [...psnLines(qp, peer), ...attributeTable(qp, peer)],
        objects: [qp, peer],
      })
    },
  },
})
