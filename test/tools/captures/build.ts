/*
 * Captures that tests make: files from packets, and packets from Linux's captures (test/fixtures/wire).
 */
import { readFileSync } from 'node:fs'
import { CaptureAnalysis } from '../../../src/tools/captures/analysis.ts'
import type { CapturedPacket } from '../../../src/tools/captures/file.ts'
import { type CaptureProblem, problemsOf } from '../../../src/tools/captures/problems.ts'
import { readCapture } from '../../captures.ts'
import { fixture } from '../../paths.ts'

/** A pcap file with nanoseconds. `snap`: bytes of each packet that are kept. */
export const pcapOf = (packets: readonly CapturedPacket[], { linkType = 1, snap = 262_144 } = {}): Uint8Array => {
  const head = Buffer.alloc(24)
  head.writeUInt32LE(0xa1b2_3c4d, 0)
  head.writeUInt16LE(2, 4)
  head.writeUInt16LE(4, 6)
  head.writeUInt32LE(snap, 16)
  head.writeUInt32LE(linkType, 20)
  const parts: Uint8Array[] = [head]
  for (const { time = 0n, bytes, length } of packets) {
    const record = Buffer.alloc(16)
    const kept = bytes.subarray(0, snap)
    record.writeUInt32LE(Number(time / 1_000_000_000n), 0)
    record.writeUInt32LE(Number(time % 1_000_000_000n), 4)
    record.writeUInt32LE(kept.length, 8)
    record.writeUInt32LE(length, 12)
    parts.push(record, kept)
  }
  return new Uint8Array(Buffer.concat(parts))
}

export const packetsOfFixture = (name: string): CapturedPacket[] =>
  readCapture(readFileSync(fixture('wire', `${name}.pcap`)))

/** Analyses a file that is in memory, in chunks of `chunk` bytes. */
export const analyse = (file: Uint8Array, chunk = file.length): CaptureAnalysis => {
  const analysis = new CaptureAnalysis()
  for (let at = 0; at < file.length; at += chunk) analysis.reader.push(file.subarray(at, at + chunk))
  analysis.finish()
  return analysis
}

export const problemsIn = (file: Uint8Array): readonly CaptureProblem[] => problemsOf(analyse(file)).problems

export const causesIn = (file: Uint8Array): string[] => problemsIn(file).map(({ cause }) => cause)

/** The same number for the same seed, from 0 to 1. */
export const randomOf = (seed: number): (() => number) => {
  let state = seed >>> 0
  return () => {
    state = (Math.imul(state, 1_664_525) + 1_013_904_223) >>> 0
    return state / 2 ** 32
  }
}
