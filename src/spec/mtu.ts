/*
 * Path MTUs: enum ibv_mtu ⇄ bytes of payload per packet.
 */
import { Mtu } from './enums.ts'

/** The number of `Mtu` (enum ibv_mtu) for a path MTU of `bytes`: 256, 512 … 4096. */
export const mtuEnum = (bytes: number): number => Math.log2(bytes) - Math.log2(256) + Mtu.values.MTU_256

/** Bytes of a path MTU; `mtu` is a number of `Mtu` (enum ibv_mtu). */
export const mtuBytes = (mtu: number): number => 128 << mtu

/** The largest path MTU in bytes. */
export const MAX_MTU_BYTES = mtuBytes(Mtu.values.MTU_4096)
