/*
 * Findings about the address vectors of queue pairs and address handles with LIDs: a GRH that names another port than
 * the LID (IBA 8.3). Of datagrams whose address handle no call has made, datagrams.ts tells.
 */
import { causes, causeText, createCause } from '../../../spec/check/causes.ts'
import { addressText, isMulticastGid, lidAddress } from '../../../transport/wire/address.ts'
import type { Detector, DetectorServices } from '../detector.ts'

export const createLidPathDetector = (services: DetectorServices): Detector => ({
  on: {
    called(call, object) {
      const { ibAddress } = call.args as {
        readonly ibAddress?: { readonly dlid: number; readonly dgid: Uint8Array; readonly isGlobal: number }
      }
      if (ibAddress === undefined || !ibAddress.isGlobal || call.refused !== undefined || call.why !== 'call') return
      const { dlid: lid, dgid } = ibAddress
      const device = services.deviceWithGid(lidAddress(lid))
      if (device === undefined || isMulticastGid(dgid) || services.deviceWithGid(dgid) === device) return
      const port = services.sources.deviceName(device)
      const text = causeText(createCause('GRH_OF_OTHER', { dgid: addressText(dgid), port, lid }))
      services.report('wrong-grh', call, {
        text: `${object.name} has a path: ${text}`,
        advice: causes.GRH_OF_OTHER.advice,
        objects: [object],
      })
    },
  },
})
