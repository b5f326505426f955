/*
 * RoCEv2 packets that IP has cut into fragments: which came whole, and which lack a part. The first fragment has the
 * transport headers, so a packet is understood from it; adapters take only whole packets.
 */
import type { IpFragment } from './locate.ts'

/** Datagrams whose fragments are collected; then the oldest is judged. */
const MAX_OPEN = 4096

interface Datagram {
  isRoce: boolean
  readonly frame: number
  bytes: number
  /** Known from the last fragment. */
  total: number | undefined
}

export class FragmentTable {
  /** RoCEv2 packets in fragments, and those of which some are missing, with the frame of the first. */
  packets = 0
  incomplete = 0
  firstFrame = 0
  incompleteFrame = 0
  readonly #open = new Map<string, Datagram>()

  add(
    { source, destination, identification, offset, bytes, isLast }: IpFragment,
    isRoce: boolean,
    frame: number,
  ): void {
    const key = `${source}/${destination}/${identification}`
    let datagram = this.#open.get(key)
    if (datagram === undefined) {
      datagram = { isRoce: false, frame, bytes: 0, total: undefined }
      this.#open.set(key, datagram)
      const [oldest] = this.#open
      if (this.#open.size > MAX_OPEN && oldest !== undefined) {
        this.#open.delete(oldest[0])
        this.#judge(oldest[1])
      }
    }
    datagram.isRoce ||= isRoce
    datagram.bytes += bytes
    if (isLast) datagram.total = offset + bytes
    if (datagram.total === undefined || datagram.bytes < datagram.total) return
    this.#open.delete(key)
    this.#judge(datagram)
  }

  #judge({ isRoce, frame, bytes, total }: Datagram): void {
    if (!isRoce) return
    if (this.packets++ === 0) this.firstFrame = frame
    if (total !== undefined && bytes >= total) return
    if (this.incomplete++ === 0) this.incompleteFrame = frame
  }

  /** No more fragments. */
  finish(): void {
    for (const datagram of this.#open.values()) this.#judge(datagram)
    this.#open.clear()
  }
}
