/*
 * Path records (IBA 15.2.5.16) from the routes of the subnet: MTU and rate are the least of the links between two
 * ports.
 */
import { FULL_MEMBER, Selector } from '../../spec/wire/subnet.ts'
import type { SaRecord } from '../../transport/wire/mad/subnet.ts'
import type { Routes } from './routing.ts'
import type { FoundPort } from './subnet.ts'

export type PathRecord = SaRecord<'PathRecord'>

/** 4.096 µs × 2^18. */
export const PACKET_LIFE_TIME = 18
/** Within a node. */
const NO_TIME = 0

/** By lanes, then by speed in units of 100 Mb/s: the codes of rates (15.2.5.16, and its additions). */
const RATE_CODES: Readonly<Record<number, number>> = {
  25: 2,
  50: 5,
  100: 3,
  140: 11,
  200: 6,
  250: 15,
  300: 4,
  400: 7,
  500: 20,
  560: 12,
  600: 8,
  800: 9,
  1000: 16,
  1120: 13,
  1200: 10,
  1680: 14,
  2000: 17,
  3000: 18,
  4000: 21,
}
const LANES: Readonly<Record<number, number>> = { 1: 1, 2: 4, 4: 8, 8: 12, 16: 2 }
const BASE: Readonly<Record<number, number>> = { 1: 25, 2: 50, 4: 100 }
const EXTENDED: Readonly<Record<number, number>> = { 1: 140, 2: 250, 4: 500, 8: 1000 }

/** Of a port's link, in units of 100 Mb/s. */
const rateOf = ({ info }: FoundPort): number =>
  (LANES[info.linkWidthActive] ?? 1) * (EXTENDED[info.linkSpeedExtActive] ?? BASE[info.linkSpeedActive] ?? 25)

const rateOfCode = (code: number): number =>
  Number(Object.entries(RATE_CODES).find(([, value]) => value === code)?.[0] ?? Number.NaN)

/** The code of the largest rate that is at most `rate`. */
const codeOfRate = (rate: number): number => {
  let best = 25
  for (const each of Object.keys(RATE_CODES).map(Number)) if (each <= rate && each > best) best = each
  return RATE_CODES[best]!
}
/** The code of a port's rate. */
export const portRate = (port: FoundPort): number => codeOfRate(rateOf(port))

/**
 * The value for a query: at most `own`, which the path has; undefined if it cannot be what the query wants. `order`: of
 * codes.
 */
export const selected = (
  own: number,
  wanted: { readonly selector: number; readonly value: number } | undefined,
  order: (code: number) => number = code => code,
): number | undefined => {
  if (wanted === undefined || wanted.selector === Selector.LARGEST) return own
  const [mine, theirs] = [order(own), order(wanted.value)]
  if (wanted.selector === Selector.GREATER) return mine > theirs ? own : undefined
  if (wanted.selector === Selector.EXACT) return mine >= theirs ? wanted.value : undefined
  if (mine < theirs) return own
  const less = [...Array(64).keys()].filter(code => order(code) < theirs && order(code) > 0)
  return less.sort((a, b) => order(b) - order(a))[0]
}
export const rateOrder = rateOfCode

/** Whether two entries are of one partition, and may talk: not both are limited members. */
const mayTalk = (a: number, b: number): boolean =>
  (a & ~FULL_MEMBER) !== 0 && (a & ~FULL_MEMBER) === (b & ~FULL_MEMBER) && ((a | b) & FULL_MEMBER) !== 0

/** The first partition key of `from` by which it may talk with `to`; `wanted`: only of this partition. */
export const commonPkey = (from: FoundPort, to: FoundPort, wanted?: number): number | undefined =>
  from.pkeys.find(
    key =>
      (wanted === undefined || ((key ^ wanted) & ~FULL_MEMBER) === 0) && to.pkeys.some(other => mayTalk(key, other)),
  )

export const isInPartition = ({ pkeys }: FoundPort, pkey: number): boolean =>
  pkeys.some(key => (key & ~FULL_MEMBER) !== 0 && ((key ^ pkey) & ~FULL_MEMBER) === 0)

interface PathQuality {
  /** Codes. */
  readonly mtu: number
  readonly rate: number
  readonly packetLifeTime: number
}

/** MTU, rate and lifetime between two ports; undefined: there is no way. */
export const qualityBetween = (routes: Routes, from: FoundPort, to: FoundPort): PathQuality | undefined => {
  const passed = routes.walk(from, to)
  if (passed === undefined) return undefined
  const links = passed.length === 0 ? [from] : [...passed, from, to].filter(({ number }) => number > 0)
  return {
    mtu: Math.min(from.info.mtuCap, to.info.mtuCap, ...links.map(({ info }) => info.neighborMtu)),
    rate: codeOfRate(Math.min(...links.map(rateOf))),
    packetLifeTime: passed.length === 0 ? NO_TIME : PACKET_LIFE_TIME,
  }
}
