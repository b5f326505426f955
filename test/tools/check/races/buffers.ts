/*
 * Buffers of scripts (script.ts); the last digit is the process. `aroundWord3` contains `word3`.
 */
import type { Memory } from './script.ts'

export const data1: Memory = [1, 0x1000, 64]
export const otherData1: Memory = [1, 0x2000, 64]
export const data3: Memory = [3, 0x3000, 64]
export const otherData3: Memory = [3, 0x4000, 64]
export const data2: Memory = [2, 0x5000, 64]
export const word3: Memory = [3, 0x6000, 8]
export const aroundWord3: Memory = [3, 0x5fc0, 128]
export const result1: Memory = [1, 0x7000, 8]
export const result2: Memory = [2, 0x7000, 8]
