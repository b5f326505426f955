/*
 * The packets of capture files that tests have in memory.
 */
import { type CapturedPacket, packetsOf } from '../src/tools/captures/file.ts'

/** The packets of a file. Throws an Error with the place if the file is damaged. */
export const readCapture = (file: Uint8Array): CapturedPacket[] => {
  const { packets, damage } = packetsOf(file)
  if (damage !== undefined) throw new Error(`damaged at byte ${damage.offset}: ${damage.reason}`)
  return packets
}
