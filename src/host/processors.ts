/*
 * The machine's NUMA nodes, processors and PCI functions, from sysfs.
 */
import { existsSync, readFileSync } from 'node:fs'
import { cpus } from 'node:os'

const NODES = '/sys/devices/system/node'
const PROCESSORS = '/sys/devices/system/cpu'

/** The text of a file of sysfs without the line feed; undefined if it does not exist. */
export const sysfsText = (path: string): string | undefined => {
  try {
    return readFileSync(path, 'utf8').trim()
  } catch {
    return undefined
  }
}

/** The numbers of a list as in sysfs, for example `0-3,8`. */
const numbersOf = (list: string): number[] =>
  list
    .split(',')
    .filter(Boolean)
    .flatMap(range => {
      const [first, last = first] = range.split('-').map(Number) as [number, number?]
      return Array.from({ length: last - first + 1 }, (_, i) => first + i)
    })

/** The NUMA nodes; node 0 on a kernel without NUMA. */
export const numaNodes = (): readonly number[] => numbersOf(sysfsText(`${NODES}/online`) ?? '0')

/** A set of processors as sysfs writes it: `0-3,8`, and as hexadecimal mask: `10f`. */
export interface ProcessorSet {
  readonly list: string
  readonly mask: string
}

const allProcessors = (): string => sysfsText(`${PROCESSORS}/online`) ?? `0-${Math.max(cpus().length, 1) - 1}`
/** How many processors the machine may have: the width of masks. */
export const possibleProcessors = (): number =>
  Math.max(...numbersOf(sysfsText(`${PROCESSORS}/possible`) ?? allProcessors())) + 1

/** A set of processors among `width` ones, as mask. */
export const processorMask = (processors: readonly number[], width: number): string => {
  const bits = processors.reduce((mask, processor) => mask | (1n << BigInt(processor)), 0n)
  const digits = bits.toString(16).padStart(Math.ceil(width / 4), '0')
  return digits.replace(/(.)(?=(?:.{8})+$)/g, '$1,')
}

/** The processors of a NUMA node; for -1, and on a kernel without NUMA, all. */
export const processorsOf = (node: number): ProcessorSet => {
  const list = (node < 0 ? undefined : sysfsText(`${NODES}/node${node}/cpulist`)) ?? allProcessors()
  return { list, mask: processorMask(numbersOf(list), possibleProcessors()) }
}

/** Whether the machine has a PCI function with this address, for example `0000:81:00.0`. */
export const hasPciFunction = (address: string): boolean => existsSync(`/sys/bus/pci/devices/${address}`)
