/*
 * Processor time of this process, and memory files whose last close takes much of it.
 */
import assert from 'node:assert/strict'
import { libcFunctions } from '../../src/host/native.ts'

const sys = libcFunctions({ fallocate: 'int fallocate(int fd, int mode, int64_t offset, int64_t length)' })

/** Of `fill`: to free them takes 10 ms or more. */
const BYTES = 2 ** 28

/** Allocates memory for a part of a memory file. */
export const fill = (fd: number, offset = 0): void => {
  assert.equal(sys().fallocate(fd, 0, offset, BYTES), 0)
}

/** The microseconds of processors that this process, with all its threads, uses meanwhile. */
export const processorTime = async (act: () => unknown): Promise<number> => {
  const before = process.cpuUsage()
  await act()
  const { user, system } = process.cpuUsage(before)
  return user + system
}
