/*
 * The daemon's network: the memory link that joins its devices, with the faults and captures that people ask for around
 * each port.
 */
import { writeSync } from 'node:fs'
import { nowMicroseconds } from '../host/clock.ts'
import { loadNativeCrc } from '../host/crc.ts'
import { mapArena } from '../host/mapping.ts'
import { hasFaults, parseFaults } from '../phy/fault-spec.ts'
import { withFaults } from '../phy/faults.ts'
import { createMemorySwitch, memorySwitchBytes } from '../phy/memory.ts'
import type { Port } from '../phy/port.ts'
import { addTap, forEachPacket } from '../phy/tap.ts'
import { createPcapng } from '../trace/pcapng.ts'
import { useCrcEngine } from '../wire/crc.ts'

export interface Network {
  /** A port for one more device. */
  attach(name: string): Port
  /**
   * Writes every packet that a device sends to a file, as pcapng, from now until the function returned is called or a
   * write fails. Closing the file is the caller's. Throws what the system says if nothing can be written at all.
   */
  capture(fd: number): () => void
}

/** `fault`: specification as text, empty for none. Each device has its own random sequence, made from the seed. */
export const createNetwork = (fault: string): Network => {
  const arena = mapArena(memorySwitchBytes())
  const crc = loadNativeCrc()
  if (crc) useCrcEngine(crc, arena)
  // Memory loses no bits: ICRCs are made and checked once somebody looks at packets or damages them (taps and faults
  // ask for it).
  const link = createMemorySwitch({ arena, sealing: 'demand' })
  const faults = parseFaults(fault)
  const ports: { readonly name: string; readonly port: Port }[] = []

  return {
    attach(name) {
      const bare = link.attach()
      const port = hasFaults(faults) ? withFaults(bare, faults, faults.seed + ports.length) : bare
      ports.push({ name, port })
      return port
    },
    capture(fd) {
      const write = createPcapng(
        bytes => {
          for (let done = 0; done < bytes.length; ) done += writeSync(fd, bytes, done)
        },
        { interfaces: ports.map(({ name }) => name) },
      )
      const stop = (): void => {
        for (const remove of removers) remove()
      }
      const removers = ports.map(({ port }, index) =>
        addTap(port, run => {
          // What one device sends another one receives: each packet is written once.
          if (run.direction !== 'sent') return
          const time = performance.timeOrigin * 1000 + nowMicroseconds()
          try {
            forEachPacket(run, (offset, length, identification) =>
              write({
                interface: index,
                time,
                flow: run.flow,
                identification,
                payload: run.arena.bytes.subarray(offset, offset + length),
              }),
            )
          } catch (error) {
            // A full disk is the capture's end, not that of the packets.
            console.error('userdma daemon: a packet capture has ended early:', String(error))
            stop()
          }
        }),
      )
      return stop
    },
  }
}
